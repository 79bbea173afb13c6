"""Blocks of a model: stretches of its schedule, cut where one value alone carries what pruning changes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.layers import in_order
from passes.outputs import last_values
from passes.schedule import reads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from passes.layers import Layer

LAYERS = 32
"""The least in a block: layers that are trained together gain more than in small blocks."""


@dataclass(frozen=True)
class Block:
    """Some consecutive nodes of a schedule.

    Attributes:
        start, stop: ``nodes[start:stop]`` of the schedule.
        layers: whose weights are in it.
        outputs: names of what pruning changes and training should bring back: the one value at each cut
            that the block could have ended at, and the model's outputs, taken before a last Softmax
            or a decision.
    """

    start: int
    stop: int
    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]


def find_blocks(
    graph: ir.Graph, layers: Sequence[Layer], least: int = LAYERS
) -> tuple[list[ir.Node], list[Block]]:
    """Cut a graph where all paths that pruning changes go through one value.

    A residual connection that is open, or a skip of a U-Net, is a second path: there is no cut before
    it is closed. Values that no pruned weight reaches do not count.

    Args:
        graph: the main graph.
        layers: whose weights are pruned.
        least: layers in a block; cuts that would leave fewer are passed over.

    Returns:
        The schedule, and its blocks in order, those without layers joined to their neighbours.
    """
    nodes, _ = in_order(graph, layers)
    by_node: dict[ir.Node, list[Layer]] = {}
    for layer in layers:
        by_node.setdefault(layer.node, []).append(layer)
    place = {node: index for index, node in enumerate(nodes)}
    changed: set[ir.Value] = set()
    for node in nodes:
        if node in by_node or any(value in changed for value in reads(node)):
            changed.update(node.outputs)
    last_read: dict[ir.Value, int] = {}
    for node in nodes:
        for value in reads(node):
            if value in changed:
                last_read[value] = max(place[node], last_read.get(value, -1))
    cuts, held, left, fresh = [0], 0, len(layers), 0
    live: set[ir.Value] = set()
    ends = set(last_values(graph))
    for index, node in enumerate(nodes):
        here = len(by_node.get(node, ()))
        held, fresh, left = held + here, fresh + here, left - here
        live |= {value for value in node.outputs if value in last_read}
        live = {value for value in live if last_read[value] > index}
        if not fresh or len(live) != 1:
            continue
        ends.add(next(iter(live)).name or "")
        fresh = 0
        if held >= least and left >= least:
            cuts.append(index + 1)
            held = 0
    cuts.append(len(nodes))
    return nodes, [
        _block(nodes, start, stop, by_node, last_read, ends)
        for start, stop in itertools.pairwise(cuts)
    ]


def _block(
    nodes: Sequence[ir.Node],
    start: int,
    stop: int,
    by_node: dict[ir.Node, list[Layer]],
    last_read: dict[ir.Value, int],
    ends: set[str],
) -> Block:
    inside = nodes[start:stop]
    outputs = [
        value.name
        for node in inside
        for value in node.outputs
        if value.name and (last_read.get(value, -1) >= stop or value.name in ends)
    ]
    layers = tuple(layer for node in inside for layer in by_node.get(node, ()))
    return Block(start, stop, layers, tuple(outputs))
