"""Pooling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import ints, last_axes
from onnxprune.finetune.bridge.ops.windows import Windows, padded, windows_of
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor

_MAX: dict[int, Any] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_AVERAGE: dict[int, Any] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}
_CONV: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


@operator("MaxPool")
def _max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    windows = windows_of(node, x.shape[2:], node.get("kernel_shape"))
    pool = _MAX[len(windows.kernel)]
    values = x if x.is_floating_point() else x.double()
    with_indices = len(node.outputs) > 1 and bool(node.outputs[1])
    padding: tuple[int, ...] = (0,) * len(windows.kernel)
    if windows.symmetric and all(
        p <= k // 2 for p, k in zip(windows.begin, windows.kernel, strict=True)
    ):
        padding = windows.begin
    else:
        end = [e + more for e, more in zip(windows.end, windows.extra, strict=True)]
        values = padded(values, windows.begin, end, -math.inf)
    result = pool(
        values,
        windows.kernel,
        windows.strides,
        padding,
        windows.dilations,
        return_indices=with_indices,
    )
    if not with_indices:
        return result.to(x.dtype)
    begin = windows.begin if padding != windows.begin else (0,) * len(padding)
    shifted = _indices(node, result[1], x.shape, values.shape[2:], begin)
    return result[0].to(x.dtype), shifted


def _indices(
    node: Node, flat: Tensor, shape: torch.Size, padded_sizes: torch.Size, begin: tuple[int, ...]
) -> Tensor:
    """Positions in the whole tensor, from positions in each padded map."""
    places = []
    for size, offset in zip(reversed(padded_sizes), reversed(begin), strict=True):
        places.append(flat % size - offset)
        flat = flat // size
    if not node.get("storage_order", 0):
        places.reverse()
    sizes = list(shape[2:]) if not node.get("storage_order", 0) else list(reversed(shape[2:]))
    position = torch.zeros_like(flat)
    for place, size in zip(places, sizes, strict=True):
        position = position * size + place
    maps = torch.arange(shape[0] * shape[1], device=flat.device) * math.prod(shape[2:])
    return position + maps.reshape(shape[0], shape[1], *(1,) * len(sizes))


def _window_sums(x: Tensor, windows: Windows) -> Tensor:
    """The sum of each window; pads and what lies beyond them count as zero."""
    rank = len(windows.kernel)
    end = [e + more for e, more in zip(windows.end, windows.extra, strict=True)]
    maps = padded(x.reshape(-1, 1, *x.shape[2:]), windows.begin, end)
    ones = torch.ones(1, 1, *windows.kernel, dtype=x.dtype, device=x.device)
    sums = _CONV[rank](maps, ones, None, windows.strides, 0, windows.dilations)
    return sums.reshape(*x.shape[:2], *sums.shape[2:])


@operator("AveragePool")
def _average_pool(node: Node, x: Tensor) -> Tensor:
    windows = windows_of(node, x.shape[2:], node.get("kernel_shape"))
    counts_pads = bool(node.get("count_include_pad", 0))
    if (
        windows.symmetric
        and set(windows.dilations) == {1}
        and all(p <= k // 2 for p, k in zip(windows.begin, windows.kernel, strict=True))
    ):
        pool = _AVERAGE[len(windows.kernel)]
        result: Tensor = pool(
            x,
            windows.kernel,
            windows.strides,
            windows.begin,
            False,
            counts_pads,
        )
        return result
    ones = torch.ones(1, 1, *x.shape[2:], dtype=x.dtype, device=x.device)
    counted = windows
    if counts_pads:  # pads count, what lies beyond them does not
        ones = padded(ones, windows.begin, windows.end, 1.0)
        none = (0,) * len(windows.begin)
        counted = Windows(
            windows.kernel, windows.strides, windows.dilations, none, none, windows.extra
        )
    return _window_sums(x, windows) / _window_sums(ones, counted)


@operator("LpPool")
def _lp_pool(node: Node, x: Tensor) -> Tensor:
    windows = windows_of(node, x.shape[2:], node.get("kernel_shape"))
    p = node.get("p", 2)
    return _window_sums(x.abs() ** p, windows) ** (1.0 / p)


@plain("GlobalAveragePool")
def _global_average_pool(x: Tensor) -> Tensor:
    return x.mean(last_axes(x.ndim), keepdim=True)


@plain("GlobalMaxPool")
def _global_max_pool(x: Tensor) -> Tensor:
    return x.amax(last_axes(x.ndim), keepdim=True)


@operator("GlobalLpPool")
def _global_lp_pool(node: Node, x: Tensor) -> Tensor:
    p = node.get("p", 2)
    return (x.abs() ** p).sum(last_axes(x.ndim), keepdim=True) ** (1.0 / p)


@operator("MaxUnpool", host=(2,))
def _max_unpool(node: Node, x: Tensor, indices: Tensor, shape: Tensor | None = None) -> Tensor:
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    strides = node.get("strides") or [1] * rank
    pads = node.get("pads") or [0] * 2 * rank
    natural = [
        *x.shape[:2],
        *(
            (size - 1) * strides[i] - pads[i] - pads[i + rank] + kernel[i]
            for i, size in enumerate(x.shape[2:])
        ),
    ]
    flat = torch.zeros(math.prod(natural), dtype=x.dtype, device=x.device)
    result = flat.scatter(0, indices.reshape(-1), x.reshape(-1)).reshape(natural)
    if shape is None:
        return result
    wanted = ints(shape)
    return padded(result, [0] * rank, [w - n for w, n in zip(wanted[2:], natural[2:], strict=True)])
