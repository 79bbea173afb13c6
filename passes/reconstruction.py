"""Second-order pruning: which weights to keep and what the kept ones become.

All methods minimise, over weights W that are zero outside a mask, the error of the outputs on
calibration data. With the moments of reductions x and targets t that is, up to a constant,

    sum over rows r of (w_r - w*_r)^T H (w_r - w*_r),      H = gram + damping,  w* = H^-1 (cross + damping w0)

where w0 are the dense weights: damping pulls towards them where the data say little.

Sources: Hassibi and Stork 1993 (OBS); Frantar and Alistarh 2022 (OBC), 2023 (SparseGPT); Meng et al.
2024 (ALPS: ADMM on the support, then exact least squares).

Notations: R rows, C columns of one group's matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

from passes.saliency import magnitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.moments import Moments
    from passes.patterns import Pattern

DAMPING = 0.01
"""Of the mean diagonal of the gram matrix, as SparseGPT has it."""

MAX_DAMPING = 10.0
ADMM_STEPS = 60


class NotPositiveDefinite(ValueError):  # noqa: N818 - named after the mathematical fact
    """A gram matrix that no damping makes positive definite."""


@dataclass(frozen=True)
class Quadratic:
    """The problem of one weight, group by group.

    Attributes:
        hessian: H, float64 ``(G, C, C)``, positive definite.
        optimum: w*, float64 ``(G, R, C)``.
        damping: the share of the mean diagonal that was added.
    """

    hessian: NDArray[np.float64]
    optimum: NDArray[np.float64]
    damping: float

    def error(self, weights: NDArray[np.float64]) -> float:
        """The objective for weights ``(G, R, C)``; 0 at the optimum."""
        difference = weights - self.optimum
        return float(
            np.einsum("grc,gcd,grd->", difference, self.hessian, difference, optimize=True)
        )


def quadratic(moments: Moments, dense: NDArray[np.float64], damping: float = DAMPING) -> Quadratic:
    """The problem that the moments pose for a weight whose dense values are ``(G, R, C)``.

    Columns that no data reach (a zero on the diagonal) are held by damping alone and keep their
    dense values as optimum. When H is not positive definite, damping is raised tenfold until it is.

    Raises:
        NotPositiveDefinite: when damping of ten times the mean diagonal is not enough.
    """
    columns = moments.gram.shape[1]
    diagonal = np.einsum("gcc->gc", moments.gram)
    scale = np.maximum(diagonal.mean(axis=1), np.finfo(np.float64).tiny)
    while damping <= MAX_DAMPING:
        extra = damping * scale[:, None, None]
        hessian = moments.gram + extra * np.eye(columns)
        right = moments.cross + extra * dense.transpose(0, 2, 1)
        try:
            solved = [
                linalg.cho_solve(linalg.cho_factor(h), r)
                for h, r in zip(hessian, right, strict=True)
            ]
        except linalg.LinAlgError:
            damping *= 10
            continue
        return Quadratic(hessian, np.stack(solved).transpose(0, 2, 1), damping)
    msg = f"the gram matrix is not positive definite even with a damping of {MAX_DAMPING}"
    raise NotPositiveDefinite(msg)


def admm_mask(
    problem: Quadratic, pattern: Pattern, keep: int, steps: int = ADMM_STEPS
) -> NDArray[np.bool_]:
    """The support by ADMM (ALPS): weights and their sparse copy are pulled together step by step.

    Columns are scaled so that H has a unit diagonal; rho starts at a tenth of the mean eigenvalue and
    grows by 1.3, 1.2 or 1.1 as over 10 %, over 0.5 % or any of the support changed in three steps.

    Args:
        problem: what to solve.
        pattern: the shape of the mask.
        keep: weights to keep over all groups.
        steps: at most; it ends when three steps leave the support as it is.

    Returns:
        A mask ``(G, R, C)``.
    """
    scale = np.sqrt(np.einsum("gcc->gc", problem.hessian))
    scaled = problem.hessian / scale[:, :, None] / scale[:, None, :]
    values, vectors = np.linalg.eigh(scaled)
    optimum = problem.optimum * scale[:, None, :]
    right = optimum @ scaled
    rho = 0.1 * float(values.mean())
    mask = pattern.mask(optimum**2, keep)
    sparse = optimum * mask
    dual = np.zeros_like(optimum)
    seen = mask
    for step in range(1, steps + 1):
        rotated = (right - dual + rho * sparse) @ vectors
        full = (rotated / (values + rho)[:, None, :]) @ vectors.transpose(0, 2, 1)
        shifted = full + dual / rho
        mask = pattern.mask(shifted**2, keep)
        sparse = shifted * mask
        dual += rho * (full - sparse)
        if step % 3 == 0:
            changed = int(np.count_nonzero(mask ^ seen))
            if not changed:
                break
            seen = mask
            rho *= 1.3 if changed > 0.1 * keep else 1.2 if changed > 0.005 * keep else 1.1
    return mask


def least_squares(problem: Quadratic, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The best weights on a support: exact least squares, row by row; zero outside ``mask``.

    Args:
        problem: what to solve.
        mask: ``(G, R, C)``.

    Returns:
        Weights ``(G, R, C)``.
    """
    if mask.all():
        return problem.optimum.copy()
    result = np.zeros_like(problem.optimum)
    for group, hessian in enumerate(problem.hessian):
        right = problem.optimum[group] @ hessian
        for row in range(len(right)):
            kept = np.flatnonzero(mask[group, row])
            if kept.size:
                factor = linalg.cho_factor(
                    hessian[np.ix_(kept, kept)], overwrite_a=True, check_finite=False
                )
                result[group, row, kept] = linalg.cho_solve(
                    factor, right[row, kept], check_finite=False
                )
    return result


def wanda_scores(dense: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """``|W_ij| ||x_j||`` (Sun et al. 2023), for weights ``(G, R, C)`` and grams ``(G, C, C)``."""
    norms = np.sqrt(np.maximum(np.einsum("gcc->gc", gram), 0.0))
    scores: NDArray[np.float64] = magnitude(dense) * norms[:, None, :]
    return scores
