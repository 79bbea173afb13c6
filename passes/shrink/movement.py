"""Operators that move, join or summarise channels without weights of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.shrink.edit import set_constant
from passes.shrink.facts import Channels, Walk, constant_array, is_set, unknown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.shrink.layers import Rule


def concat(walk: Walk, node: ir.Node) -> bool:
    """Along the channels, or along another axis, which ties the channels of all inputs."""
    rank = walk.rank(node.inputs[0])
    found = [walk.of(value) for value in node.inputs]
    known = [f for f in found if f is not None]
    axis = node.attributes.get_int("axis", 1)
    if rank < 0 or not known:
        return False
    axis += rank if axis < 0 else 0
    if known[0].axis != axis:
        return _stack(walk, node, found)
    parts = []
    for value, one in zip(node.inputs, found, strict=True):
        if one is None:
            shape = walk.shape(value)
            if shape is None or shape[axis] is None:
                return False
            count = int(shape[axis] or 0)
            one = Channels(axis, walk.units.new(count), unknown(count))  # noqa: PLW2901
            walk.units.fix(one.units)
        if one.axis != axis:
            return False
        parts.append(one)
    walk.channels[node.outputs[0]] = Channels(
        axis,
        np.concatenate([part.units for part in parts]),
        np.concatenate([part.constant for part in parts]),
    )
    return True


def _stack(walk: Walk, node: ir.Node, found: Sequence[Channels | None]) -> bool:
    first = found[0]
    if first is None:
        return False
    constant = first.constant
    for one in found[1:]:
        if one is None or one.axis != first.axis or one.units.size != first.units.size:
            return False
        constant = np.where(constant == one.constant, constant, np.nan)
    for one in found[1:]:
        assert one is not None
        walk.units.tie(first.units, one.units)
    walk.channels[node.outputs[0]] = Channels(first.axis, first.units, constant)
    return True


def split(walk: Walk, node: ir.Node) -> bool:
    """Into ranges of channels, or along another axis."""
    value = node.inputs[0]
    found, rank = walk.of(value), walk.rank(value)
    if found is None or rank < 0:
        return False
    axis = node.attributes.get_int("axis", 0)
    axis += rank if axis < 0 else 0
    if axis != found.axis:
        for out in node.outputs:
            walk.channels[out] = found
        return True
    count, pieces = found.units.size, len(node.outputs)
    sizes: list[int] = list(node.attributes.get_ints("split", ()))
    given = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    if given is not None:
        sizes = given.tolist()
    elif len(node.inputs) > 1 and node.inputs[1] is not None:
        return False
    if not sizes:
        each = -(-count // pieces)
        sizes = [min(each, count - each * number) for number in range(pieces)]
    if sum(sizes) != count:
        return False
    ends = np.cumsum(sizes)
    starts = ends - sizes
    for out, start, end in zip(node.outputs, starts, ends, strict=True):
        walk.channels[out] = Channels(axis, found.units[start:end], found.constant[start:end])
    by_attribute = "split" in node.attributes or walk.opset < 13
    walk.actions.append(lambda: _resize_split(walk, node, found, (starts, ends), by_attribute))
    return True


def _resize_split(
    walk: Walk,
    node: ir.Node,
    found: Channels,
    bounds: tuple[NDArray[Any], NDArray[Any]],
    by_attribute: bool,
) -> bool:
    kept = walk.units.kept(found.units)
    if kept.all():
        return False
    sizes = [int(kept[start:end].sum()) for start, end in zip(*bounds, strict=True)]
    if by_attribute:
        node.attributes["split"] = ir.AttrInt64s("split", sizes)
    else:
        node.attributes.pop("num_outputs", None)
        set_constant(node, 1, np.array(sizes, np.int64))
    return True


def pool(walk: Walk, node: ir.Node) -> bool:
    """Pooling over the axes behind the channels."""
    found = walk.of(node.inputs[0])
    if found is None or found.axis != 1 or len(node.outputs) > 1:
        return False
    constant = found.constant
    padded = any(node.attributes.get_ints("pads", ())) or "auto_pad" in node.attributes
    if node.op_type == "AveragePool" and (
        (padded and is_set(node, "count_include_pad")) or is_set(node, "ceil_mode")
    ):
        constant = np.where(constant == 0, 0.0, np.nan)
    walk.channels[node.outputs[0]] = found.with_constant(constant)
    return True


def reduce(walk: Walk, node: ir.Node) -> bool:
    """Mean, maximum, minimum or sum over axes that are not the channels."""
    value = node.inputs[0]
    found, rank = walk.of(value), walk.rank(value)
    axes = _axes(node)
    if found is None or rank < 0 or not axes:
        return False
    axes = sorted(axis % rank for axis in axes)
    if found.axis in axes:
        return False
    moved = found.axis
    if not node.attributes.get_int("keepdims", 1):
        moved -= sum(axis < found.axis for axis in axes)
    constant = found.constant
    if node.op_type == "ReduceSum":
        constant = np.where(constant == 0, 0.0, np.nan)
    walk.channels[node.outputs[0]] = Channels(moved, found.units, constant)
    return True


def pad(walk: Walk, node: ir.Node) -> bool:
    """Padding of axes other than the channels."""
    value = node.inputs[0]
    found, rank = walk.of(value), walk.rank(value)
    pads: Sequence[int] = node.attributes.get_ints("pads", ())
    number = node.attributes.get_float("value", 0.0)
    if len(node.inputs) > 1:
        array = constant_array(node.inputs[1])
        if array is None or (len(node.inputs) > 3 and node.inputs[3] is not None):
            return False
        pads = array.tolist()
        third = node.inputs[2] if len(node.inputs) > 2 else None
        if third is not None:
            held = constant_array(third)
            number = float("nan") if held is None else float(held.reshape(-1)[0])
    if found is None or len(pads) != 2 * rank or pads[found.axis] or pads[rank + found.axis]:
        return False
    constant = found.constant
    if node.attributes.get_string("mode", "constant") == "constant" and any(pads):
        constant = np.where(constant == number, constant, np.nan)
    walk.channels[node.outputs[0]] = found.with_constant(constant)
    return True


def resize(walk: Walk, node: ir.Node) -> bool:
    """Resize and Upsample by scales that leave the channels alone."""
    found = walk.of(node.inputs[0])
    at = 2 if node.op_type == "Resize" and len(node.inputs) > 2 else 1
    scales = constant_array(node.inputs[at]) if len(node.inputs) > at else None
    if found is None or scales is None or scales.size <= found.axis or len(node.inputs) > 3:
        return False
    if scales[found.axis] != 1:
        return False
    nearest = node.attributes.get_string("mode", "nearest") == "nearest"
    constant = found.constant if nearest else np.where(found.constant == 0, 0.0, np.nan)
    walk.channels[node.outputs[0]] = found.with_constant(constant)
    return True


def transpose(walk: Walk, node: ir.Node) -> bool:
    """Channels move with their axis."""
    value = node.inputs[0]
    found, rank = walk.of(value), walk.rank(value)
    if found is None or rank < 0:
        return False
    order = node.attributes.get_ints("perm", tuple(reversed(range(rank))))
    walk.channels[node.outputs[0]] = found.moved(list(order).index(found.axis))
    return True


def squeeze(walk: Walk, node: ir.Node) -> bool:
    """Squeeze and Unsqueeze, with axes that are known."""
    value = node.inputs[0]
    found, rank, axes = walk.of(value), walk.rank(value), _axes(node)
    if found is None or rank < 0 or not axes:
        return False
    if node.op_type == "Squeeze":
        axes = [axis % rank for axis in axes]
        if found.axis in axes:
            return False
        walk.channels[node.outputs[0]] = found.moved(
            found.axis - sum(axis < found.axis for axis in axes)
        )
        return True
    total = rank + len(axes)
    axes = [axis % total for axis in axes]
    old = [axis for axis in range(total) if axis not in axes]
    walk.channels[node.outputs[0]] = found.moved(old[found.axis])
    return True


def _axes(node: ir.Node) -> list[int]:
    """Axes as attribute or constant input; empty when they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes.get_ints("axes"))
    array = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
    return [] if array is None else [int(axis) for axis in array.tolist()]


MOVEMENT: dict[str, Rule] = {
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), pool),
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), reduce),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    **dict.fromkeys(("Squeeze", "Unsqueeze"), squeeze),
    "Concat": concat,
    "Pad": pad,
    "Split": split,
    "Transpose": transpose,
}
