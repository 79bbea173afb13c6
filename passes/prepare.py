"""A normalised view of a model to read from: its constants, and where each is read.

Constants are initializers, Constant nodes and ConstantOfShape nodes of a known shape, in the main
graph, in the bodies of If, Loop and Scan, and in model-local functions. From each one the view
follows the array through reshapes, transposes, cuts, concatenations and dequantisation, into
functions and out of them, to the operators that read it. Nothing is changed or copied: passes write
into the user's own graph.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from passes.operators import NotPrunable
from passes.operators.chains import concatenation, moves
from passes.operators.constants import integers, stored_tensor
from passes.operators.resolve import Seen, resolve
from passes.store import Constant, constants_of, described, fills

if TYPE_CHECKING:
    from collections.abc import Iterator

    from passes.operators.moves import Move
    from passes.operators.resolve import Call

Shape = tuple[int, ...]

MAX_VISITS = 20_000
"""A constant whose ways through the graph take more steps is left alone; bounds hostile models."""

MAX_STEPS = 100
"""Longer chains than this are not followed."""

ONLY_SHAPE = frozenset((("", "Shape"), ("", "Size")))
"""Operators that read the shape of an array and none of its elements."""


@dataclass(frozen=True, eq=False)
class Reading:
    """An operator that reads a constant, or where following it ended.

    Attributes:
        node: the operator; None when the constant leaves the graph.
        seen: the operator with all its attributes known.
        index: the input at which it reads.
        path: the moves from the stored array to that input.
        reason: why the constant could not be followed any further, or None.
    """

    node: ir.Node | None
    seen: Seen | None
    index: int
    path: tuple[Move, ...]
    reason: str | None = None


class View:
    """The constants of one model and where they are read.

    Args:
        model: it must not change while the view is used.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._visits = 0
        self._shapes: dict[tuple[int, ...], Shape | None] = {}
        self._labels: dict[ir.Graph, str] = {model.graph: ""}
        self._functions = {function.graph: function for function in model.functions.values()}
        self._calls: dict[ir.OperatorIdentifier, list[ir.Node]] = {}
        self._label(model.graph, "")
        for function in model.functions.values():
            self._labels[function.graph] = function.name
            self._label(function, function.name)

    def constants(self) -> tuple[Constant, ...]:
        """All constants with elements, in the order of the model's graphs, the main graph first."""
        found = [
            (graph, value, place)
            for graph in self._labels
            for value, place in constants_of(graph)
            if value.name
        ]
        names = Counter(value.name for _, value, _ in found)
        taken: Counter[str] = Counter()
        result = []
        for graph, value, place in found:
            assert value.name is not None
            label = self._labels[graph]
            name = value.name if names[value.name] == 1 or not label else f"{label}/{value.name}"
            taken[name] += 1
            if taken[name] > 1:
                name = f"{name}#{taken[name]}"
            dtype, shape = described(value, place)
            if math.prod(shape):
                result.append(Constant(name, value, place, dtype, shape))
        return tuple(result)

    def readings(self, constant: Constant) -> tuple[Reading, ...]:
        """The operators that read a constant, in the order of the graph.

        Raises:
            NotPrunable: when its ways through the graph are more than a model can sensibly have.
        """
        self._visits = 0
        return tuple(self._follow(constant.value, constant.shape, (), ()))

    def _follow(
        self,
        value: ir.Value,
        shape: Shape,
        path: tuple[Move, ...],
        calls: tuple[Call, ...],
    ) -> Iterator[Reading]:
        self._visits += 1
        if self._visits > MAX_VISITS:
            raise NotPrunable("the nodes that read it cannot be listed: there are too many ways")
        if len(path) > MAX_STEPS or len(calls) > MAX_STEPS:
            yield Reading(None, None, 0, path, "it is reached through too long a chain")
            return
        if value.is_graph_output():
            yield from self._leave(value, shape, path, calls)
        for usage in value.uses():
            node, index = usage.node, usage.idx
            function = self._model.functions.get(node.op_identifier())
            if function is not None:
                if index < len(function.inputs):
                    inner = function.inputs[index]
                    yield from self._follow(inner, shape, path, (*calls, (node, function)))
                continue
            if (node.domain, node.op_type) in ONLY_SHAPE:
                continue
            yield from self._through(node, index, shape, path, calls)

    def _through(
        self,
        node: ir.Node,
        index: int,
        shape: Shape,
        path: tuple[Move, ...],
        calls: tuple[Call, ...],
    ) -> Iterator[Reading]:
        """Through one node, when it is one to look through; otherwise it is where the path ends."""
        try:
            seen = resolve(node, calls)
            steps = self._moves(seen, index, shape, calls)
        except NotPrunable as reason:
            yield Reading(node, None, index, path, str(reason))
            return
        if steps is None:
            yield Reading(node, seen, index, path)
            return
        for output, move in zip(node.outputs, steps, strict=False):
            yield from self._follow(output, move.after, (*path, move), calls)

    def _moves(
        self, seen: Seen, index: int, shape: Shape, calls: tuple[Call, ...], depth: int = MAX_STEPS
    ) -> tuple[Move, ...] | None:
        if (seen.domain, seen.op_type) != ("", "Concat"):
            return moves(seen, index, shape)
        shapes = tuple(self._shape_of(value, calls, depth) for value in seen.inputs)
        move = concatenation(seen, shapes, index)
        return None if move is None else (move,)

    def _shape_of(
        self, value: ir.Value | None, calls: tuple[Call, ...], depth: int
    ) -> Shape | None:
        """The shape of a value that is computed from constants alone; None for any other."""
        if value is None or depth == 0:
            return None
        key = (id(value), *(id(call) for call, _ in calls))
        if key not in self._shapes:
            self._shapes[key] = self._computed_shape(value, calls, depth)
        return self._shapes[key]

    def _computed_shape(self, value: ir.Value, calls: tuple[Call, ...], depth: int) -> Shape | None:
        node = value.producer()
        if node is None and calls and value.graph is calls[-1][1].graph:
            call, function = calls[-1]
            index = list(function.inputs).index(value)
            given = call.inputs[index] if index < len(call.inputs) else None
            return self._shape_of(given, calls[:-1], depth - 1)
        if stored_tensor(value) is not None:
            return described(value, "initializer")[1]
        if node is not None and fills(node):
            return integers(node.inputs[0])
        if node is None or not node.inputs or node.op_identifier() in self._model.functions:
            return None
        return self._shape_after(node, value.index() or 0, calls, depth)

    def _shape_after(
        self, node: ir.Node, output: int, calls: tuple[Call, ...], depth: int
    ) -> Shape | None:
        source = self._shape_of(node.inputs[0], calls, depth - 1)
        if source is None:
            return None
        try:
            steps = self._moves(resolve(node, calls), 0, source, calls, depth - 1)
        except NotPrunable:
            return None
        return steps[output].after if steps is not None and output < len(steps) else None

    def _leave(
        self,
        value: ir.Value,
        shape: Shape,
        path: tuple[Move, ...],
        calls: tuple[Call, ...],
    ) -> Iterator[Reading]:
        """Where a value goes that is an output of its graph."""
        graph = value.graph
        function = self._functions.get(graph) if graph is not None else None
        if function is None:
            main = graph is self._model.graph
            label = self._labels.get(graph, "") if graph is not None else ""
            where = "it is an output of the model" if main else f"it leaves the body '{label}'"
            yield Reading(None, None, 0, path, where)
            return
        sites = [calls[-1][0]] if calls else self._calls.get(function.identifier(), [])
        for site in sites:
            for place, output in enumerate(function.outputs):
                if output is value and place < len(site.outputs):
                    yield from self._follow(site.outputs[place], shape, path, calls[:-1])

    def _label(self, graph: ir.Graph | ir.Function, label: str) -> None:
        for number, node in enumerate(graph):
            if node.op_identifier() in self._model.functions:
                self._calls.setdefault(node.op_identifier(), []).append(node)
            for name, body in bodies_of(node):
                inner = f"{label}/{node.name or f'{node.op_type}_{number}'}.{name}".lstrip("/")
                self._labels[body] = inner
                self._label(body, inner)


def bodies_of(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """The graphs in the attributes of a node, each with the name of its attribute."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for number, graph in enumerate(attribute.as_graphs()):
                yield f"{name}[{number}]", graph
