"""The exact optimal brain surgeon: one weight (or tile) at a time, each time the one that costs least.

Sources: Hassibi and Stork 1993, "Second order derivatives for network pruning: Optimal Brain
Surgeon"; Frantar and Alistarh 2022, "Optimal Brain Compression" (by rows, with traces merged).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np

from passes.patterns import NM, Unstructured

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.reconstruction import Quadratic


@dataclass(frozen=True)
class _Trace:
    """What was removed from some rows that are decided about together, in order."""

    group: int
    rows: slice
    removed: list[NDArray[np.intp]]
    losses: list[float]
    forced: int


@final
class Removals:
    """Greedy exact removal, O(rows columns^3), done once; any number kept is then read off.

    Each set of rows that a pattern decides about together is emptied step by step; the steps of all
    are then merged by their losses, and each set goes as far as the budget says. Only the support is
    told: least squares on it gives the values that the removals lead to, free of their rounding. A
    pattern that only counts weights takes those that rows lost last, by what losing them cost.
    Meant for small reductions.

    Args:
        problem: what to solve.
        pattern: the shape of the mask.
    """

    def __init__(self, problem: Quadratic, pattern: Pattern) -> None:
        groups, rows, _ = problem.optimum.shape
        self._pattern = pattern
        if pattern.counts:
            pattern = Unstructured()
        height = pattern.rows_together(rows)
        self._shape = problem.optimum.shape
        self._traces = []
        for group in range(groups):
            inverse = np.linalg.inv(problem.hessian[group])
            for start in range(0, rows, height):
                part = slice(start, min(start + height, rows))
                self._traces.append(
                    _trace(problem.optimum[group, part], inverse, pattern, group, part)
                )

    def mask(self, keep: int) -> NDArray[np.bool_]:
        """The support ``(groups, rows, columns)`` of at most ``keep`` weights over all groups."""
        if self._pattern.counts:
            return self._pattern.mask(self._losses(), keep)
        mask = np.ones(self._shape, np.bool_)
        for trace in self._traces:
            for cell in trace.removed[: trace.forced]:
                mask[trace.group, trace.rows, cell] = False
        left = int(mask.sum())
        for _, number, step in self._steps:
            if left <= keep:
                break
            trace = self._traces[number]
            chosen = mask[trace.group, trace.rows, trace.removed[step]]
            left -= chosen.size
            mask[trace.group, trace.rows, trace.removed[step]] = False
        return mask

    @cached_property
    def _steps(self) -> list[tuple[float, int, int]]:
        """Loss, trace and step of all removals, the cheapest first.

        A later step may cost less than an earlier one: it still has to wait for it.
        """
        return sorted(
            (float(loss), number, step)
            for number, trace in enumerate(self._traces)
            for step, loss in enumerate(np.maximum.accumulate(trace.losses))
            if step >= trace.forced
        )

    def _losses(self) -> NDArray[np.float64]:
        """What each row lost when a weight was the cheapest that was left; never less than before it."""
        losses = np.empty(self._shape)
        for trace in self._traces:
            rising = np.maximum.accumulate(trace.losses)
            losses[trace.group, trace.rows.start, np.concatenate(trace.removed)] = rising
        return losses


def _trace(
    optimum: NDArray[np.float64],
    inverse: NDArray[np.float64],
    pattern: Pattern,
    group: int,
    rows: slice,
) -> _Trace:
    """Remove everything from rows ``(height, C)``, the cheapest first; N:M groups come down first."""
    weights, inverse = optimum.copy(), inverse.copy()
    columns = weights.shape[1]
    cells = pattern.cells(columns)
    crowds = None
    if isinstance(pattern, NM):
        member = np.empty(columns, np.intp)
        member[cells[cells >= 0]] = np.nonzero(cells >= 0)[0]
        crowds = (cells >= 0).sum(axis=1)
        cells = np.arange(columns)[:, None]
    alive = np.ones(len(cells), np.bool_)
    trace = _Trace(group, rows, [], [], 0)
    forced = 0
    while alive.any():
        allowed = alive
        if isinstance(pattern, NM) and crowds is not None and (crowds > pattern.n).any():
            allowed = alive & (crowds > pattern.n)[member]
            forced += 1
        costs = np.full(len(cells), np.inf)
        candidates = np.flatnonzero(allowed)
        costs[candidates] = _costs(weights, inverse, cells[candidates])
        best = int(np.argmin(costs))
        cell = cells[best][cells[best] >= 0]
        block = inverse[np.ix_(cell, cell)]
        across = np.linalg.solve(block, inverse[cell])
        weights -= weights[:, cell] @ across
        inverse -= inverse[:, cell] @ across
        alive[best] = False
        if crowds is not None:
            crowds[member[best]] -= 1
        trace.removed.append(cell)
        trace.losses.append(float(costs[best]))
    return _Trace(group, rows, trace.removed, trace.losses, forced)


def _costs(
    weights: NDArray[np.float64], inverse: NDArray[np.float64], cells: NDArray[np.intp]
) -> NDArray[np.float64]:
    """What removing each cell adds to the objective: w_P^T (H^-1_PP)^-1 w_P, summed over rows."""
    if cells.shape[1] == 1:
        column = cells[:, 0]
        single: NDArray[np.float64] = (weights[:, column] ** 2).sum(axis=0) / inverse[
            column, column
        ]
        return single
    real = cells >= 0
    both = real[:, :, None] & real[:, None, :]
    blocks = np.where(both, inverse[cells[:, :, None], cells[:, None, :]], 0.0)
    blocks += np.eye(cells.shape[1]) * ~real[:, :, None]
    values = np.where(real, weights[:, cells], 0.0).transpose(1, 2, 0)
    costs: NDArray[np.float64] = (values * np.linalg.solve(blocks, values)).sum(axis=(1, 2))
    return costs
