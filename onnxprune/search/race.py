"""Racing: a candidate is looked at on more and more samples, and given up once it cannot make it.

The samples of the search split are a finite set of N in random order. After n of them, the drop over
all N lies above

    mean_n - z s sqrt(1/n - 1/N)

with the confidence asked for, but at least 95 % (s is the standard deviation of the differences, z its
quantile; the last factor is the correction for a finite population). A candidate is given up when even
that best case does not reach what it must. Source of the idea: Maron and Moore 1994, "Hoeffding Races";
we take the normal distribution, which is tighter, and know N.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.paired import Drop, paired_drop

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

STAGES = tuple(stage / 16 for stage in range(1, 17))
"""Shares of the search split after which a candidate may be given up."""

FIRST_STAGE = 64
"""... but not before so many samples."""

SURE = 0.95
"""However low a confidence a trial must keep the limit with, so sure must we be that it cannot: else
what is kept is what was lucky at every stage."""


def race(
    baseline: NDArray[np.float64],
    pieces: Iterable[NDArray[np.float64]],
    must_beat: float,
    confidence: float,
    *,
    bounded: bool,
) -> tuple[Drop, float, int]:
    """Look at the scores of a candidate piece by piece.

    Args:
        baseline: scores of the dense model, ``(N,)``.
        pieces: scores of the candidate in the same order; not asked for any more once it is given up.
        must_beat: what its drop over all N must reach.
        confidence: of the interval, and of the upper bound where ``bounded``.
        bounded: whether the upper bound of the drop must reach ``must_beat``, or the drop itself.

    Returns:
        The drop over what was looked at, the upper bound of the drop had all been looked at, and how
        many samples that were.
    """
    total = baseline.size
    scores = np.empty(0)
    for piece in pieces:
        scores = np.concatenate([scores, piece])
        drop = paired_drop(baseline[: scores.size], scores)
        if scores.size == total:
            break
        if scores.size >= FIRST_STAGE:
            margin = _margin(drop, scores.size, total, confidence) if bounded else 0.0
            if _least(drop, scores.size, total, max(confidence, SURE)) + margin > must_beat:
                break
    seen = scores.size
    upper = max(drop.mean, drop.centre + _margin(drop, seen, total, confidence))
    return drop, drop.upper(confidence) if seen == total else upper, seen


def _least(drop: Drop, seen: int, total: int, confidence: float) -> float:
    """The drop over all samples is no less than this, with that confidence."""
    deviation = drop.standard_error * math.sqrt(seen)
    error = deviation * math.sqrt(1 / seen - 1 / total)
    return drop.centre - drop.quantile(confidence) * error


def _margin(drop: Drop, seen: int, total: int, confidence: float) -> float:
    """How far the upper bound will lie above the drop once all samples have been looked at."""
    return drop.quantile(confidence) * drop.standard_error * math.sqrt(seen / total)
