"""Allocation: how many weights each tensor keeps, so that the total sparsity is as asked.

Every function takes what it needs of each tensor by name and returns how many weights to keep by
name. The counts add up exactly to ``keep_count(total elements, sparsity)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_count, keep_largest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


def uniform(elements: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """The same sparsity everywhere, remainders going to the tensors that rounding hurt most.

    Args:
        elements: number of weights by name.
        sparsity: 0 to 1, over all tensors.
    """
    names = list(elements)
    total = keep_count(sum(elements.values()), sparsity)
    exact = np.array([elements[name] * (1.0 - sparsity) for name in names])
    keep = np.floor(exact).astype(np.int64)
    short = total - int(keep.sum())
    by_remainder = np.argsort(-(exact - keep), kind="stable")
    keep[by_remainder[:short]] += 1
    return dict(zip(names, keep.tolist(), strict=True))


def global_threshold(scores: Mapping[str, NDArray[Any]], sparsity: float) -> dict[str, int]:
    """One threshold for all tensors: those with small scores lose most.

    Args:
        scores: saliency of each weight by name, any shape, comparable between tensors.
        sparsity: 0 to 1, over all tensors.
    """
    flat = np.concatenate([array.ravel() for array in scores.values()])
    mask = keep_largest(flat, keep_count(flat.size, sparsity))
    starts = np.cumsum([0, *(array.size for array in scores.values())])[:-1]
    counts = np.add.reduceat(mask, starts, dtype=np.int64)
    return dict(zip(scores, counts.tolist(), strict=True))
