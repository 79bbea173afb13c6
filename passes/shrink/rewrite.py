"""The pass that removes channels that are dead, until none is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.constants import freeze_constants
from passes.shrink.elementwise import BY_ELEMENT
from passes.shrink.facts import Walk
from passes.shrink.layers import LAYERS
from passes.shrink.movement import MOVEMENT
from passes.shrink.recurrent import RECURRENT
from passes.shrink.reshaping import RESHAPING
from passes.shrink.shapes import infer_shapes

RULES = LAYERS | BY_ELEMENT | MOVEMENT | RECURRENT | RESHAPING
"""What each operator does with channels: the only place that knows operators."""


@dataclass(frozen=True)
class ShrinkPass(ir.passes.InPlacePass):
    """Removes channels and hidden units that cannot change any output.

    A channel goes when all that read it have zero weights for it, or when it holds a constant that
    they can take into their biases. Outputs stay equal up to the rounding of floating-point
    numbers, as long as no activation is infinite or NaN. Inputs and outputs of the model are never
    touched; neither are bodies of functions and of control flow, nor weights that several nodes
    read.

    Attributes:
        multiple: of channels of images that stay: dead ones are kept to come to it. onnxruntime's
            fast convolutions take a multiple of 4 (or fewer than 8 or 16); 1 removes all that is
            dead.
    """

    multiple: int = 1

    def requires(self, model: ir.Model) -> None:
        """The multiple is one."""
        del model
        if self.multiple < 1:
            msg = f"channels cannot be kept in multiples of {self.multiple}; give 1 or more"
            raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Shrink to a fixed point; ``modified`` is True when anything was removed."""
        before = model.ir_version, list(model.graph.inputs)
        freeze_constants(model)
        modified = False
        while _shrink_once(model, self.multiple):
            modified = True
        if not modified:
            model.ir_version, inputs = before
            model.graph.inputs[:] = inputs
        return ir.passes.PassResult(model, modified)


def _shrink_once(model: ir.Model, multiple: int) -> bool:
    graph = model.graph
    walk = Walk(infer_shapes(model), model.opset_imports.get("", 0))
    for node in graph:
        rule = RULES.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
        with np.errstate(all="ignore"):
            if rule is None or not rule(walk, node):
                walk.block(*node.inputs)
        for inner in _inner_nodes(node):
            walk.block(*inner.inputs)
    walk.block(*graph.outputs)
    images = [f.units for v, f in walk.channels.items() if f.axis == 1 and walk.rank(v) == 4]
    changed = True
    while changed:  # keeping one may only keep more
        one = [walk.units.keep_one(found.units) for found in walk.channels.values()]
        changed = any(one + [walk.units.keep_multiple(units, multiple) for units in images])
    changes = [action() for action in walk.actions]
    if not any(changes):
        return False
    _update_shapes(graph, walk)
    return True


def _inner_nodes(node: ir.Node) -> list[ir.Node]:
    """All nodes of the graphs that a node holds; they may read values of the graph around it."""
    inner: list[ir.Node] = []
    for attribute in node.attributes.values():
        if isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPH:
            inner += attribute.as_graph().all_nodes()
        elif isinstance(attribute, ir.Attr) and attribute.type == ir.AttributeType.GRAPHS:
            for graph in attribute.as_graphs():
                inner += graph.all_nodes()
    return inner


def _update_shapes(graph: ir.Graph, walk: Walk) -> None:
    """Channels of values inside the graph are fewer; constants that nobody reads go.

    What is said of other axes stays said: onnxruntime folds what is computed from it.
    """
    for node in graph:
        for value in node.outputs:
            found = walk.of(value)
            if value.shape is None or found is None or value.is_graph_output():
                continue
            kept = walk.units.kept(found.units)
            if not kept.all():
                sizes = list(value.shape)
                sizes[found.axis] = int(kept.sum())
                value.shape = ir.Shape(sizes)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
            del graph.initializers[name]
