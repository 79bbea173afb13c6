"""The order in which a graph's nodes run, and what each of them reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from passes.operators.constants import stored_tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import onnx_ir as ir

NOT_CONSTANT = frozenset(
    (
        "RandomNormal",
        "RandomUniform",
        "RandomNormalLike",
        "RandomUniformLike",
        "Bernoulli",
        "Multinomial",
    )
)
"""Operators that give something new each time, even from constants."""


def folded_nodes(graph: ir.Graph) -> frozenset[ir.Node]:
    """The nodes that compute constants: they run with whatever reads them, on the constants of that moment."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type in NOT_CONSTANT or any(
            a.type.name in {"GRAPH", "GRAPHS"} for a in node.attributes.values()
        ):
            continue
        inputs = [value for value in node.inputs if value is not None]
        if all(stored_tensor(v) is not None or v.producer() in found for v in inputs):
            found.add(node)
    return frozenset(found)


def schedule(
    graph: ir.Graph, first: Mapping[ir.Node, Iterable[ir.Value]], folded: AbstractSet[ir.Node]
) -> list[ir.Node]:
    """The nodes that compute no constants, in an order in which more than their inputs comes before them.

    Args:
        graph: whose nodes they are.
        first: values that must be there before a node runs, beyond those that it reads.
        folded: of :func:`folded_nodes`, which are left out.
    """
    placed: dict[ir.Node, None] = {}
    for root in graph:
        pending = [root]
        while pending:
            node = pending[-1]
            if node in placed or node in folded:
                pending.pop()
                continue
            # Of two nodes that wish each other there first, one must go without.
            wishes = [value for value in first.get(node, ()) if not _computed_from(value, pending)]
            values = (value.producer() for value in (*reads(node), *wishes))
            missing = [
                before
                for before in values
                if before is not None and before.graph is node.graph
                if before not in placed and before not in folded
            ]
            if missing:
                pending.append(missing[0])
            else:
                placed[pending.pop()] = None
    return list(placed)


def reads(node: ir.Node) -> list[ir.Value]:
    """All values that a node reads, those that its subgraphs capture included."""
    values = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        for graph in _graphs(attribute):
            inside = set(graph.inputs) | set(graph.initializers.values())
            for inner in graph.all_nodes():
                inside |= set(inner.outputs)
                for body in _bodies(inner):
                    inside |= set(body.inputs) | set(body.initializers.values())
            for inner in graph.all_nodes():
                values += [v for v in inner.inputs if v is not None and v not in inside]
            values += [v for v in graph.outputs if v not in inside]
    return values


def needed_by(nodes: Sequence[ir.Node], folded: AbstractSet[ir.Node]) -> set[str]:
    """The names of all values that nodes read, through constants that are computed for them."""
    return {value.name or "" for node in with_folded(nodes, folded) for value in reads(node)}


def with_folded(nodes: Sequence[ir.Node], folded: AbstractSet[ir.Node]) -> list[ir.Node]:
    """The nodes, each after the nodes that compute constants for it."""
    placed: dict[ir.Node, None] = {}
    for root in nodes:
        pending = [root]
        while pending:
            node = pending[-1]
            producers = (value.producer() for value in reads(node))
            missing = [p for p in producers if p is not None and p in folded and p not in placed]
            if node in placed or not missing:
                pending.pop()
                placed.setdefault(node)
            else:
                pending.extend(missing)
    return list(placed)


def depends(value: ir.Value, node: ir.Node) -> bool:
    """Whether ``value`` is computed from ``node``."""
    return _computed_from(value, [node])


def _computed_from(value: ir.Value, nodes: Sequence[ir.Node]) -> bool:
    seen: set[ir.Node] = set()
    pending, ends = [value.producer()], set(nodes)
    while pending:
        current = pending.pop()
        if current in ends:
            return True
        if current is None or current in seen:
            continue
        seen.add(current)
        pending += [read.producer() for read in reads(current)]
    return False


def _bodies(node: ir.Node) -> list[ir.Graph]:
    return [graph for attribute in node.attributes.values() for graph in _graphs(attribute)]


def _graphs(attribute: ir.Attr) -> list[ir.Graph]:
    if attribute.is_ref():
        return []
    if attribute.type.name == "GRAPH":
        return [attribute.as_graph()]
    return list(attribute.as_graphs()) if attribute.type.name == "GRAPHS" else []
