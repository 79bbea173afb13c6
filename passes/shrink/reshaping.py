"""Reshapes and Flatten, where channels stay whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from passes.shrink.edit import set_constant
from passes.shrink.facts import Channels, Walk, constant_array, is_set, static

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from passes.shrink.layers import Rule


def flatten(walk: Walk, node: ir.Node) -> bool:
    """Flatten to (batch, features): each channel becomes a run of features."""
    found, each = _features(walk, node)
    if found is None or each is None or node.attributes.get_int("axis", 1) != 1:
        return False
    _repeat(walk, node, found, each)
    return True


def reshape(walk: Walk, node: ir.Node) -> bool:
    """Reshape to (batch, features), of what is behind the channels, or of directions and channels."""
    found, shape = walk.of(node.inputs[0]), walk.shape(node.inputs[0])
    if found is not None and shape is not None and found.axis == len(shape) - 1 > 1:
        return _join_directions(walk, node, found, shape)
    found, each = _features(walk, node)
    if found is None or shape is None or each is None:
        return False
    return _reshape(walk, node, found, shape, each)


def _features(walk: Walk, node: ir.Node) -> tuple[Channels | None, int | None]:
    """The channels, on axis 1, and how many elements each has for one sample."""
    found, shape = walk.of(node.inputs[0]), walk.shape(node.inputs[0])
    if found is None or shape is None or found.axis != 1:
        return None, None
    rest = static(shape[2:])
    return found, None if rest is None else math.prod(rest)


def _reshape(
    walk: Walk, node: ir.Node, found: Channels, shape: Sequence[int | None], each: int
) -> bool:
    target = constant_array(node.inputs[1])
    if target is None or is_set(node, "allowzero") or target.size < 2:
        return False
    sizes = target.tolist()
    features = found.units.size * each
    batch = {0, -1} | ({shape[0]} if shape[0] is not None else set())
    if sizes[0] not in batch or (sizes[0] == -1 and -1 in sizes[1:]):
        return False
    if len(sizes) == 2 and sizes[1] in {-1, features}:
        _repeat(walk, node, found, each)
    elif (
        len(sizes) > 2
        and sizes[1] in {0, found.units.size}
        and all(size > 0 for size in sizes[2:])
        and math.prod(sizes[2:]) == each
    ):
        walk.channels[node.outputs[0]] = found
    else:
        return False
    out = walk.channels[node.outputs[0]]

    def action() -> bool:
        kept = walk.units.kept(out.units)
        if kept.all() or sizes[1] <= 0:
            return False
        set_constant(node, 1, np.array([sizes[0], int(kept.sum()), *sizes[2:]], np.int64))
        return True

    walk.actions.append(action)
    return True


def _join_directions(
    walk: Walk, node: ir.Node, found: Channels, shape: Sequence[int | None]
) -> bool:
    """Reshape of (..., directions, channels) to (..., all of them), as after an LSTM or GRU."""
    target, directions = constant_array(node.inputs[1]), shape[-2]
    if target is None or is_set(node, "allowzero") or directions is None:
        return False
    sizes = target.tolist()
    if len(sizes) != len(shape) - 1 or sizes.count(-1) > 1:
        return False
    before = zip(sizes[:-1], shape[:-2], strict=True)
    if any(size not in {0, -1} and size != old for size, old in before):
        return False
    if sizes[-1] not in {-1, directions * found.units.size}:
        return False
    out = Channels(
        len(sizes) - 1, np.tile(found.units, directions), np.tile(found.constant, directions)
    )
    walk.channels[node.outputs[0]] = out

    def action() -> bool:
        kept = walk.units.kept(out.units)
        if kept.all() or sizes[-1] == -1:
            return False
        set_constant(node, 1, np.array([*sizes[:-1], int(kept.sum())], np.int64))
        return True

    walk.actions.append(action)
    return True


def _repeat(walk: Walk, node: ir.Node, found: Channels, each: int) -> None:
    walk.channels[node.outputs[0]] = Channels(
        1, np.repeat(found.units, each), np.repeat(found.constant, each)
    )


RESHAPING: dict[str, Rule] = {"Flatten": flatten, "Reshape": reshape}
