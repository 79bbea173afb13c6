"""Allocation: how many weights each tensor keeps, so that the total sparsity is as asked.

Every function takes what it needs of each tensor by name and returns how many weights to keep by
name. The counts add up exactly to ``keep_count(total elements, sparsity)``.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_count, keep_largest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OWL_FACTOR = 5.0
OWL_SPREAD = 0.08


def uniform(elements: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """The same sparsity everywhere, remainders going to the tensors that rounding hurt most.

    Args:
        elements: number of weights by name.
        sparsity: 0 to 1, over all tensors.
    """
    return _rounded(elements, dict.fromkeys(elements, 1.0 - sparsity), sparsity)


def global_threshold(scores: Mapping[str, NDArray[Any]], sparsity: float) -> dict[str, int]:
    """One threshold for all tensors: those with small scores lose most.

    With the scores of :func:`passes.saliency.lamp` this is the LAMP allocation.

    Args:
        scores: saliency of each weight by name, any shape, comparable between tensors.
        sparsity: 0 to 1, over all tensors.
    """
    flat = np.concatenate([array.ravel() for array in scores.values()])
    mask = keep_largest(flat, keep_count(flat.size, sparsity))
    starts = np.cumsum([0, *(array.size for array in scores.values())])[:-1]
    counts = np.add.reduceat(mask, starts, dtype=np.int64)
    return dict(zip(scores, counts.tolist(), strict=True))


def erk(shapes: Mapping[str, tuple[int, int, tuple[int, ...]]], sparsity: float) -> dict[str, int]:
    """Erdos-Renyi-Kernel: density as the sum of a tensor's sizes over their product.

    Source: Evci et al. 2020, "Rigging the Lottery". Tensors whose density would pass 1 stay dense and
    the others share the rest.

    Args:
        shapes: by name: inputs (of all groups), outputs, and spatial sizes of the kernel.
        sparsity: 0 to 1, over all tensors.
    """
    elements, raw = {}, {}
    for name, (inputs, outputs, kernel) in shapes.items():
        elements[name] = inputs * outputs * int(np.prod(kernel, dtype=np.int64))
        raw[name] = (inputs + outputs + sum(kernel)) / elements[name]
    return _rounded(elements, raw, sparsity)


def owl(
    elements: Mapping[str, int], scores: Mapping[str, NDArray[Any]], sparsity: float
) -> dict[str, int]:
    """Outlier-weighed: tensors with more outlying Wanda scores stay denser.

    Source: Yin et al. 2023, "OWL". An outlier is over five times its tensor's mean score; sparsities
    spread 0.08 to both sides of the total.

    Args:
        elements: number of weights by name.
        scores: of :func:`passes.saliency.wanda`, by name.
        sparsity: 0 to 1, over all tensors.
    """
    shares = np.array([float((s > OWL_FACTOR * s.mean()).mean()) for s in scores.values()])
    span = float(np.ptp(shares)) or 1.0
    spread = min(OWL_SPREAD, sparsity, 1 - sparsity)
    offsets = (shares - shares.min()) / span * 2 * spread
    density = 1 - sparsity + offsets - offsets.mean()
    return _rounded(elements, dict(zip(scores, density.tolist(), strict=True)), sparsity)


def cheapest(
    levels: Mapping[str, NDArray[np.int64]],
    losses: Mapping[str, NDArray[np.float64]],
    total: int,
) -> dict[str, int]:
    """Counts that minimise the sum of losses at a total number of weights kept.

    By Lagrange multiplier over the convex hull of each curve, which dynamic programming would find
    too but for the last level; what is left of the total goes where it helps most, linearly between
    levels.

    Args:
        levels: by name, weights kept at each level, falling.
        losses: by name, the loss at each level.
        total: weights to keep over all tensors; at least the sum of the lowest levels.
    """
    hulls = {name: _hull(levels[name], losses[name]) for name in levels}
    keep = {name: int(points[0][0]) for name, points in hulls.items()}
    steps = sorted(
        (
            ((before[1] - after[1]) / (after[0] - before[0]), name, int(after[0] - before[0]))
            for name, points in hulls.items()
            for before, after in itertools.pairwise(points)
        ),
        key=lambda step: (-step[0], step[1]),
    )
    left = total - sum(keep.values())
    for _, name, more in steps:
        taken = min(more, left)
        keep[name] += taken
        left -= taken
    return keep


def _hull(levels: NDArray[np.int64], losses: NDArray[np.float64]) -> list[tuple[float, float]]:
    """The lower convex hull of (kept, loss), by rising count; loss never rises along it."""
    order = np.argsort(levels, kind="stable")
    hull: list[tuple[float, float]] = []
    for kept, loss in zip(levels[order].tolist(), losses[order].tolist(), strict=True):
        if hull and kept == hull[-1][0]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], (kept, loss)):
            hull.pop()
        hull.append((kept, loss))
    return hull


def _slope(first: tuple[float, float], second: tuple[float, float]) -> float:
    return (second[1] - first[1]) / (second[0] - first[0])


def _rounded(
    elements: Mapping[str, int], raw: Mapping[str, float], sparsity: float
) -> dict[str, int]:
    """Counts in proportion to ``raw`` densities, none over its tensor's size, adding up exactly."""
    names = list(elements)
    sizes = np.array([elements[name] for name in names], np.float64)
    density = np.maximum([raw[name] for name in names], 0.0)
    total = keep_count(int(sizes.sum()), sparsity)
    full = np.zeros(len(names), np.bool_)
    share = np.zeros(len(names))
    while True:
        rest = total - sizes[full].sum()
        weight = float((density * sizes)[~full].sum())
        share = np.where(full, 1.0, density * (rest / weight if weight > 0 else 0.0))
        over = (share > 1.0) & ~full
        if not over.any():
            break
        full |= over
    exact = np.clip(share, 0.0, 1.0) * sizes
    keep = np.floor(exact + 1e-9).astype(np.int64)
    by_remainder = np.argsort(-(exact - keep), kind="stable")
    for index in np.resize(by_remainder, 4 * len(names)):
        missing = total - int(keep.sum())
        if missing <= 0:
            break
        room = int(sizes[index]) - int(keep[index])
        keep[index] += min(room, max(1, missing // len(names)))
    return _exactly(dict(zip(names, keep.tolist(), strict=True)), elements, total)


def _exactly(keep: dict[str, int], elements: Mapping[str, int], total: int) -> dict[str, int]:
    """``keep`` changed as little as makes it add up to ``total``, large tensors first."""
    for name in sorted(keep, key=lambda n: -elements[n]):
        change = total - sum(keep.values())
        keep[name] = min(max(keep[name] + change, 0), elements[name])
    return keep
