"""Weights on the grid of a quantised tensor: integers times a step, zero among them.

Rounding each weight to its nearest number ignores what the others could make good. Here weights are
rounded one column after the other, each to the best number given the present values of all others, and
the columns are gone through until none changes (coordinate descent on the quadratic error). The first
round starts from values between the grid's, so that columns to come take up the errors of those that are
rounded already, as in GPTQ (Frantar et al. 2022) and OBQ (Frantar and Alistarh 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.reconstruction import Quadratic

    Array = NDArray[np.float64]

ROUNDS = 12
"""Of all columns, at most."""

BLOCK = 128
"""Columns whose changes reach the other columns together, as one matrix product."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The numbers that a quantised weight can hold.

    Attributes:
        step: between them, ``(G, R, C)`` or what broadcasts to it.
        low, high: the least and greatest multiple of it, likewise; 0 lies between.
    """

    step: Array
    low: Array
    high: Array

    def nearest(self, weights: Array) -> Array:
        """The nearest number of the grid to each weight."""
        nearest: Array = np.clip(np.rint(weights / self.step), self.low, self.high) * self.step
        return nearest


def on_grid(
    problem: Quadratic, weights: Array, mask: NDArray[np.bool_], grid: Grid, rounds: int = ROUNDS
) -> Array:
    """Weights of the grid, zero outside the mask, whose error is a minimum along every single weight.

    The error never grows from one round to the next, nor from ``weights`` when they are on the grid.

    Args:
        problem: what is solved.
        weights: to start from, ``(G, R, C)``, zero outside the mask.
        mask: which may differ from zero.
        grid: the numbers allowed.
        rounds: through all columns, at most.
    """
    shape = weights.shape
    step, low, high = (np.broadcast_to(a, shape) for a in (grid.step, grid.low, grid.high))
    result = np.empty(shape)
    for group, hessian in enumerate(problem.hessian):
        # Columns first, so that one column of all rows is contiguous.
        now = np.ascontiguousarray(weights[group].T)
        allowed = np.ascontiguousarray(mask[group].T)
        units, least, most = (np.ascontiguousarray(a[group].T) for a in (step, low, high))
        slope = hessian @ (now - problem.optimum[group].T)
        for _ in range(rounds):
            before = now.copy()
            for start in range(0, len(now), BLOCK):
                part = slice(start, start + BLOCK)
                old = now[part].copy()
                _round_block(
                    now[part],
                    slope[part].copy(),
                    hessian[part, part],
                    allowed[part],
                    (units[part], least[part], most[part]),
                )
                slope += hessian[:, part] @ (now[part] - old)
            if np.array_equal(now, before):
                break
        result[group] = now.T
    return result


def _round_block(
    now: Array,
    slope: Array,
    hessian: Array,
    allowed: NDArray[np.bool_],
    grid: tuple[Array, Array, Array],
) -> None:
    """Go through some columns in place.

    Args:
        now: weights ``(C, R)``.
        slope: half the gradient there.
        hessian: ``(C, C)``.
        allowed: the mask.
        grid: step, least and greatest multiple.
    """
    step, low, high = grid
    for column in range(len(now)):
        best = now[column] - slope[column] / hessian[column, column]
        whole = np.clip(np.rint(best / step[column]), low[column], high[column]) * step[column]
        change = np.where(allowed[column], whole, 0.0) - now[column]
        now[column] += change
        slope += hessian[:, column, None] * change
