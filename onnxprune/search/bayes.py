"""Bayesian search with scikit-optimize's models.

The cost of a candidate is known before it is tried; only its drop is not. So the surrogate models the
drop alone. Where cost is minimised, the next candidate is the one with the highest expected saving over
the best so far: log(best cost / its cost) times the probability that it keeps the limit (Gardner et al.
2014, "Bayesian Optimization with Inequality Constraints", with a deterministic objective). Where a budget
is given, it is the one of highest expected improvement of the drop among candidates at that budget
(Jones et al. 1998).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
from scipy import special

from onnxprune.search.controller import Controller
from onnxprune.search.neighbours import around, parents, unseen
from onnxprune.search.surrogate import Forest, Process, Surrogate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.problem import Problem
    from onnxprune.search.space import Levels

POOL = 2000
"""Candidates drawn around the best ones for each ask."""
POOL_AT_BUDGET = 500
"""The same where each has to be shifted to a budget."""
PARENTS = 5

PROCESS_DIMENSIONS = 40
"""Up to so many variables the Gaussian process models the drop, beyond them the forest."""

PENDING_TARGET = 0.1
"""Pending candidates count as just failing: others are then proposed elsewhere."""


@final
class BayesController(Controller):
    """Proposes what a surrogate of the drop expects most of.

    The surrogate is a Gaussian process up to :data:`PROCESS_DIMENSIONS` variables, else a forest.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        space = problem.space
        kind = Process if space.dimensions <= PROCESS_DIMENSIONS else Forest
        self._surrogate: Surrogate = kind(seed, len(space.choices))

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """The unseen candidate of highest expected gain, or None when the pool has none."""
        budget = self.problem.budget_of(len(self.trials) + len(pending))
        pool = self._pool(rng, self.seen(pending), budget)
        if not len(pool):
            return None
        mean, deviation = self._predict(pool, pending)
        value = (
            self._saving(pool, mean, deviation)
            if budget is None
            else self._improvement(mean, deviation, budget)
        )
        return tuple(int(level) for level in pool[value.argmax()])

    def _pool(
        self, rng: np.random.Generator, seen: set[Levels], budget: float | None
    ) -> NDArray[np.int64]:
        space = self.problem.space
        near = parents(self.problem, self.trials, budget, PARENTS)
        bases = np.array([trial.levels for trial in near] or [space.dense])
        size = POOL if budget is None else POOL_AT_BUDGET
        moved = around(self.problem, bases, size, rng, budget)
        anywhere = rng.integers(0, space.tops + 1, size=(size // 10, space.dimensions))
        if budget is not None:
            anywhere = space.within_many(
                anywhere.astype(np.float64), np.full(len(anywhere), budget)
            )
        fresh = unseen(np.concatenate([moved, anywhere]), seen)
        hopeful = ~self.problem.hopeless(fresh, self.trials)
        return fresh[hopeful] if hopeful.any() else fresh

    def _predict(
        self, pool: NDArray[np.int64], pending: Sequence[Levels]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and deviation of the scaled drop of candidates; a flat guess before any trial."""
        if not self.trials:
            return np.zeros(len(pool)), np.ones(len(pool))
        space = self.problem.space
        told = space.unit(np.array([t.levels for t in self.trials] + list(pending)))
        target = [self.problem.scaled_drop(trial) for trial in self.trials]
        target += [PENDING_TARGET] * len(pending)
        return self._surrogate.predict(
            told, np.array(target), space.unit(pool), told=len(self.trials)
        )

    def _saving(
        self, pool: NDArray[np.int64], mean: NDArray[np.float64], deviation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        space = self.problem.space
        chance = special.ndtr(-mean / np.maximum(deviation, 1e-9))
        dense = space.cost(space.dense)
        best = self.problem.best(self.trials)
        costs = np.maximum(space.cost_many(pool), 1e-9)
        value: NDArray[np.float64] = (
            np.maximum(np.log((best.cost if best else dense) / costs), 0.0) * chance
        )
        if not value.max() > 0:  # nothing near saves: learn about the cheapest that may be kept
            value = np.maximum(np.log(dense / costs), 0.0) * chance
        return value

    def _improvement(
        self, mean: NDArray[np.float64], deviation: NDArray[np.float64], budget: float
    ) -> NDArray[np.float64]:
        rivals = [
            self.problem.scaled_drop(trial)
            for trial in self.trials
            if trial.complete and trial.cost <= budget * 1.01
        ]
        least = min(rivals, default=float(mean.max()))
        gain = least - mean
        deviation = np.maximum(deviation, 1e-9)
        z = gain / deviation
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        expected: NDArray[np.float64] = gain * special.ndtr(z) + deviation * density
        return expected
