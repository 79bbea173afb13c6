"""Shapes: making, reading and changing them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import axis_of, integer, ints, wrap
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor


@operator("Shape")
def _shape(node: Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)[slice(node.get("start", 0), node.get("end"))]
    return torch.tensor(sizes, dtype=torch.int64)


@plain("Size")
def _size(x: Tensor) -> Tensor:
    return torch.tensor(x.numel(), dtype=torch.int64)


@operator("Reshape", host=(1,))
def _reshape(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    wanted = ints(shape)
    if not node.get("allowzero", 0):
        wanted = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Flatten")
def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", 1), x.ndim)
    rows = 1
    for size in x.shape[:axis]:
        rows *= size
    return x.reshape(rows, x.numel() // rows if rows else -1)


@operator("Transpose")
def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm") or tuple(reversed(range(x.ndim))))


@operator("Squeeze", host=(1,))
def _squeeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = node.get("axes") if axes is None else ints(axes)
    if listed is None:
        return x.squeeze()
    return x.squeeze(tuple(listed))


@operator("Unsqueeze", host=(1,))
def _unsqueeze(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = node.get("axes") if axes is None else ints(axes)
    rank = x.ndim + len(listed)
    for axis in sorted(axis_of(a, rank) for a in listed):
        x = x.unsqueeze(axis)
    return x


@operator("Concat")
def _concat(node: Node, *tensors: Tensor) -> Tensor:
    return torch.cat(tensors, node.get("axis"))


@operator("Split", host=(1,))
def _split(node: Node, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    axis = axis_of(node.get("axis", 0), x.ndim)
    listed = node.get("split") if sizes is None else ints(sizes)
    if listed is None:
        parts = node.get("num_outputs") or len(node.outputs)
        most = -(-x.shape[axis] // parts)
        listed = [max(0, min(most, x.shape[axis] - i * most)) for i in range(parts)]
    return tuple(x.split(listed, axis))


@operator("Expand", host=(1,))
def _expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    del node
    return x.expand(torch.broadcast_shapes(x.shape, tuple(ints(shape))))


@operator("Tile", host=(1,))
def _tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    del node
    return x.repeat(ints(repeats)) if x.ndim else x


@operator("Pad", host=(1, 2, 3))
def _pad(
    node: Node,
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    listed = list(range(x.ndim)) if axes is None else [axis_of(a, x.ndim) for a in ints(axes)]
    sizes = ints(pads)
    begin, end = [0] * x.ndim, [0] * x.ndim
    for place, axis in enumerate(listed):
        begin[axis], end[axis] = sizes[place], sizes[place + len(listed)]
    mode = node.get("mode", "constant")
    if mode == "constant":
        flat = [p for b, e in zip(reversed(begin), reversed(end), strict=True) for p in (b, e)]
        fill = 0 if value is None else value.reshape(-1)[0].item()
        if x.dtype == torch.bool:
            return functional.pad(x.to(torch.uint8), flat, value=int(fill)).to(torch.bool)
        return functional.pad(x, flat, value=fill)
    for axis in range(x.ndim):
        if begin[axis] or end[axis]:
            x = x.index_select(axis, _padded_index(mode, x.shape[axis], begin[axis], end[axis], x))
    return x


def _padded_index(mode: str, size: int, begin: int, end: int, like: Tensor) -> Tensor:
    """Which element stands at each place of a padded axis."""
    places = torch.arange(-begin, size + end, device=like.device)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places.remainder(size)
    period = max(2 * (size - 1), 1)  # reflect
    places = places.remainder(period)
    return torch.minimum(places, period - places) if size > 1 else torch.zeros_like(places)


@operator("DepthToSpace")
def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    count, channels, height, width = x.shape
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    parts = x.reshape(count, block, block, channels // block**2, height, width)
    parts = parts.permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(count, channels // block**2, height * block, width * block)


@operator("SpaceToDepth")
def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    block = node.get("blocksize")
    count, channels, height, width = x.shape
    parts = x.reshape(count, channels, height // block, block, width // block, block)
    if node.get("mode", "DCR") == "CRD":
        parts = parts.permute(0, 1, 3, 5, 2, 4)
    else:
        parts = parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(count, channels * block**2, height // block, width // block)


@operator("ConstantOfShape", host=(0,))
def _constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    value = node.get("value")
    if value is None:
        return torch.zeros(ints(shape), dtype=torch.float32)
    return value.reshape(()).expand(ints(shape)).clone()


@operator("Range", host=(0, 1, 2))
def _range(node: Node, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    del node
    first, last, step = (t.reshape(()).item() for t in (start, limit, delta))
    count = max(0, -int((first - last) // step))
    return (first + torch.arange(count, dtype=torch.float64) * step).to(start.dtype)


@operator("EyeLike")
def _eye_like(node: Node, x: Tensor) -> Tensor:
    dtype = node.dtype(node.get("dtype")) if node.get("dtype") else x.dtype
    rows = torch.arange(x.shape[0], device=x.device)[:, None]
    columns = torch.arange(x.shape[1], device=x.device)[None, :]
    return (columns - rows == node.get("k", 0)).to(dtype)


@operator("Trilu", host=(1,))
def _trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    diagonal = 0 if k is None else integer(k)
    return x.triu(diagonal) if node.get("upper", 1) else x.tril(diagonal)


@operator("ReverseSequence")
def _reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    steps = torch.arange(x.shape[time], device=x.device)[:, None]
    lengths = lengths[None, :]
    index = torch.where(steps < lengths, lengths - 1 - steps, steps)
    ordered = x.movedim((time, batch), (0, 1))
    index = wrap(index, x.shape[time]).reshape(*index.shape, *(1,) * (x.ndim - 2))
    return ordered.gather(0, index.expand(ordered.shape)).movedim((0, 1), (time, batch))


@operator("CenterCropPad", host=(1,))
def _center_crop_pad(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    axes = node.get("axes") or list(range(x.ndim))
    for axis, wanted in zip((axis_of(a, x.ndim) for a in axes), ints(shape), strict=True):
        size = x.shape[axis]
        if size > wanted:
            x = x.narrow(axis, (size - wanted) // 2, wanted)
        elif size < wanted:
            before = (wanted - size) // 2
            pads = [0] * 2 * (x.ndim - 1 - axis) + [before, wanted - size - before]
            x = functional.pad(x, pads)
    return x
