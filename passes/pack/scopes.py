"""Where weights stand: the main graph, bodies of control flow, and model-local functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir

DOMAIN = "onnxprune"
"""Of our functions; the model imports version 1 of it."""

CHAIN = "unpack"
"""What the names of functions begin with to which chains are outlined; those of accelerated products differ."""


@dataclass(frozen=True, eq=False)
class Scope:
    """A list of nodes with its constants.

    Attributes:
        graph: that holds them; of a function the graph of its body.
        opset: under which its nodes are read.
        in_function: whether it is the body of a function, which has no initializers: constants
            there are Constant nodes.
    """

    graph: ir.Graph
    opset: int
    in_function: bool = False


def scopes(model: ir.Model) -> Iterator[Scope]:
    """All scopes of a model, in an order that packing does not change: chains come as none."""
    opset = model.opset_imports.get("", 0)
    yield Scope(model.graph, opset)
    for graph in model.graph.subgraphs():
        yield Scope(graph, opset)
    for function in model.functions.values():
        if function.domain == DOMAIN:
            continue
        own = function.opset_imports.get("", opset)
        yield Scope(function.graph, own, in_function=True)
        for graph in function.subgraphs():
            if graph is not function.graph:
                yield Scope(graph, own)
