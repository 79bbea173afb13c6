"""The methods that prune one weight, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from passes.admm import admm_mask
from passes.obs import exact_mask
from passes.reconstruction import least_squares
from passes.saliency import magnitude, ranked_by_row, wanda
from passes.sparsegpt import sparsegpt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.reconstruction import Quadratic

Method = Literal["magnitude", "wanda", "obs", "admm", "exact", "sparsegpt"]
METHODS: tuple[Method, ...] = get_args(Method)
SECOND_ORDER = frozenset(("obs", "admm", "exact", "sparsegpt"))

ADMM_COLUMNS = 1536
"""Reductions up to this wide go to ADMM when ``obs`` picks: its eigendecomposition is O(columns^3)."""


def taken(method: Method, columns: int) -> Method:
    """What ``obs`` stands for at a width of the reduction; every other method is itself."""
    if method != "obs":
        return method
    return "admm" if columns <= ADMM_COLUMNS else "sparsegpt"


def prune_matrix(
    method: Method,
    dense: NDArray[np.float64],
    problem: Quadratic,
    gram: NDArray[np.float64],
    pattern: Pattern,
    keep: int,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Prune one weight.

    Args:
        method: any but ``obs``; see :func:`taken`.
        dense: ``(groups, rows, columns)``.
        problem: what second-order methods solve.
        gram: sums of x x^T as the data gave them, which ``wanda`` scores with.
        pattern: the shape of the mask, fitted to the weight.
        keep: weights to keep, at most.

    Returns:
        Weights, and the mask that they keep to.
    """
    if method == "magnitude":
        mask = pattern.mask(magnitude(dense), keep)
        return dense * mask, mask
    if method == "wanda":
        mask = pattern.mask(ranked_by_row(wanda(dense, gram)), keep)
        return dense * mask, mask
    everything = pattern.most(*dense.shape[1:]) == dense[0].size
    if keep >= dense.size and everything:
        return problem.optimum.copy(), problem.optimum == problem.optimum
    if method == "sparsegpt":
        weights = sparsegpt(problem, pattern, keep)
        return weights, weights != 0
    mask = (admm_mask if method == "admm" else exact_mask)(problem, pattern, keep)
    return least_squares(problem, mask), mask
