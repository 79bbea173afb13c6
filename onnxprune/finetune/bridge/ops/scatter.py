"""Writing elements into copies of tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, wrap
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

_REDUCE = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("ScatterElements", "Scatter")
def _scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", 0), x.ndim)
    index = wrap(indices, x.shape[axis])
    reduction = node.get("reduction", "none")
    if reduction == "none":
        return x.scatter(axis, index, updates)
    return x.scatter_reduce(axis, index, updates, _REDUCE[reduction], include_self=True)


@operator("ScatterND")
def _scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    depth = indices.shape[-1]
    axes, rest = x.shape[:depth], x.shape[depth:]
    places = indices.reshape(-1, depth)
    position = torch.zeros_like(places[:, 0])
    for i, size in enumerate(axes):
        position = position * size + wrap(places[:, i], size)
    inner = math.prod(rest)
    flat = x.reshape(math.prod(axes), inner)
    values = updates.reshape(len(places), inner)
    index = position[:, None].expand(len(places), inner)
    reduction = node.get("reduction", "none")
    if reduction == "none":
        result = flat.scatter(0, index, values)
    else:
        result = flat.scatter_reduce(0, index, values, _REDUCE[reduction], include_self=True)
    return result.reshape(x.shape)


@operator("TensorScatter")
def _tensor_scatter(
    node: Node, cache: Tensor, update: Tensor, starts: Tensor | None = None
) -> Tensor:
    axis = axis_of(node.get("axis", -2), cache.ndim)
    count, size = update.shape[axis], cache.shape[axis]
    if starts is None:
        starts = torch.zeros(cache.shape[0], dtype=torch.int64, device=cache.device)
    places = starts.reshape(-1, 1).long() + torch.arange(count, device=cache.device)
    if node.get("mode", "linear") == "circular":
        places = places.remainder(size)
    shape = [1] * cache.ndim
    shape[0], shape[axis] = cache.shape[0], count
    return cache.scatter(axis, places.reshape(shape).expand(update.shape), update)
