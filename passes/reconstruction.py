"""The problem that second-order pruning solves for one weight, and its exact solution on a support.

All methods minimise, over weights W that are zero outside a mask, the error of the outputs on
calibration data. With the moments of reductions x and targets t that is, up to a constant,

    sum over rows r of (w_r - w*_r)^T H (w_r - w*_r),      H = gram + damping,  w* = H^-1 (cross + damping w0)

where w0 are the dense weights: damping pulls towards them where the data say little. Which weights to
keep is decided in :mod:`passes.admm`, :mod:`passes.obs` and :mod:`passes.sparsegpt`.

Notations: G groups, R rows, C columns of one group's matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.moments import Moments

DAMPING = 0.01
"""Of the mean diagonal of the gram matrix, as SparseGPT has it."""

MAX_DAMPING = 10.0

EXACT_COLUMNS = 768
"""Up to so many kept columns in a row the exact solution is cheap; beyond, conjugate gradients."""

CG_STEPS = 100
CG_TOLERANCE = 1e-5


class NotPositiveDefinite(ValueError):  # noqa: N818 - named after the mathematical fact
    """A gram matrix that no damping makes positive definite."""


@dataclass(frozen=True)
class Quadratic:
    """The problem of one weight, group by group.

    Attributes:
        hessian: H, float64 ``(G, C, C)``, positive definite.
        optimum: w*, float64 ``(G, R, C)``.
        damping: the share of the mean diagonal that was added; the largest over the groups.
    """

    hessian: NDArray[np.float64]
    optimum: NDArray[np.float64]
    damping: float

    def error(self, weights: NDArray[np.float64]) -> float:
        """The objective for weights ``(G, R, C)``; 0 at the optimum."""
        difference = weights - self.optimum
        return float(((difference @ self.hessian) * difference).sum())


def quadratic(moments: Moments, dense: NDArray[np.float64], damping: float = DAMPING) -> Quadratic:
    """The problem that the moments pose for a weight whose dense values are ``(G, R, C)``.

    Columns that no data reach (a zero on the diagonal) are held by damping alone and keep their
    dense values as optimum. Where the data are few for the width of a reduction, damping is what
    :func:`shrinkage` says, if that is more. When H is not positive definite, damping is raised tenfold
    (from 1e-6 when it was 0) until it is; ``damping`` of the result says where that ended.

    Args:
        moments: of reductions and targets.
        dense: the weight.
        damping: the least, as a share of the mean diagonal; 0 adds nothing where H is positive definite.

    Raises:
        NotPositiveDefinite: when damping of ten times the mean diagonal is not enough.
    """
    columns = moments.gram.shape[1]
    diagonal = np.einsum("gcc->gc", moments.gram)
    mean = diagonal.mean(axis=1)
    scale = np.where(mean > 0, mean, 1.0)
    few = shrinkage(moments) if damping > 0 else np.zeros(len(mean))
    while damping <= MAX_DAMPING:
        shares = np.maximum(few, damping)
        extra = (shares * scale)[:, None, None]
        hessian = moments.gram + extra * np.eye(columns)
        right = moments.cross + extra * dense.transpose(0, 2, 1)
        try:
            solved = [
                linalg.cho_solve(linalg.cho_factor(h), r)
                for h, r in zip(hessian, right, strict=True)
            ]
        except linalg.LinAlgError:
            damping = max(damping * 10, 1e-6)
            continue
        optimum = np.ascontiguousarray(np.stack(solved).transpose(0, 2, 1))
        return Quadratic(hessian, optimum, float(shares.max()))
    msg = f"the gram matrix is not positive definite even with a damping of {MAX_DAMPING}"
    raise NotPositiveDefinite(msg)


def shrinkage(moments: Moments) -> NDArray[np.float64]:
    """How much damping brings a Gram matrix nearest to that of endless data, ``(G,)``.

    A Gram matrix of fewer positions than columns knows directions without any error; a mask that is
    chosen by it costs nothing on the calibration data and much on others. Shrinking the covariance
    S of N positions and C columns to (1 - rho) S + rho tr(S) / C is the same as damping by rho / (1 - rho)
    of the mean diagonal; the best rho for normally distributed data is estimated by

        rho = ((1 - 2 / C) tr(S^2) + tr(S)^2) / ((N + 1 - 2 / C) (tr(S^2) - tr(S)^2 / C))

    (oracle approximating shrinkage, Chen, Wiesel, Eldar and Hero 2010). Inputs that are nearly white would
    be shrunk without limit, to no use; so damping for this reason is never more than C / N, nor than 1.
    """
    columns, positions = moments.gram.shape[1], moments.positions
    covariance = moments.gram / positions
    power = np.einsum("gab,gab->g", covariance, covariance)
    trace = np.einsum("gcc->g", covariance) ** 2
    above = (1 - 2 / columns) * power + trace
    left = (positions + 1 - 2 / columns) * (power - trace / columns) - above
    most = min(1.0, columns / positions)
    share = np.divide(above, left, out=np.full_like(above, most), where=left > 0)
    return np.where(trace > 0, np.minimum(share, most), 0.0)


def least_squares(problem: Quadratic, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The best weights on a support: least squares, zero outside ``mask``.

    Exact, row by row, where a row keeps up to :data:`EXACT_COLUMNS` or prunes as few: the smaller of the
    two sets is solved for (of what is pruned, w = w* - H^-1_P (H^-1_PP)^-1 w*_P, as Optimal Brain Surgeon
    has it). By conjugate gradients on all rows at once (as ALPS) otherwise.

    Args:
        problem: what to solve.
        mask: ``(G, R, C)``.

    Returns:
        Weights ``(G, R, C)``.
    """
    result = np.where(mask, problem.optimum, 0.0)
    columns = mask.shape[2]
    for group, hessian in enumerate(problem.hessian):
        kept = mask[group].sum(axis=1)
        right = problem.optimum[group] @ hessian
        if np.minimum(kept, columns - kept).max() > EXACT_COLUMNS:
            result[group] = _conjugate_gradients(
                hessian, right, problem.optimum[group], mask[group]
            )
            continue
        inverse = linalg.inv(hessian) if (2 * kept > columns).any() else hessian
        for row, keep in enumerate(mask[group]):
            few, many = np.flatnonzero(~keep), np.flatnonzero(keep)
            if few.size and few.size < many.size:
                force = _solved(inverse[np.ix_(few, few)], problem.optimum[group, row, few])
                result[group, row, many] -= inverse[np.ix_(many, few)] @ force
            elif few.size and many.size:
                result[group, row, many] = _solved(hessian[np.ix_(many, many)], right[row, many])
    return result


