"""Running a model stretch by stretch over calibration data.

A stream holds, for each batch, the values that later nodes still need. Moving it on runs the nodes
in between, once, with whatever constants are asked for; so a whole sequence of layers costs one
pass over the model instead of one for each layer. When those values take more memory than allowed,
some batches are not held: they start at the model's inputs each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from passes.loops import expose, inner_names, outer_name
from passes.operators.constants import stored_tensor
from passes.prepare import bodies_of
from passes.schedule import folded_nodes, needed_by, reads, with_folded
from passes.values import Values, tap_name

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from numpy.typing import NDArray

Feeds = dict[str, "NDArray[Any]"]

Runner = Callable[[bytes, Iterable[Feeds]], Iterable[Feeds]]
"""Runs a serialized model on each feed, in order, and gives all its outputs by name, one by one."""


@final
class Stretch:
    """Some consecutive nodes of a schedule, as a model of their own.

    Nodes that compute constants for them come along.

    Args:
        model: whose nodes they are.
        nodes: in order.
        needed: names of values that are read later.
        folded: of :func:`passes.schedule.folded_nodes`; found here when None.
    """

    def __init__(
        self,
        model: ir.Model,
        nodes: Sequence[ir.Node],
        needed: AbstractSet[str],
        folded: AbstractSet[ir.Node] | None = None,
    ) -> None:
        self._model = model
        self._nodes = with_folded(nodes, folded_nodes(model.graph) if folded is None else folded)
        made = [
            name for node in self._nodes for value in node.outputs if (name := _name(node, value))
        ]
        stacked = [name for node in self._nodes for name in inner_names(node)]
        inside = set(made)
        read = {value.name: value for node in self._nodes for value in reads(node) if value.name}
        self.constants = {
            name: value
            for name, value in read.items()
            if value.const_value is not None and value.producer() is None
        }
        self._inner = {name for node in self._nodes for name in _constants_in(node)}
        self.inputs = [name for name in read if name not in inside | self.constants.keys()]
        self.outputs = [name for name in made if name in needed]
        self._stacked = {outer_name(name): name for name in stacked if name in needed}

    def replaces(self, name: str) -> bool:
        """Whether a constant of that name is read, so that another array can take its place."""
        return name in self.constants or name in self._inner

    def run(
        self, runner: Runner, batches: Sequence[Feeds], constants: Mapping[str, NDArray[Any]]
    ) -> list[Feeds]:
        """The outputs for each batch; see :meth:`each`."""
        return list(self.each(runner, batches, constants))

    def each(
        self, runner: Runner, batches: Iterable[Feeds], constants: Mapping[str, NDArray[Any]]
    ) -> Iterator[Feeds]:
        """The outputs for each batch, one after the other.

        Args:
            runner: injected by the caller.
            batches: live values by name.
            constants: arrays that take the place of the model's own, by name.
        """
        if not self.outputs and not self._stacked:
            yield from ({} for _ in batches)
            return
        waiting = iter(batches)
        first = next(waiting, None)
        if first is None:
            return
        feeds = ({name: batch[name] for name in self.inputs} for batch in _chained(first, waiting))
        for made in runner(self.serialized(first, constants), feeds):
            yield {self._stacked.get(name, name): array for name, array in made.items()}

    def serialized(self, feed: Feeds, constants: Mapping[str, NDArray[Any]]) -> bytes:
        """The stretch as a model.

        Args:
            feed: an array for each of :attr:`inputs`, which say their dtypes.
            constants: arrays that take the place of the model's own, by name.
        """
        replaced = {
            value.name: constants[value.name]
            for node in self._nodes
            for value in node.outputs
            if value.name and value.name in constants
        }
        initializers = [
            numpy_helper.from_array(constants[name], name)
            if name in constants
            else _serialized_tensor(value, name)
            for name, value in self.constants.items()
        ]
        initializers += [numpy_helper.from_array(array, name) for name, array in replaced.items()]
        inputs = [
            helper.make_tensor_value_info(
                name, helper.np_dtype_to_tensor_dtype(feed[name].dtype), None
            )
            for name in self.inputs
        ]
        nodes = [
            _serialized_node(node, {*self.outputs, *self._stacked.values()}, constants)
            for node in self._nodes
            if not any(value.name in replaced for value in node.outputs)
        ]
        outputs = [onnx.ValueInfoProto(name=name) for name in [*self.outputs, *self._stacked]]
        graph = helper.make_graph(nodes, "stretch", inputs, outputs, initializers)
        opsets = [helper.make_opsetid(d, v) for d, v in self._model.opset_imports.items()]
        proto = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=self._model.ir_version or 8,
            functions=[ir.serde.serialize_function(f) for f in self._model.functions.values()],
        )
        return bytes(proto.SerializeToString())


@final
class Stream:
    """Calibration data on their way through a schedule.

    Args:
        model: whose nodes they are.
        nodes: all of them, in the order in which they run.
        folded: of :func:`passes.schedule.folded_nodes`.
        batches: feeds for the model's inputs.
        runner: runs models.
        constants: arrays that take the place of the model's own; read anew with each move.
        limit_bytes: of the values that are held.

    Attributes:
        held_bytes: how many they take now, inputs of the model left out.
    """

    def __init__(
        self,
        model: ir.Model,
        nodes: Sequence[ir.Node],
        folded: AbstractSet[ir.Node],
        batches: Sequence[Feeds],
        runner: Runner,
        constants: Mapping[str, NDArray[Any]],
        limit_bytes: int,
    ) -> None:
        self._model, self._nodes, self._folded = model, nodes, folded
        self._batches, self._runner, self._constants = batches, runner, constants
        self._limit = limit_bytes
        self._held: list[Feeds | None] = [dict(batch) for batch in batches]
        self._start = 0
        self.held_bytes = 0

    def visit(
        self, stop: int, taps: Iterable[ir.Value] = (), *, inside: bool = False
    ) -> Iterator[Values]:
        """Move on to just before ``nodes[stop]``; for each batch what is known there.

        A batch is held only as long as it is looked at, unless there is room for it.

        Args:
            stop: a place in the schedule, never before an earlier one.
            taps: values to watch.
            inside: run ``nodes[stop]`` too, for taps that it computes; it is run again when the stream
                moves on.
        """
        later = needed_by(self._nodes[stop:], self._folded)
        needed = later | {tap_name(value) for value in taps if stored_tensor(value) is None}
        end = stop + int(inside)
        held = [live is not None for live in self._held]
        moved = {
            kind: Stretch(self._model, self._nodes[start:end], needed, self._folded).each(
                self._runner, self._feeds(held, kind=kind), self._constants
            )
            for kind, start in ((True, self._start), (False, 0))
        }
        dropped = {tap_name(v) for node in self._nodes[stop:end] for v in node.outputs if v.name}
        self.held_bytes = 0
        for number, batch in enumerate(self._batches):
            live = dict(self._held[number] or batch) | next(moved[held[number]])
            yield Values(live, self._constants)
            live = {n: a for n, a in live.items() if n in later and n not in dropped}
            size = sum(array.nbytes for name, array in live.items() if name not in batch)
            fits = self.held_bytes + size <= self._limit
            self.held_bytes += size if fits else 0
            self._held[number] = live if fits else None
        self._start = stop

    def _feeds(self, held: Sequence[bool], *, kind: bool) -> Iterator[Feeds]:
        for number, batch in enumerate(self._batches):
            if held[number] == kind:
                yield self._held[number] or batch


def advance(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    start: int,
    stop: int,
    runner: Runner,
    stream: list[Feeds],
    constants: Mapping[str, NDArray[Any]],
    needed: frozenset[str] = frozenset(),
) -> None:
    """Run ``nodes[start:stop]`` and forget what nothing reads any more.

    Args:
        model: whose nodes they are.
        nodes: a whole schedule.
        start: of the nodes that are run.
        stop: of them.
        runner: injected by the caller.
        stream: live values by batch and name; moved on in place.
        constants: arrays that take the place of the model's own, by name.
        needed: names of values to keep beside those that later nodes read.
    """
    folded = folded_nodes(model.graph)
    wanted = needed_by(nodes[stop:], folded) | needed
    made = Stretch(model, nodes[start:stop], wanted, folded).run(runner, stream, constants)
    for batch, new in zip(stream, made, strict=True):
        batch.update(new)
        for name in [name for name in batch if name not in wanted]:
            del batch[name]


def _chained(first: Feeds, rest: Iterator[Feeds]) -> Iterator[Feeds]:
    yield first
    yield from rest


def _name(node: ir.Node, value: ir.Value) -> str | None:
    """The name by which an output is watched; None for one without a name of a node without any."""
    return tap_name(value) if value.name or any(output.name for output in node.outputs) else None


def _constants_in(node: ir.Node) -> Iterator[str]:
    """Names of the constants that a node computes, or that the bodies in it hold."""
    if node.op_type in {"Constant", "ConstantOfShape"}:
        yield from (value.name for value in node.outputs if value.name)
    for _, body in bodies_of(node):
        yield from body.initializers
        for inner in body:
            yield from _constants_in(inner)


def _serialized_node(
    node: ir.Node, wanted: AbstractSet[str], constants: Mapping[str, NDArray[Any]]
) -> onnx.NodeProto:
    """A node with other constants in its bodies, in which wanted outputs have names.

    Outputs that the model leaves out get one.
    """
    proto = ir.serde.serialize_node(node)
    for place, value in enumerate(node.outputs):
        name = _name(node, value)
        if name is not None and name in wanted:
            proto.output[place] = name
    external = dict(_external_in(node))
    for attribute in proto.attribute:
        for body in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            _replace(body, constants, external)
    stacked = [name for name in inner_names(node) if name in wanted]
    if stacked:
        expose(proto, stacked)
    return proto


def _replace(
    body: onnx.GraphProto,
    constants: Mapping[str, NDArray[Any]],
    external: Mapping[str, onnx.TensorProto],
) -> None:
    """Put arrays in the place of a body's constants, and take in those whose data lie elsewhere."""
    for tensor in body.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(numpy_helper.from_array(constants[tensor.name], tensor.name))
        elif tensor.name in external:
            tensor.CopyFrom(external[tensor.name])
    for node in body.node:
        name = node.output[0] if node.output else ""
        if name in constants and node.op_type in {"Constant", "ConstantOfShape"}:
            value = numpy_helper.from_array(constants[name], name)
            node.CopyFrom(helper.make_node("Constant", [], [name], node.name, value=value))
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _replace(inner, constants, external)


def _serialized_tensor(value: ir.Value, name: str) -> onnx.TensorProto:
    """A constant under a name, its data taken in wherever they are."""
    tensor = value.const_value
    assert tensor is not None
    if isinstance(tensor, ir.ExternalTensor):
        return onnx.TensorProto(
            name=name,
            data_type=int(tensor.dtype),
            dims=tensor.shape.numpy(),
            raw_data=tensor.tobytes(),
        )
    if tensor.name != name:
        tensor = ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
    return ir.serde.serialize_tensor(tensor)


def _external_in(node: ir.Node) -> Iterator[tuple[str, onnx.TensorProto]]:
    """The constants in a node's bodies whose data lie outside the model, by name."""
    for _, body in bodies_of(node):
        for name, value in body.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield name, _serialized_tensor(value, name)
        for inner in body:
            yield from _external_in(inner)
