"""Compiling a graph into steps, and running them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
from onnx import AttributeProto, defs, helper

from onnxprune.errors import ModelError
from onnxprune.finetune.bridge import registry
from onnxprune.finetune.bridge.constants import (
    is_trained,
    quantized_weights,
    uses_by_name,
)
from onnxprune.finetune.bridge.dtypes import (
    WIDE_UNSIGNED,
    from_proto,
    is_supported,
    type_name,
    widened,
)
from onnxprune.finetune.bridge.graphs import (
    captured,
    constant_tensor,
    constants,
    named_constants,
    subgraphs,
)
from onnxprune.finetune.bridge.ops.quantise import grid_shape, on_grid
from onnxprune.finetune.bridge.registry import INTERNAL, Node, Operator, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from onnxprune.finetune.bridge.module import OnnxModule
    from onnxprune.finetune.bridge.normalise import Normalised


@dataclass(frozen=True)
class Step:
    """One node to run, and the values that nobody reads after it.

    ``same_type`` says for each output at which input stands a value of its type, or -1.
    """

    node: Node
    operator: Operator
    frees: tuple[str, ...]
    same_type: tuple[int, ...]

    def run(self, values: dict[str, Any], *, accelerated: bool) -> None:
        """Run the node on the values, add its outputs to them, and drop what is done with."""
        try:
            arguments = [values[name] if name else None for name in self.node.inputs]
            if accelerated:
                _align(arguments, self.operator.host)
            results = self._call(arguments, values, accelerated=accelerated)
        except (RuntimeError, IndexError, TypeError, ValueError, KeyError) as error:
            if isinstance(error, ModelError):
                raise
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            msg = f"torch cannot run {self.node.label}: {reason}"
            raise ModelError(msg) from error
        for name in self.frees:
            values.pop(name, None)
        values.update(
            (name, result) for name, result in zip(self.node.outputs, results, strict=False) if name
        )

    def _call(
        self, arguments: list[Any], values: dict[str, Any], *, accelerated: bool
    ) -> Sequence[Any]:
        operator = self.operator
        if operator.scoped:
            scope = Scope(values, accelerated=accelerated)
            return tuple(operator.function(self.node, *arguments, scope=scope))
        narrowed = {
            index: argument.dtype
            for index, argument in enumerate(arguments)
            if isinstance(argument, torch.Tensor)
            and argument.dtype in WIDE_UNSIGNED
            and not operator.wide
        }
        for index in narrowed:
            arguments[index] = arguments[index].to(torch.int64)
        result = (
            operator.function(*arguments)
            if operator.plain
            else operator.function(self.node, *arguments)
        )
        results = result if isinstance(result, tuple) else (result,)
        if not narrowed:
            return results
        return tuple(
            value.to(narrowed[source])
            if source in narrowed and isinstance(value, torch.Tensor)
            else value
            for value, source in zip(results, self.same_type, strict=False)
        )


@dataclass(frozen=True)
class Scope:
    """The values that a node's own graphs can see."""

    values: dict[str, Any]
    accelerated: bool

    def run(self, program: Program, inputs: Sequence[Any] = ()) -> list[Any]:
        """Run a graph of the node on ``inputs``, in the order of its own."""
        values = dict(self.values)
        values.update(zip(program.inputs, inputs, strict=True))
        return program.run(values, accelerated=self.accelerated)


