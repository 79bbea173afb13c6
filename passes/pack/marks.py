"""What tells a packed model from others: one entry of the model's metadata.

It holds the prefix that the names of all chains begin with and, for each graph that has chains, at
which places among its initializers the packed ones stood: ``~ 0:3,5,6 2:0``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.pack.scopes import scopes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir

KEY = "onnxprune.packed"

_FORM = re.compile(r"(~+)((?: \d{1,9}:\d{1,9}(?:,\d{1,9})*)*)")


@dataclass(frozen=True)
class Marks:
    """The entry, read.

    Attributes:
        prefix: of all names that chains use.
        by_graph: places of the packed initializers, ascending, by the graph's number in the order
            of :func:`passes.pack.scopes.scopes`. What stood in a Constant node needs none: an
            Identity node keeps its place.
    """

    prefix: str
    by_graph: Mapping[int, tuple[int, ...]]

    def places(self, graph: int) -> tuple[int, ...]:
        """Of a graph's packed initializers."""
        return self.by_graph.get(graph, ())

    def write(self, model: ir.Model) -> None:
        """Mark a model."""
        words = [f"{graph}:{','.join(map(str, at))}" for graph, at in self.by_graph.items()]
        model.metadata_props[KEY] = " ".join([self.prefix, *words])

    def remove(self, model: ir.Model) -> None:
        """Take the mark away."""
        model.metadata_props.pop(KEY, None)


def read_marks(model: ir.Model) -> Marks | None:
    """The marks of a model; None when it is not packed."""
    found = _FORM.fullmatch(model.metadata_props.get(KEY, ""))
    if found is None:
        return None
    by_graph = {}
    for word in found[2].split():
        graph, places = word.split(":")
        by_graph[int(graph)] = tuple(int(place) for place in places.split(","))
    return Marks(found[1], by_graph)


def chain_nodes_of(graph: ir.Graph, prefix: str) -> tuple[ir.Node, ...]:
    """The nodes of a graph that belong to chains: all that they read has a name with the prefix.

    A node that reads nothing belongs to them when what it makes has such a name.
    """

    def belongs(node: ir.Node) -> bool:
        values = [value for value in node.inputs or node.outputs if value is not None]
        return bool(values) and all((value.name or "").startswith(prefix) for value in values)

    return tuple(node for node in graph if belongs(node))


def chain_nodes(model: ir.Model, prefix: str) -> tuple[ir.Node, ...]:
    """The nodes of chains in all graphs and functions of a model."""
    return tuple(node for scope in scopes(model) for node in chain_nodes_of(scope.graph, prefix))


def packed_names(model: ir.Model) -> tuple[str, ...]:
    """The names of the weights that a packed model rebuilds, in the order of its graphs."""
    marks = read_marks(model)
    if marks is None:
        return ()
    nodes = chain_nodes(model, marks.prefix)
    names = [value.name or "" for node in nodes for value in node.outputs]
    return tuple(name for name in names if not name.startswith(marks.prefix))
