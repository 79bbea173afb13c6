"""Running a model stretch by stretch over calibration data.

A stream holds, for each batch, the values that later nodes still need. Moving it on runs the nodes
in between, once, with whatever constants are asked for; so a whole sequence of layers costs one
pass over the model instead of one for each layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import onnx
import onnx_ir as ir
from onnx import helper, numpy_helper

from passes.layers import reads

if TYPE_CHECKING:
    from numpy.typing import NDArray

Feeds = dict[str, "NDArray[Any]"]

Runner = Callable[[bytes, Sequence[Feeds]], list[Feeds]]
"""Runs a serialized model on each feed and returns all its outputs by name."""


@final
class Stretch:
    """Some consecutive nodes of a schedule, as a model of their own.

    Args:
        model: whose nodes they are.
        nodes: in order.
        needed: names of values that are read later.
    """

    def __init__(self, model: ir.Model, nodes: Sequence[ir.Node], needed: set[str]) -> None:
        self._model = model
        self._nodes = nodes
        made = [value for node in nodes for value in node.outputs if value.name]
        inside = {value.name for value in made}
        read = {value.name: value for node in nodes for value in reads(node) if value.name}
        self.constants = {name: v for name, v in read.items() if v.const_value is not None}
        self.inputs = [name for name in read if name not in inside | self.constants.keys()]
        self.outputs = [value.name for value in made if value.name in needed]

    def run(
        self, runner: Runner, batches: Sequence[Feeds], constants: Mapping[str, NDArray[Any]]
    ) -> list[Feeds]:
        """The outputs for each batch.

        Args:
            runner: injected by the caller.
            batches: live values by name.
            constants: arrays that take the place of the model's own, by name.
        """
        if not self.outputs:
            return [{} for _ in batches]
        feeds = [{name: batch[name] for name in self.inputs} for batch in batches]
        return runner(self.serialized(feeds[0], constants), feeds)

    def serialized(self, feed: Feeds, constants: Mapping[str, NDArray[Any]]) -> bytes:
        """The stretch as a model.

        Args:
            feed: an array for each of :attr:`inputs`, which say their dtypes.
            constants: arrays that take the place of the model's own, by name.
        """
        initializers = [
            numpy_helper.from_array(constants[name], name)
            if name in constants
            else ir.serde.serialize_tensor(_named(value, name))
            for name, value in self.constants.items()
        ]
        inputs = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
            for name, array in feed.items()
            if name in self.inputs
        ]
        graph = helper.make_graph(
            [ir.serde.serialize_node(node) for node in self._nodes],
            "stretch",
            inputs,
            [onnx.ValueInfoProto(name=name) for name in self.outputs],
            initializers,
        )
        opsets = [helper.make_opsetid(d, v) for d, v in self._model.opset_imports.items()]
        proto = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=self._model.ir_version or 8,
            functions=[ir.serde.serialize_function(f) for f in self._model.functions.values()],
        )
        return bytes(proto.SerializeToString())


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
    wanted = {value.name or "" for node in nodes[stop:] for value in reads(node)} | needed
    made = Stretch(model, nodes[start:stop], wanted).run(runner, stream, constants)
    for batch, new in zip(stream, made, strict=True):
        batch.update(new)
        for name in [name for name in batch if name not in wanted]:
            del batch[name]


def _named(value: ir.Value, name: str) -> ir.TensorProtocol:
    tensor = value.const_value
    assert tensor is not None
    if tensor.name == name:
        return tensor
    return ir.tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
