"""The weights whose inputs and outputs can be watched, and the order in which to prune them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.unfold import Unfold, unfold_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir

    from passes.weights import Weight


@dataclass(frozen=True)
class Layer:
    """A weight, the one node that reads it, and what surrounds that node.

    Attributes:
        weight: what is pruned.
        node: its consumer.
        unfold: how the node reads its activation.
        bias: the constant added to each output channel, when this node alone reads it.
        other: in ``node + other``, the value added, when the node's output goes nowhere else.
        rectified: whether the output (or that sum) goes into a Relu and nowhere else.
    """

    weight: Weight
    node: ir.Node
    unfold: Unfold
    bias: ir.Value | None
    other: ir.Value | None
    rectified: bool

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.weight.name

    @property
    def activation(self) -> ir.Value:
        """The value that the weight multiplies."""
        value = self.node.inputs[self.unfold.activation]
        assert value is not None
        return value


def find_layers(graph: ir.Graph, weights: Iterable[Weight]) -> list[Layer]:
    """The layers of the main graph, in its order; tied weights are none, for want of one output."""
    by_node: dict[ir.Node, Layer] = {}
    for weight in weights:
        uses = tuple(weight.value.uses())
        if len(uses) != 1 or uses[0].node.graph is not graph:
            continue
        node, index = uses[0].node, uses[0].idx
        unfold = unfold_of(node, index, weight.layout.shape)
        if unfold is not None:
            by_node[node] = _layer(weight, node, unfold)
    return [by_node[node] for node in graph if node in by_node]


def schedule(graph: ir.Graph, layers: Sequence[Layer]) -> list[ir.Node]:
    """The graph's nodes in an order in which what is added to a layer's output is there before it."""
    others = {layer.node: layer.other for layer in layers if layer.other is not None}
    placed: dict[ir.Node, None] = {}
    for root in graph:
        pending = [root]
        while pending:
            node = pending[-1]
            first = [n for n in _before(node, others) if n not in placed and n is not node]
            if node in placed or not first:
                pending.pop()
                placed.setdefault(node)
            else:
                pending.extend(first)
    return list(placed)


def _before(node: ir.Node, others: Mapping[ir.Node, ir.Value]) -> list[ir.Node]:
    values = [*reads(node), others.get(node)]
    producers = [value.producer() for value in values if value is not None]
    return [
        producer for producer in producers if producer is not None and producer.graph is node.graph
    ]


def reads(node: ir.Node) -> list[ir.Value]:
    """All values that a node reads, those that its subgraphs capture included."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            inside = set(graph.inputs) | set(graph.initializers.values())
            for inner in graph.all_nodes():
                inside |= set(inner.outputs)
            for inner in graph.all_nodes():
                values += [v for v in inner.inputs if v is not None and v not in inside]
            values += [v for v in graph.outputs if v not in inside]
    return values


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.type.name == "GRAPH":
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type.name == "GRAPHS" else []


def _layer(weight: Weight, node: ir.Node, unfold: Unfold) -> Layer:
    output = node.outputs[0]
    if node.op_type == "Gemm" and not all(
        node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta")
    ):
        return Layer(weight, node, unfold, None, None, rectified=False)
    bias = _own_constant(node.inputs[2]) if len(node.inputs) > 2 else None
    add = _only_reader(output, "Add")
    constant = _own_constant(_operand(add, output)) if add is not None and bias is None else None
    if add is not None and constant is not None and _is_bias(constant, weight, unfold):
        bias, output = constant, add.outputs[0]
        add = _only_reader(output, "Add")
    other = None if add is None else _operand(add, output)
    if (
        add is not None
        and other is not None
        and other.const_value is None
        and not _depends(other, node)
    ):
        output = add.outputs[0]
    else:
        other = None
    rectified = _only_reader(output, "Relu") is not None
    return Layer(weight, node, unfold, bias, other, rectified)


def _is_bias(constant: ir.Value, weight: Weight, unfold: Unfold) -> bool:
    """Whether a constant that is added has one number for each output channel."""
    assert constant.const_value is not None
    shape = tuple(constant.const_value.shape.numpy())
    groups, rows, _ = weight.matrices().shape
    if unfold.kernel is None:
        return shape[-1:] == (rows,) and all(size == 1 for size in shape[:-1])
    spatial = (1,) * len(unfold.kernel)
    return shape in {(groups * rows, *spatial), (1, groups * rows, *spatial)}


def _operand(add: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other side of an Add; None when both sides are the same value."""
    first, second = add.inputs
    if first is second:
        return None
    return second if first is value else first


def _own_constant(value: ir.Value | None) -> ir.Value | None:
    """The value when it is an initializer that one node alone reads."""
    if (
        value is None
        or not value.is_initializer()
        or value.is_graph_input()
        or len(value.uses()) != 1
    ):
        return None
    return value


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != op_type:
        return None
    return uses[0].node


def _depends(value: ir.Value, node: ir.Node) -> bool:
    """Whether ``value`` is computed from ``node``."""
    seen: set[ir.Node] = set()
    pending = [value.producer()]
    while pending:
        current = pending.pop()
        if current is node:
            return True
        if current is None or current in seen:
            continue
        seen.add(current)
        pending += [read.producer() for read in reads(current)]
    return False
