"""The weights whose inputs and outputs can be watched, and why others cannot."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.grid import Grid
from passes.loops import body_of, in_loop
from passes.operators import NotPrunable
from passes.operators.moves import Cut
from passes.placement import OUTSIDE, columns_seen
from passes.readers import reader_of
from passes.recurrent import GATES
from passes.schedule import depends, folded_nodes, schedule
from passes.surroundings import surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.bias import Bias
    from passes.reader import Reader
    from passes.weights import Consumer, Weight

    Tile = Callable[[str], int | None]
    Order = Mapping[ir.Node, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class Source:
    """What one node multiplies a layer's weight with, in the order of the layer's view.

    Attributes:
        reader: the node, and how it reads.
        groups: for each group of the layer the group of reductions, -1 where the node does not read it.
        columns: for each group and column of the layer the column of the reduction, or -1; None when
            they are the same.
    """

    reader: Reader
    groups: NDArray[np.intp]
    columns: NDArray[np.intp] | None = None

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """Reductions ``(G, len(index), C)`` in the layer's view; zero where nothing is read.

        Args:
            activation: as the reader prepares it.
            index: positions.
        """
        found = self.reader.unfold.reductions(activation, index)
        if self.columns is None:
            if len(found) == len(self.groups) and np.array_equal(
                self.groups, np.arange(len(found))
            ):
                return found
            picked = found[self.groups]
        else:
            picked = np.stack(
                [
                    found[group][:, columns]
                    for group, columns in zip(self.groups, self.columns, strict=True)
                ]
            )
            picked[np.broadcast_to((self.columns == OUTSIDE)[:, None], picked.shape)] = 0
        picked[self.groups == OUTSIDE] = 0
        return picked


@dataclass(frozen=True, eq=False)
class Layer:
    """A weight, the nodes that read it, and what surrounds them.

    The layer's view is that of the weight, except that its groups are matrices whose rows all have the
    same reductions: gates of a recurrent operator that read the same sequence are one, parts of a
    weight that different nodes read are several.

    Attributes:
        weight: what is pruned.
        sources: what it is multiplied with; more than one when it is tied or cut in parts.
        shape: groups, rows and columns of the view.
        bias: the constant added to each output, when this layer alone reads it.
        other: in ``node + other``, the value added, when the node's output goes nowhere else.
        rectified: whether the output (or that sum) goes into a Relu and nowhere else.
        unrolled: whether a source depends on the outputs of another one, so that what pruned
            predecessors give it is not known before the weight is pruned.
        partner: of the recurrent weights R the layer of W, whose outputs are added to this one's.
    """

    weight: Weight
    sources: tuple[Source, ...]
    shape: tuple[int, int, int]
    bias: Bias | None = None
    other: ir.Value | None = None
    rectified: bool = False
    unrolled: bool = False
    partner: Layer | None = None

    @property
    def name(self) -> str:
        """The weight's name."""
        return self.weight.name

    @property
    def node(self) -> ir.Node:
        """The node of the main graph that reads it, or holds what reads it; the first of them."""
        return self.sources[0].reader.place

    @property
    def taps(self) -> int:
        """How many columns belong to one input channel."""
        return self.sources[0].reader.unfold.taps

    @property
    def needs(self) -> tuple[ir.Value, ...]:
        """All values that must be watched."""
        found = {value: None for source in self.sources for value in source.reader.needs}
        return tuple(found)

    def matrices(self, constants: Mapping[str, NDArray[Any]] | None = None) -> NDArray[np.float64]:
        """The weight's numbers in the layer's view, float64 ``(G, R, C)``.

        Args:
            constants: arrays in stored form that take the place of the model's own, by name.
        """
        array = (constants or {}).get(self.name)
        weight = self.weight
        if array is None:
            values = weight.values()
        else:
            values = array if weight.quantization is None else weight.quantization.dequantize(array)
        return weight.layout.matrices(values).reshape(self.shape).astype(np.float64)

    @property
    def grid(self) -> Grid | None:
        """The numbers that a quantised weight can hold, in the layer's view; None for floats."""
        quantization, layout = self.weight.quantization, self.weight.layout
        if quantization is None:
            return None
        return Grid(
            *(layout.matrices(a).reshape(self.shape) for a in quantization.steps(layout.shape))
        )

    def stored(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """Numbers in the layer's view as the weight stores them."""
        return self.weight.stored(matrices.reshape(self.weight.layout.matrix_shape))


def in_order(graph: ir.Graph, layers: Iterable[Layer]) -> tuple[list[ir.Node], frozenset[ir.Node]]:
    """The nodes of a graph in an order in which what a layer needs to be pruned is there before it.

    Returns:
        The schedule, and the nodes that compute constants, which are not in it.
    """
    folded = folded_nodes(graph)
    first: dict[ir.Node, list[ir.Value]] = {}
    for layer in layers:
        if not layer.unrolled:
            others = [] if layer.other is None else [layer.other]
            first.setdefault(layer.node, []).extend([*layer.needs, *others])
    return schedule(graph, first, folded), folded


def one_row(name: str) -> int:
    """The tile of patterns that decide row by row."""
    del name
    return 1


def find_layers(graph: ir.Graph, weights: Iterable[Weight], tile_of: Tile = one_row) -> list[Layer]:
    """The weights that can be watched: see :func:`watch`."""
    return watch(graph, weights, tile_of)[0]


def watch(
    graph: ir.Graph, weights: Iterable[Weight], tile_of: Tile = one_row
) -> tuple[list[Layer], dict[str, str]]:
    """The layers of a graph in its order, and for all other weights the reason why they are none.

    Args:
        graph: the main graph.
        weights: of its model.
        tile_of: how many consecutive rows the pattern of a weight decides about together, by its name,
            None for all; the groups of a layer's view are made of whole ones.
    """
    order = _order(graph)
    layers: list[Layer] = []
    reasons: dict[str, str] = {}
    for weight in weights:
        try:
            layers.append(_layer(weight, order, tile_of(weight.name)))
        except NotPrunable as reason:
            reasons[weight.name] = str(reason)
    return _paired(sorted(layers, key=_place(order))), reasons


def _paired(layers: list[Layer]) -> list[Layer]:
    """Layers of R with those of W of the same operator, when neither is tied or cut."""
    plain = {
        (layer.sources[0].reader.node, layer.weight.consumers[0].input_index): layer
        for layer in layers
        if layer.sources[0].reader.node.op_type in GATES and len(layer.sources) == 1
    }
    partners = {
        layer.name: plain[node, 1]
        for (node, index), layer in plain.items()
        if index == 2 and (node, 1) in plain
    }
    return [replace(layer, partner=partners.get(layer.name)) for layer in layers]


def _order(graph: ir.Graph) -> dict[ir.Node, tuple[int, int]]:
    """The nodes of a graph and those in the bodies of its loops, by their place."""
    order = {}
    for number, node in enumerate(graph):
        order[node] = (number, -1)
        order |= {inner: (number, place) for place, inner in enumerate(body_of(node) or ())}
    return order


def _place(order: Order) -> Callable[[Layer], tuple[tuple[int, int], bool]]:
    def place(layer: Layer) -> tuple[tuple[int, int], bool]:
        reader = layer.sources[0].reader
        return order[reader.node], reader.inside

    return place


def _layer(weight: Weight, order: Order, rows: int | None) -> Layer:
    for consumer in weight.consumers:
        if consumer.reader is None or consumer.reader not in order:
            raise NotPrunable("it is read in the body of a node whose values cannot be watched")
    consumers = sorted(weight.consumers, key=lambda c: order[c.reader] if c.reader else (0, 0))
    readers = [_reader(weight, consumer, order) for consumer in consumers]
    seen = [_rows_of(weight, c, r) for c, r in zip(consumers, readers, strict=True)]
    shape = _view(weight, seen, rows)
    sources = tuple(
        Source(reader, groups.reshape(shape[0], -1)[:, 0], _by_group(columns, shape))
        for reader, (groups, columns) in zip(readers, seen, strict=True)
    )
    if len(sources) > 1 or sources[0].columns is not None:
        first = sources[0].reader.place
        unrolled = any(depends(v, first) for s in sources[1:] for v in s.reader.needs) or any(
            s.reader.anchor is not None for s in sources
        )
        return Layer(weight, sources, shape, unrolled=unrolled)
    if sources[0].reader.anchor is not None:
        return Layer(weight, sources, shape)
    near = surroundings(weight, sources[0].reader, shape)
    return Layer(weight, sources, shape, near.bias, near.other, near.rectified)


def _reader(weight: Weight, consumer: Consumer, order: Order) -> Reader:
    assert consumer.reader is not None
    shape = consumer.path[-1].after if consumer.path else weight.layout.shape
    reader = reader_of(consumer.reader, consumer.input_index, shape)
    number, inner = order[consumer.reader]
    if inner < 0:
        return reader
    (loop,) = (node for node, place in order.items() if place == (number, -1))
    return in_loop(reader, loop)


def _rows_of(
    weight: Weight, consumer: Consumer, reader: Reader
) -> tuple[NDArray[np.intp], NDArray[np.intp] | None]:
    """For each row of the weight's view the group of reductions; columns where they are not the same."""
    table = np.array([*reader.groups, OUTSIDE], np.intp)  # the last entry serves OUTSIDE
    groups, rows, columns = weight.layout.matrix_shape
    whole = not any(isinstance(move, Cut) for move in consumer.path)
    if whole and consumer.layout == weight.layout:
        if len(reader.groups) != groups:
            raise NotPrunable("the groups of its operator do not fit its shape")
        return np.repeat(table[:-1], rows), None
    group, place = columns_seen(weight, consumer)
    if group.max() >= len(reader.groups):
        raise NotPrunable("the groups of its operator do not fit its shape")
    same = bool(np.all((place == np.arange(columns)) | (group == OUTSIDE)[:, None]))
    return table[group], None if same else place


def _view(
    weight: Weight, seen: list[tuple[NDArray[np.intp], NDArray[np.intp] | None]], rows: int | None
) -> tuple[int, int, int]:
    """The shape in which all rows of a group have the same reductions."""
    groups, height, columns = weight.layout.matrix_shape
    changes = np.zeros(groups * height - 1, np.bool_)
    for group, place in seen:
        changes |= np.diff(group) != 0
        if place is not None:
            changes |= (np.diff(place, axis=0) != 0).any(axis=1)
    size = math.gcd(groups * height, *(int(cut) + 1 for cut in np.flatnonzero(changes)))
    tile = height if rows is None else min(rows, height)
    if height % tile and size >= height:
        size = height  # the last tile of a group is smaller: groups stay what they are
    elif size % tile:
        raise NotPrunable(f"nodes that read parts of it cut its rows across tiles of {tile}")
    return groups * height // size, size, columns


def _by_group(
    columns: NDArray[np.intp] | None, shape: tuple[int, int, int]
) -> NDArray[np.intp] | None:
    return None if columns is None else columns.reshape(shape)[:, 0]
