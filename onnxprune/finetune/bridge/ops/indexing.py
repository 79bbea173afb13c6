"""Taking elements out of tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, integer, ints, wrap
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor


@operator("Gather")
def _gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", 0), x.ndim)
    flat = wrap(indices, x.shape[axis]).reshape(-1)
    taken = x.index_select(axis, flat)
    return taken.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", 0), x.ndim)
    return torch.gather(x, axis, wrap(indices, x.shape[axis]))


@operator("GatherND")
def _gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    batch = node.get("batch_dims", 0)
    depth = indices.shape[-1]
    leading = x.shape[:batch]
    groups = math.prod(leading)
    axes = x.shape[batch : batch + depth]
    rest = x.shape[batch + depth :]
    flat = x.reshape(groups * math.prod(axes), *rest)
    places = indices.reshape(groups, -1, depth)
    position = torch.zeros_like(places[..., 0])
    for i, size in enumerate(axes):
        position = position * size + wrap(places[..., i], size)
    position = position + torch.arange(groups, device=x.device)[:, None] * math.prod(axes)
    taken = flat.index_select(0, position.reshape(-1))
    return taken.reshape((*indices.shape[:-1], *rest))


@operator("Slice", host=(1, 2, 3, 4))
def _slice(
    node: Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    del node
    begins, stops = ints(starts), ints(ends)
    listed = list(range(len(begins))) if axes is None else ints(axes)
    strides = [1] * len(begins) if steps is None else ints(steps)
    for begin, stop, axis, step in zip(begins, stops, listed, strides, strict=True):
        x = _slice_axis(x, begin, stop, axis_of(axis, x.ndim), step)
    return x


def _slice_axis(x: Tensor, begin: int, stop: int, axis: int, step: int) -> Tensor:
    size = x.shape[axis]
    # Python's own clamping, but for a stop that lies before a reversed slice's first element.
    picked = range(size)[begin::step] if step < 0 and stop < -size else range(size)[begin:stop:step]
    if step > 0:
        where = [slice(None)] * axis + [slice(picked.start, max(picked.start, picked.stop), step)]
        return x[tuple(where)]
    return x.index_select(axis, torch.tensor(list(picked), dtype=torch.int64, device=x.device))


@operator("OneHot", host=(1,))
def _one_hot(node: Node, indices: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    count = integer(depth)
    classes = torch.arange(count, device=indices.device)
    hot = wrap(indices, count).unsqueeze(-1) == classes
    axis = axis_of(node.get("axis", -1), indices.ndim + 1)
    return torch.where(hot, values[1], values[0]).movedim(-1, axis)


@plain("NonZero")
def _non_zero(x: Tensor) -> Tensor:
    return x.reshape(x.shape or (1,)).nonzero().t()


@operator("Compress")
def _compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    axis = node.get("axis")
    kept = condition.nonzero().reshape(-1)
    return x.reshape(-1)[kept] if axis is None else x.index_select(axis, kept)


@operator("Unique")
def _unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    axis = node.get("axis")
    rows = x.reshape(-1, 1) if axis is None else x.movedim(axis, 0)
    shape = rows.shape
    values, inverse, counts = torch.unique(
        rows, dim=0, sorted=True, return_inverse=True, return_counts=True
    )
    places = torch.arange(inverse.numel(), device=x.device)
    first = torch.full_like(counts, inverse.numel())
    first = first.scatter_reduce(0, inverse, places, "amin")
    if not node.get("sorted", 1):
        order = first.argsort()
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.numel(), device=x.device)
        values, first, counts, inverse = values[order], first[order], counts[order], rank[inverse]
    if axis is None:
        return values.reshape(-1), first, inverse, counts
    return values.reshape(-1, *shape[1:]).movedim(0, axis), first, inverse, counts
