"""The methods that prune one weight, by name."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal, final, get_args

import numpy as np

from passes.admm import STEPS, Admm
from passes.grid import on_grid
from passes.obs import Removals
from passes.reconstruction import least_squares
from passes.saliency import magnitude, ranked_by_row, wanda
from passes.sparsegpt import Sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.grid import Grid
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


@final
class Pruner:
    """One weight, ready to be pruned to any level: what levels share is computed once.

    A second-order method is never worse than plain magnitude: should what it makes have a larger error than
    magnitude's mask without an update, that mask is taken (with least squares), and the label says so.

    Args:
        method: of :data:`METHODS`.
        dense: ``(groups, rows, columns)``.
        problem: what second-order methods solve.
        gram: sums of x x^T as the data gave them, which ``wanda`` scores with.
        pattern: the shape of the mask, fitted to the weight.
        steps: of ADMM, at most; an error curve needs no final mask.
        grid: the numbers that a quantised weight can hold; second-order methods then round to it.
    """

    def __init__(
        self,
        method: Method,
        dense: NDArray[np.float64],
        problem: Quadratic,
        gram: NDArray[np.float64],
        pattern: Pattern,
        steps: int = STEPS,
        grid: Grid | None = None,
    ) -> None:
        self._method = taken(method, dense.shape[2])
        self._dense, self._problem, self._gram = dense, problem, gram
        self._pattern, self._steps, self._grid = pattern, steps, grid

    def at(self, keep: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], str]:
        """The weight with at most ``keep`` elements.

        Returns:
            Weights and the mask that they keep to, ``(groups, rows, columns)`` both, and what was
            taken in words.
        """
        found = self._solved(keep)
        if self._grid is None or self._method not in SECOND_ORDER:
            return found
        return self._rounded(self._grid, *found)

    def _solved(self, keep: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], str]:
        dense, problem, pattern, method = self._dense, self._problem, self._pattern, self._method
        if method not in SECOND_ORDER:
            scores = (
                ranked_by_row(wanda(dense, self._gram)) if method == "wanda" else magnitude(dense)
            )
            mask = pattern.mask(scores, keep)
            return np.where(mask, dense, 0.0), mask, method
        if keep >= dense.size and pattern.most(*dense.shape[1:]) == dense[0].size:
            return problem.optimum.copy(), np.ones(dense.shape, np.bool_), method
        if method == "sparsegpt" and dense.shape[2] > ADMM_COLUMNS:
            swept = self._sweep.weights(keep)
            mask = swept != 0
            weights = np.where(mask, swept, 0.0)
        else:
            mask = self._support(keep)
            weights = least_squares(problem, mask)
        plain = pattern.mask(magnitude(dense), keep)
        if problem.error(np.where(plain, dense, 0.0)) < problem.error(weights):
            return least_squares(problem, plain), plain, f"{method}, outdone by magnitude's mask"
        return weights, mask, method

    def _rounded(
        self,
        grid: Grid,
        weights: NDArray[np.float64],
        mask: NDArray[np.bool_],
        words: str,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], str]:
        """On the grid, and never worse there than magnitude's mask, whose dense weights are on it."""
        dense, problem = self._dense, self._problem
        rounded = on_grid(problem, weights, mask, grid)
        support = self._pattern.mask(magnitude(dense), int(mask.sum()))
        plain = np.where(support, dense, 0.0)
        if problem.error(plain) < problem.error(rounded):
            label = f"{self._method}, outdone by magnitude's mask, on its grid"
            return on_grid(problem, plain, support, grid), support, label
        return rounded, mask, f"{words}, on its grid"

    def _support(self, keep: int) -> NDArray[np.bool_]:
        if self._method == "admm":
            return self._admm.mask(self._pattern, keep, self._steps)
        if self._method == "exact":
            return self._removals.mask(keep)
        mask: NDArray[np.bool_] = self._sweep.weights(keep) != 0
        return mask

    @cached_property
    def _admm(self) -> Admm:
        return Admm(self._problem)

    @cached_property
    def _removals(self) -> Removals:
        return Removals(self._problem, self._pattern)

    @cached_property
    def _sweep(self) -> Sweep:
        return Sweep(self._problem, self._pattern)
