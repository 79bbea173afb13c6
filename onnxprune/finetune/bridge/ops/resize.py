"""Resize: every mode as one small matrix an axis, applied axis by axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.finetune.bridge.ops.common import axis_of, ints
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor


@operator("Resize", "Upsample", host=(1, 2, 3))
def _resize(
    node: Node,
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    if node.op_type == "Upsample":
        roi, scales = None, roi
    axes = [axis_of(a, x.ndim) for a in node.get("axes") or range(x.ndim)]
    old = [x.shape[a] for a in axes]
    new, ratios = _sizes(node, old, scales, sizes)
    region = None if roi is None or not roi.numel() else roi.double().tolist()
    outside: list[Any] = []
    dtype = x.dtype
    y = x if dtype.is_floating_point else x.double()
    for place, axis in enumerate(axes):
        crop = None if region is None else (region[place], region[place + len(axes)])
        if new[place] == old[place] and ratios[place] == 1 and not _crops(node):
            continue
        matrix, out = _matrix(node, old[place], new[place], ratios[place], crop)
        y = _apply(node, y, axis, matrix)
        outside.append((axis, out))
    if _crops(node):
        y = _extrapolated(node, y, outside)
    if not dtype.is_floating_point:
        info = torch.iinfo(dtype)
        y = y.round().clamp(info.min, info.max)
    return y.to(dtype)


def _crops(node: Node) -> bool:
    return bool(node.get("coordinate_transformation_mode", "") == "tf_crop_and_resize")


def _sizes(
    node: Node, old: Sequence[int], scales: Tensor | None, sizes: Tensor | None
) -> tuple[list[int], list[float]]:
    """The new size of each axis, and its scale."""
    if sizes is None or not sizes.numel():
        listed = node.get("scales") if scales is None else [float(s) for s in scales]
        return [math.floor(n * s) for n, s in zip(old, listed, strict=True)], list(listed)
    wanted = ints(sizes)
    ratios = [w / n for w, n in zip(wanted, old, strict=True)]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return wanted, ratios
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [math.floor(scale * n + 0.5) for n in old], [scale] * len(old)


def _source(
    node: Node, old: int, new: int, scale: float, crop: tuple[float, float] | None
) -> NDArray[np.float64]:
    """Where each output element lies among the input's, as a fraction of an index."""
    mode = node.get("coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Upsample":
        mode = "asymmetric"
    place = np.arange(new, dtype=np.float64)
    center, length = (place + 0.5) / scale - 0.5, scale * old  # the length is not rounded
    if mode == "asymmetric":
        source = place / scale
    elif mode == "align_corners":
        source = place * (old - 1) / (length - 1) if length > 1 else np.zeros(new)
    elif mode == "tf_crop_and_resize":
        assert crop is not None
        begin, end = crop
        step = (end - begin) * (old - 1) / (new - 1) if new > 1 else 0.0
        first = begin * (old - 1) if new > 1 else 0.5 * (begin + end) * (old - 1)
        source = first + place * step
    elif mode == "pytorch_half_pixel":
        source = center if new > 1 else np.zeros(new)
    elif mode == "half_pixel_symmetric":
        source = old / 2 * (1 - new / length) + center
    else:  # half_pixel
        source = center
    return source


def _matrix(
    node: Node, old: int, new: int, scale: float, crop: tuple[float, float] | None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The weights ``(new, old)`` of the input's elements, and which outputs lie outside it."""
    source = _source(node, old, new, scale, crop)
    mode = node.get("mode", "nearest")
    outside = (source < 0) | (source > old - 1)
    matrix = np.zeros((new, old))
    if mode == "nearest":
        index = _nearest(node, source).clip(0, old - 1)
        matrix[np.arange(new), index] = 1.0
        return matrix, outside
    narrow = min(scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / narrow
    kernel = _triangle if mode == "linear" else _cubic(node.get("cubic_coeff_a", -0.75))
    for row, center in enumerate(source):
        taps = np.arange(math.floor(center - reach), math.ceil(center + reach) + 1)
        weights = kernel((taps - center) * narrow)
        if node.get("exclude_outside", 0):
            weights = np.where((taps >= 0) & (taps < old), weights, 0.0)
        if node.get("antialias", 0) or node.get("exclude_outside", 0):
            weights = weights / weights.sum()
        np.add.at(matrix[row], taps.clip(0, old - 1), weights)
    return matrix, outside


def _nearest(node: Node, source: NDArray[np.float64]) -> NDArray[np.int64]:
    mode = node.get("nearest_mode", "round_prefer_floor")
    if node.op_type == "Upsample":
        mode = "floor"
    if mode == "floor":
        rounded = np.floor(source)
    elif mode == "ceil":
        rounded = np.ceil(source)
    else:
        rounded = np.floor(source + 0.5) if mode == "round_prefer_ceil" else np.ceil(source - 0.5)
    return rounded.astype(np.int64)


def _triangle(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(1 - np.abs(distance), 0, 1)


def _cubic(a: float) -> Any:
    def kernel(distance: NDArray[np.float64]) -> NDArray[np.float64]:
        d = np.abs(distance)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0.0))

    return kernel


def _apply(node: Node, x: Tensor, axis: int, matrix: NDArray[np.float64]) -> Tensor:
    if node.get("mode", "nearest") == "nearest":
        index = torch.from_numpy(matrix.argmax(axis=1)).to(x.device)
        return x.index_select(axis, index)
    weights = torch.from_numpy(matrix).to(x.dtype).to(x.device)
    return torch.matmul(x.movedim(axis, -1), weights.t()).movedim(-1, axis)


def _extrapolated(node: Node, x: Tensor, outside: Sequence[Any]) -> Tensor:
    """Outputs whose place lies outside the input, on any axis, take the extrapolation value."""
    value = torch.tensor(node.get("extrapolation_value", 0.0), dtype=x.dtype, device=x.device)
    for axis, out in outside:
        shape = [1] * x.ndim
        shape[axis] = len(out)
        x = torch.where(torch.from_numpy(out).reshape(shape).to(x.device), value, x)
    return x
