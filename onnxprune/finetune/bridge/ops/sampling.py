"""Sampling images at given places, and boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import integer, ints, number
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

_MODES = {
    "linear": "bilinear",
    "bilinear": "bilinear",
    "cubic": "bicubic",
    "bicubic": "bicubic",
    "nearest": "nearest",
}


@operator("GridSample")
def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    return functional.grid_sample(
        x,
        grid.to(x.dtype),
        mode=_MODES[node.get("mode", "linear")],
        padding_mode=node.get("padding_mode", "zeros"),
        align_corners=bool(node.get("align_corners", 0)),
    )


@operator("AffineGrid", host=(1,))
def _affine_grid(node: Node, theta: Tensor, size: Tensor) -> Tensor:
    return functional.affine_grid(
        theta, ints(size), align_corners=bool(node.get("align_corners", 0))
    )


@operator("RoiAlign")
def _roi_align(node: Node, x: Tensor, rois: Tensor, batches: Tensor) -> Tensor:
    height, width = node.get("output_height", 1), node.get("output_width", 1)
    scale, ratio = node.get("spatial_scale", 1.0), node.get("sampling_ratio", 0)
    half = node.get("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    regions = []
    for roi, batch in zip(rois, batches, strict=True):
        left, top, right, bottom = (roi * scale - (0.5 if half else 0.0)).tolist()
        spans = (bottom - top, right - left)
        if not half:
            spans = (max(spans[0], 1.0), max(spans[1], 1.0))
        counts = [
            ratio if ratio > 0 else max(1, -int(-span // size))
            for span, size in zip(spans, (height, width), strict=True)
        ]
        rows = _samples(top, spans[0] / height, height, counts[0], x)
        columns = _samples(left, spans[1] / width, width, counts[1], x)
        regions.append(_pooled(node, x[batch], rows, columns, (height, width), counts))
    return torch.stack(regions) if regions else x.new_zeros((0, x.shape[1], height, width))


def _samples(begin: float, bin_size: float, bins: int, count: int, like: Tensor) -> Tensor:
    """Places of the samples along one axis, bin by bin."""
    within = (torch.arange(count, dtype=like.dtype, device=like.device) + 0.5) / count
    starts = torch.arange(bins, dtype=like.dtype, device=like.device)
    return begin + ((starts[:, None] + within) * bin_size).reshape(-1)


def _pooled(
    node: Node,
    image: Tensor,
    rows: Tensor,
    columns: Tensor,
    bins: tuple[int, int],
    counts: list[int],
) -> Tensor:
    low_r, part_r, valid_r = _neighbours(rows, image.shape[1])
    low_c, part_c, valid_c = _neighbours(columns, image.shape[2])
    high_r = (low_r + 1).clamp(max=image.shape[1] - 1)
    high_c = (low_c + 1).clamp(max=image.shape[2] - 1)

    def weighted(r: Tensor, c: Tensor, weight_r: Tensor, weight_c: Tensor) -> Tensor:
        return image[:, r][:, :, c] * (weight_r[:, None] * weight_c[None, :])

    corners = (
        weighted(low_r, low_c, 1 - part_r, 1 - part_c),
        weighted(low_r, high_c, 1 - part_r, part_c),
        weighted(high_r, low_c, part_r, 1 - part_c),
        weighted(high_r, high_c, part_r, part_c),
    )
    valid = valid_r[:, None] & valid_c[None, :]
    parts = [
        torch.where(valid, corner, torch.zeros_like(corner)).reshape(
            -1, bins[0], counts[0], bins[1], counts[1]
        )
        for corner in corners
    ]
    if node.get("mode", "avg") == "max":
        return torch.stack(parts).amax((0, 3, 5))
    return torch.stack(parts).sum(0).mean((2, 4))


def _neighbours(places: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    valid = (places >= -1) & (places <= size)
    places = places.clamp(0, size - 1)
    low = places.floor().long()
    return low, places - low, valid


@operator("NonMaxSuppression", host=(2, 3, 4))
def _non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    lowest: Tensor | None = None,
) -> Tensor:
    limit = 0 if most is None else integer(most)
    threshold = 0.0 if overlap is None else number(overlap)
    chosen = []
    for batch in range(boxes.shape[0]):
        corners = _corners(boxes[batch], centered=bool(node.get("center_point_box", 0)))
        for label in range(scores.shape[1]):
            values = scores[batch, label]
            order = values.argsort(descending=True, stable=True).tolist()
            kept: list[int] = []
            for index in order:
                if len(kept) >= limit or (lowest is not None and values[index] <= number(lowest)):
                    break
                if all(_overlap(corners[index], corners[k]) <= threshold for k in kept):
                    kept.append(index)
            chosen += [[batch, label, index] for index in kept]
    return torch.tensor(chosen, dtype=torch.int64).reshape(-1, 3)


def _corners(boxes: Tensor, *, centered: bool) -> list[list[float]]:
    if centered:
        x, y, width, height = boxes.unbind(-1)
        return torch.stack(
            (y - height / 2, x - width / 2, y + height / 2, x + width / 2), -1
        ).tolist()
    a, b = boxes[:, :2], boxes[:, 2:]
    return torch.cat((torch.minimum(a, b), torch.maximum(a, b)), -1).tolist()


def _overlap(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes, each (top, left, bottom, right)."""
    height = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    width = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    union = areas - height * width
    return height * width / union if union > 0 else 0.0
