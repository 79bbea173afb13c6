"""Second moments of what a weight multiplies and of what it should give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

CHUNK = 16384
"""Positions that are multiplied at once in float32; sums of chunks are float64."""

CONSTANT = 1e-6
"""A variance below this share of the mean square is lost in the rounding of float32."""


@dataclass(frozen=True)
class Moments:
    """Sums over P positions, by group.

    Attributes:
        positions: P.
        gram: sum of x x^T, float64 ``(G, C, C)``.
        cross: sum of x t^T, float64 ``(G, C, R)``.
        mean: mean of x, float64 ``(G, C)``.
        target: mean of t, float64 ``(G, R)``.
    """

    positions: int
    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    mean: NDArray[np.float64]
    target: NDArray[np.float64]

    def centred(self) -> Moments:
        """The moments about the means: what is left for a weight once its bias is free.

        Columns that vary less than float32 can tell (see :data:`CONSTANT`) count as constant.
        """
        gram = self.gram - self.positions * self.mean[:, :, None] * self.mean[:, None, :]
        cross = self.cross - self.positions * self.mean[:, :, None] * self.target[:, None, :]
        total, left = (np.einsum("gcc->gc", array) for array in (self.gram, gram))
        varies = (left > CONSTANT * total).astype(np.float64)
        gram *= varies[:, :, None] * varies[:, None, :]
        cross *= varies[:, :, None]
        return Moments(self.positions, gram, cross, self.mean, self.target)

    def with_targets(
        self, reductions: NDArray[np.float32], targets: NDArray[np.float32]
    ) -> Moments:
        """The same reductions with other targets, ``(G, P, R)``."""
        cross = np.stack([product(x, t) for x, t in zip(reductions, targets, strict=True)])
        return Moments(
            self.positions, self.gram, cross, self.mean, targets.mean(axis=1, dtype=np.float64)
        )


def moments(reductions: NDArray[np.float32], targets: NDArray[np.float32]) -> Moments:
    """Moments of reductions ``(G, P, C)`` and targets ``(G, P, R)``.

    Products are float32 at BLAS speed over chunks of positions, sums of chunks float64.

    Raises:
        ValueError: when either holds NaN or infinity, or there are no positions.
    """
    positions = reductions.shape[1]
    if not positions:
        msg = "statistics need at least one position"
        raise ValueError(msg)
    gram = np.stack([product(x, x) for x in reductions])
    cross = np.stack([product(x, t) for x, t in zip(reductions, targets, strict=True)])
    if not (np.isfinite(gram).all() and np.isfinite(cross).all()):
        msg = "an activation holds NaN or infinity, or numbers too large to square"
        raise ValueError(msg)
    return Moments(
        positions,
        gram,
        cross,
        reductions.mean(axis=1, dtype=np.float64),
        targets.mean(axis=1, dtype=np.float64),
    )


def product(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
    """``left.T @ right`` of float32 ``(P, A)`` and ``(P, B)``, float64 ``(A, B)``."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for start in range(0, len(left), CHUNK):
        with np.errstate(invalid="ignore", over="ignore"):  # callers refuse what is not finite
            total += left[start : start + CHUNK].T @ right[start : start + CHUNK]
    return total
