"""Masks: which weights are kept. True means keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def keep_largest(scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
    """Keep exactly ``keep`` elements of highest score; among equals, those that come first.

    Args:
        scores: any shape, real, without NaN.
        keep: 0 to ``scores.size``.

    Returns:
        A mask of the shape of ``scores`` with exactly ``keep`` True elements.

    Selection, not sorting: O(n). SparseML's pruner compared with a threshold, so that equal scores
    were all kept or all dropped; here the count is exact.
    """
    if not 0 <= keep <= scores.size:
        msg = f"keep must lie between 0 and {scores.size}, got {keep}"
        raise ValueError(msg)
    if keep == 0:
        return np.zeros(scores.shape, dtype=np.bool_)
    flat = scores.ravel()
    threshold = np.partition(flat, flat.size - keep)[flat.size - keep]
    mask: NDArray[np.bool_] = flat > threshold
    ties = np.flatnonzero(flat == threshold)
    mask[ties[: keep - int(np.count_nonzero(mask))]] = True
    return mask.reshape(scores.shape)


def keep_count(elements: int, sparsity: float) -> int:
    """How many of ``elements`` are kept at ``sparsity``: the nearest integer, halves kept."""
    return int(np.floor(elements * (1.0 - sparsity) + 0.5))