@dataclass(frozen=True)
class Program:
    """A compiled graph: names of what it takes and gives, and its steps."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    steps: tuple[Step, ...]

    def run(self, values: dict[str, Any], *, accelerated: bool) -> list[Any]:
        """The outputs, from a mapping of all values in sight, which is used up."""
        for step in self.steps:
            step.run(values, accelerated=accelerated)
        return [values[name] for name in self.outputs]


class Compiler:
    """Turns a normalised model into a program, and hands its constants to a module.

    Args:
        module: takes parameters and constants.
        normalised: the model.
    """

    def __init__(self, module: OnnxModule, normalised: Normalised) -> None:
        self._module = module
        self._graph = normalised.model.graph
        self._names = normalised.names
        self._opsets = normalised.opsets
        self._constants = dict(named_constants(self._graph))
        self._quantized = quantized_weights(self._graph, self._constants)
        self._uses = uses_by_name(self._graph)
        self._refused: list[str] = []

    def compile(self) -> Program:
        """The program of the main graph.

        Raises:
            UnsupportedError: naming every node that cannot be run, and why.
        """
        self._hold_constants()
        program = self._program(self._graph)
        if self._refused:
            msg = f"the torch bridge cannot run {'; '.join(dict.fromkeys(self._refused))}"
            raise UnsupportedError(msg)
        return program

    def _hold_constants(self) -> None:
        compute = self._module.mode.compute
        tensors = {name: constant_tensor(c) for name, c in self._constants.items()}
        for name, tensor in tensors.items():
            if tensor is None or not is_supported(tensor.data_type):
                kind = "STRING" if tensor is None else type_name(tensor.data_type)
                if self._uses.get(name):
                    self._refused.append(f"constant '{name}' of type {kind}")
                continue
            ours = name in self._names
            value = from_proto(tensor, at_least=compute)
            if ours and name in self._quantized:
                grid = self._quantized[name]
                scale = constant_tensor(self._constants[grid.scale])
                assert scale is not None
                step = grid_shape(from_proto(scale), value.ndim, grid.axis)
                zero = 0
                if grid.zero_point:
                    point = constant_tensor(self._constants[grid.zero_point])
                    assert point is not None
                    zero = grid_shape(from_proto(point), value.ndim, grid.axis)  # type: ignore[assignment]
                self._module.grids[name] = grid
                latent = on_grid(value, step, zero)
                self._module.add_parameter(name, latent.to(widened(latent.dtype, compute)))
            elif ours and is_trained(tensor, self._uses.get(name, [])):
                self._module.add_parameter(name, value)
            else:
                self._module.add_constant(name, value)

    def _program(self, graph: onnx.GraphProto) -> Program:
        held = {name for name, _ in constants(graph)}
        outputs = tuple(value.name for value in graph.output)
        quantizers = {n.output[0]: n for n in graph.node if n.op_type == "QuantizeLinear"}
        nodes = [self._node(n, quantizers) for n in graph.node if n.op_type != "Constant"]
        reads = [self._reads(node, proto) for node, proto in nodes]
        keep = _alive(nodes, reads, set(outputs))
        last: dict[str, int] = {}
        for index in keep:
            last.update(dict.fromkeys(reads[index], index))
        produced = {name for index in keep for name in nodes[index][0].outputs}
        produced |= {value.name for value in graph.input}
        steps = []
        for index in keep:
            node, _ = nodes[index]
            done = [
                name
                for name in (*dict.fromkeys(reads[index]), *node.outputs)
                if last.get(name, index) == index and name in produced - set(outputs) - held
            ]
            # An output that nobody reads is dropped by giving it no name.
            unread = {n for n in node.outputs if n not in last and n not in outputs}
            node = _without_outputs(node, unread)
            frees = tuple(name for name in done if name not in node.outputs and name not in unread)
            operator = registry.find(node.domain, node.op_type)
            if operator is not None:
                steps.append(Step(node, operator, frees, _same_types(node)))
        inputs = tuple(value.name for value in graph.input)
        return Program(inputs, outputs, tuple(steps))

    def _node(
        self, proto: onnx.NodeProto, quantizers: dict[str, onnx.NodeProto]
    ) -> tuple[Node, onnx.NodeProto]:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs, op_type, extra = tuple(proto.input), proto.op_type, {}
        if op_type == "DequantizeLinear" and inputs[0] in self._module.grids:
            domain, op_type = INTERNAL, "DequantizeWeight"
            tensor = constant_tensor(self._constants[inputs[0]])
            assert tensor is not None
            extra = {"code": tensor.data_type}
        elif op_type == "DequantizeLinear" and inputs[0] in quantizers:
            quantizer = quantizers[inputs[0]]
            ours, theirs = (*inputs[1:], "")[:2], (*quantizer.input[1:], "")[:2]
            domain, op_type = INTERNAL, "FakeQuantize"
            inputs = (quantizer.input[0], *theirs, *ours)
            extra = {f"quantize_{a.name}": self._attribute(a) for a in quantizer.attribute}
        attributes = {a.name: self._attribute(a) for a in proto.attribute} | extra
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        node = Node(
            op_type,
            domain,
            proto.name,
            inputs,
            tuple(proto.output),
            attributes,
            self._opsets.get(domain, 1),
            self._module.mode,
        )
        self._check(node)
        return node, proto

    def _check(self, node: Node) -> None:
        operator = registry.find(node.domain, node.op_type)
        if operator is None:  # only what normalising itself put in can get here
            self._refused.append(node.op_type)
        elif operator.refuses is not None and (reason := operator.refuses(node)):
            self._refused.append(f"{node.label}: {reason}")

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        if attribute.type == AttributeProto.GRAPH:
            return self._program(attribute.g)
        value = helper.get_attribute_value(attribute)
        if isinstance(value, onnx.TensorProto):
            return from_proto(value, at_least=self._module.mode.compute)
        if isinstance(value, bytes):
            return value.decode()
        if attribute.type == AttributeProto.STRINGS:
            return [item.decode() for item in value]
        if attribute.type in {AttributeProto.INTS, AttributeProto.FLOATS}:
            return list(value)
        return value

    def _reads(self, node: Node, proto: onnx.NodeProto) -> list[str]:
        inner = [name for _, graph in subgraphs(proto) for name in sorted(captured(graph))]
        return [name for name in (*node.inputs, *inner) if name]


def _alive(
    nodes: Sequence[tuple[Node, Any]], reads: Sequence[Sequence[str]], wanted: set[str]
) -> list[int]:
    """Indices of the nodes whose outputs somebody reads, in order."""
    needed = set(wanted)
    keep = []
    for index in range(len(nodes) - 1, -1, -1):
        if needed & set(nodes[index][0].outputs):
            keep.append(index)
            needed |= set(reads[index])
    return keep[::-1]


def _without_outputs(node: Node, unread: set[str]) -> Node:
    outputs = tuple("" if name in unread else name for name in node.outputs)
    return Node(
        node.op_type,
        node.domain,
        node.name,
        node.inputs,
        outputs,
        node.attributes,
        node.opset,
        node.mode,
    )


def _same_types(node: Node) -> tuple[int, ...]:
    """For each output the first input that the schema gives the same type, or -1."""
    try:
        schema = defs.get_schema(node.op_type, node.opset, node.domain)
    except defs.SchemaError:
        return tuple(-1 for _ in node.outputs)
    formal_inputs, formal_outputs = list(schema.inputs), list(schema.outputs)
    inputs = [
        formal_inputs[min(i, len(formal_inputs) - 1)].type_str for i in range(len(node.inputs))
    ]
    return tuple(
        next(
            (
                i
                for i, kind in enumerate(inputs)
                if kind == formal_outputs[min(o, len(formal_outputs) - 1)].type_str
            ),
            -1,
        )
        for o in range(len(node.outputs))
    )


def _align(arguments: list[Any], host: Iterable[int]) -> None:
    """Move tensors to the accelerator when one of them is there; numbers for shapes stay."""
    device = next(
        (a.device for a in arguments if isinstance(a, torch.Tensor) and a.device.type != "cpu"),
        None,
    )
    if device is None:
        return
    for index, argument in enumerate(arguments):
        if isinstance(argument, torch.Tensor) and index not in host:
            arguments[index] = argument.to(device)
