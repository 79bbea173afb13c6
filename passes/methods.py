"""The methods that prune one weight, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from passes.admm import admm_mask
from passes.obs import exact_mask
from passes.reconstruction import least_squares
from passes.saliency import magnitude, ranked_by_row, wanda
from passes.sparsegpt import sparsegpt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.reconstruction import Quadratic

Method = Literal["magnitude", "wanda", "obs", "admm", "exact", "sparsegpt"]
METHODS: tuple[Method, ...] = get_args(Method)
SECOND_ORDER = frozenset(("obs", "admm", "exact", "sparsegpt"))

ADMM_COLUMNS = 1536
"""Reductions up to this wide go to ADMM when ``obs`` picks: its eigendecomposition is O(columns^3).
Up to here the sweep of ``sparsegpt``, which never looks back, is followed by least squares on its mask."""


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
) -> tuple[NDArray[np.float64], NDArray[np.bool_], str]:
    """Prune one weight.

    Where the reduction is narrow enough for it, a second-order method is never worse than plain
    magnitude: should its support with least squares have a larger error than magnitude's mask without,
    that mask is taken (with least squares), and the label says so.

    Args:
        method: any but ``obs``; see :func:`taken`.
        dense: ``(groups, rows, columns)``.
        problem: what second-order methods solve.
        gram: sums of x x^T as the data gave them, which ``wanda`` scores with.
        pattern: the shape of the mask, fitted to the weight.
        keep: weights to keep, at most.

    Returns:
        Weights, the mask that they keep to, and what was taken in words.
    """
    if method == "magnitude":
        mask = pattern.mask(magnitude(dense), keep)
        return np.where(mask, dense, 0.0), mask, method
    if method == "wanda":
        mask = pattern.mask(ranked_by_row(wanda(dense, gram)), keep)
        return np.where(mask, dense, 0.0), mask, method
    if keep >= dense.size and pattern.most(*dense.shape[1:]) == dense[0].size:
        return problem.optimum.copy(), np.ones(dense.shape, np.bool_), method
    if method == "sparsegpt" and dense.shape[2] > ADMM_COLUMNS:
        weights = sparsegpt(problem, pattern, keep)
        mask = weights != 0
        return np.where(mask, weights, 0.0), mask, method
    mask = _support(method, problem, pattern, keep)
    weights = least_squares(problem, mask)
    plain = pattern.mask(magnitude(dense), keep)
    if problem.error(np.where(plain, dense, 0.0)) < problem.error(weights):
        return least_squares(problem, plain), plain, f"{method}, outdone by magnitude's mask"
    return weights, mask, method


def _support(method: Method, problem: Quadratic, pattern: Pattern, keep: int) -> NDArray[np.bool_]:
    if method == "admm":
        return admm_mask(problem, pattern, keep)
    if method == "exact":
        return exact_mask(problem, pattern, keep)
    mask: NDArray[np.bool_] = sparsegpt(problem, pattern, keep) != 0
    return mask
