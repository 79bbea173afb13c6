"""Chains of one form become calls of one model-local function, where the IR version has those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from passes.pack.scopes import CHAIN, DOMAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from passes.pack.builder import Builder

FUNCTION_IR_VERSION = 8


@dataclass(frozen=True, eq=False)
class Chain:
    """The nodes of a stream of one weight, the values that they read, and the weight."""

    nodes: tuple[ir.Node, ...]
    reads: tuple[ir.Value, ...]
    result: ir.Value

    @property
    def form(self) -> tuple[object, ...]:
        """Equal for chains that differ in nothing but what they read."""
        made = {
            value: (at, out)
            for at, n in enumerate(self.nodes)
            for out, value in enumerate(n.outputs)
        }
        read = {value: at for at, value in enumerate(self.reads)}
        return tuple(
            (
                node.op_type,
                tuple(sorted((name, str(a.value)) for name, a in node.attributes.items())),
                tuple(made.get(v) or read[v] for v in node.inputs if v is not None),
            )
            for node in self.nodes
        )


def outline(
    model: ir.Model, builder: Builder, chains: Sequence[tuple[slice, ir.Value]]
) -> dict[ir.Value, ir.Value]:
    """Replace chains that share a form by calls; what took the place of each weight.

    Args:
        model: gets the functions.
        builder: holds the nodes, which are not in a graph yet.
        chains: where the nodes of each stream of one weight stand, and the weight that they make.
    """
    if (model.ir_version or 0) < FUNCTION_IR_VERSION:
        return {}
    shared = builder.shared_nodes()
    groups: dict[tuple[object, ...], list[Chain]] = {}
    for where, result in chains:
        chain = _chain([node for node in builder.nodes[where] if node not in shared], result)
        groups.setdefault(chain.form, []).append(chain)
    replaced: dict[ir.Value, ir.Value] = {}
    for group in groups.values():
        if len(group) > 1:
            function = _function(model, builder, group[0])
            for chain in group:
                replaced[chain.result] = _call(builder, function, chain)
    return replaced


def _chain(nodes: list[ir.Node], result: ir.Value) -> Chain:
    made = {value for node in nodes for value in node.outputs}
    reads = dict.fromkeys(
        value for node in nodes for value in node.inputs if value is not None and value not in made
    )
    return Chain(tuple(nodes), tuple(reads), result)


def _function(model: ir.Model, builder: Builder, chain: Chain) -> ir.Function:
    """The chain as a function of all that it reads."""
    inside = {value: ir.Value(name=f"i{at}") for at, value in enumerate(chain.reads)}
    inputs = list(inside.values())
    nodes = []
    for node in chain.nodes:
        copy = ir.node(
            node.op_type,
            [None if value is None else inside[value] for value in node.inputs],
            {name: attribute.value for name, attribute in node.attributes.items()},
            num_outputs=len(node.outputs),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = f"v{len(inside)}"
            inside[old] = new
        nodes.append(copy)
    graph = ir.Graph(inputs, [inside[chain.result]], nodes=nodes, opset_imports={"": builder.opset})
    for node in nodes:
        node.name = None
    name = f"{CHAIN}{sum(key[0] == DOMAIN for key in model.functions)}"
    function = ir.Function(DOMAIN, name, "", graph=graph, attributes=[])
    model.functions[function.identifier()] = function
    model.graph.opset_imports[DOMAIN] = 1
    return function


def _call(builder: Builder, function: ir.Function, chain: Chain) -> ir.Value:
    """Put a call in place of the chain's last node, and the others away."""
    call = ir.node(function.name, list(chain.reads), domain=DOMAIN, num_outputs=1)
    call.outputs[0].name = builder.names.new()
    at = builder.nodes.index(chain.nodes[-1])
    builder.nodes[at] = call
    gone = set(chain.nodes)
    builder.nodes[:] = [node for node in builder.nodes if node not in gone]
    for node in chain.nodes:
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)
    return call.outputs[0]