def _solved(matrix: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """The solution of a symmetric positive definite system, which ``matrix`` is lost to."""
    solution: NDArray[np.float64]
    _, solution, failed = linalg.lapack.dposv(matrix, right, overwrite_a=True)
    if failed:
        msg = "a principal part of the Hessian is not positive definite"
        raise NotPositiveDefinite(msg)
    return solution


def _conjugate_gradients(
    hessian: NDArray[np.float64],
    right: NDArray[np.float64],
    start: NDArray[np.float64],
    mask: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """All rows ``(R, C)`` at once, preconditioned by the diagonal, restricted to the support."""
    diagonal = np.diagonal(hessian)
    weights = start * mask
    residual = (right - weights @ hessian) * mask
    limit = CG_TOLERANCE * np.linalg.norm(right * mask)
    direction = residual / diagonal
    power = (residual * direction).sum(axis=1, keepdims=True)
    for _ in range(CG_STEPS):
        if np.linalg.norm(residual) <= limit:
            break
        image = (direction @ hessian) * mask
        curvature = (direction * image).sum(axis=1, keepdims=True)
        step = np.divide(power, curvature, out=np.zeros_like(power), where=curvature > 0)
        weights += step * direction
        residual -= step * image
        scaled = residual / diagonal
        new = (residual * scaled).sum(axis=1, keepdims=True)
        direction = (
            scaled + np.divide(new, power, out=np.zeros_like(new), where=power > 0) * direction
        )
        power = new
    return weights
