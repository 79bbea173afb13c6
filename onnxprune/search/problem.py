"""What a controller is to solve, and what it learns of a candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.space import Levels, Space

Objective = Literal["cost", "drop", "front"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)

FRONT_SPAN = 32.0
"""A front is searched from the dense cost down to so small a share of it."""


@dataclass(frozen=True)
class Trial:
    """One candidate and what came of it.

    Attributes:
        levels: the candidate.
        cost: in the unit of the space's costs.
        drop: mean drop on the samples that were looked at.
        drop_upper: its upper confidence bound; that of the whole search split where ``complete``.
        samples: how many samples were looked at.
        complete: False when the race was stopped early: the candidate cannot reach what it must.
    """

    levels: Levels
    cost: float
    drop: float
    drop_upper: float
    samples: int = 0
    complete: bool = True


@dataclass(frozen=True)
class Problem:
    """What to find.

    Attributes:
        space: the decision variables and their costs.
        max_drop: for objective ``cost``, the limit that ``drop_upper`` must keep; for the others the
            drop that is worth telling apart (a scale).
        starts: candidates to try first, in order; the dense model (all levels 0) need not be tried.
        objective: ``cost``: least cost at ``drop_upper <= max_drop``. ``drop``: least drop at
            ``cost <= budget``. ``front``: the least drop at every cost.
        budget: of objective ``drop``, in the unit of the costs.
        features: of the variables, ``(D, F)`` between 0 and 1, for controllers that look at layers.
    """

    space: Space
    max_drop: float
    starts: tuple[Levels, ...] = ()
    objective: Objective = "cost"
    budget: float | None = None
    features: tuple[tuple[float, ...], ...] = ()

    def feasible(self, trial: Trial) -> bool:
        """Whether a trial keeps the limit, or the budget."""
        if self.objective == "cost":
            return trial.complete and trial.drop_upper <= self.max_drop
        return trial.complete and (self.budget is None or trial.cost <= self.budget)

    def budget_of(self, number: int) -> float | None:
        """The cost that trial ``number`` should have: the budget, or for a front one place on it.

        Places on a front follow the golden ratio, so that any number of them is spread evenly over
        the logarithm of the cost. None where cost is what is minimised.
        """
        if self.objective != "front":
            return self.budget
        space = self.space
        dense, least = space.cost(space.dense), space.least_cost
        place = (number + 1) * 0.618033988749895 % 1.0
        return max(least, float(dense / FRONT_SPAN**place))

    def must_beat(self, cost: float, trials: Sequence[Trial]) -> float:
        """The upper bound of the drop, or the drop, that a candidate of this cost has to reach.

        For objective ``cost`` the limit; otherwise the least drop of what costs no more.
        """
        if self.objective == "cost":
            return self.max_drop
        rivals = [
            trial.drop
            for trial in trials
            if trial.complete and trial.cost <= max(cost, self.budget or 0.0)
        ]
        return min(rivals, default=np.inf)

    def scaled_drop(self, trial: Trial) -> float:
        """The drop, log-scaled around the limit: negative where it is kept.

        Where the limit binds it is the upper bound of the drop that counts, else the drop itself.
        """
        return self.scaled(trial.drop_upper if self.objective == "cost" else trial.drop)

    def scaled(self, drop: float) -> float:
        """Any drop on the scale of :meth:`scaled_drop`."""
        scale = max(self.max_drop, 1e-4) / 2
        return float(np.arcsinh(min(drop, 1.0) / scale) - np.arcsinh(self.max_drop / scale))

    def hopeless(self, levels: NDArray[np.int64], trials: Sequence[Trial]) -> NDArray[np.bool_]:
        """Which candidates ``(M, D)`` prune every weight at least as much as one that failed badly.

        Badly is a drop of more than twice the limit. More pruning seldom loses less, so such
        candidates of the same variant wait until nothing else is left. Nothing is hopeless where
        there is no limit.
        """
        result, first = np.zeros(len(levels), dtype=np.bool_), len(self.space.choices)
        if self.objective == "cost":
            for trial in trials:
                if trial.drop > 2 * self.max_drop:
                    failed = np.array(trial.levels)
                    harder = (levels >= failed)[:, first:].all(axis=1)
                    result |= harder & (levels == failed)[:, :first].all(axis=1)
        return result

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The cheapest trial that keeps the limit, or the one of least drop; the earlier of equals.

        Of a front, the cheapest whose ``drop_upper`` keeps ``max_drop``.
        """
        if self.objective == "drop":
            kept = [trial for trial in trials if self.feasible(trial)]
            return min(kept, key=lambda trial: (trial.drop, trial.cost), default=None)
        kept = [t for t in trials if t.complete and t.drop_upper <= self.max_drop]
        return min(kept, key=lambda trial: trial.cost, default=None)


def front(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials that no other beats in both cost and drop, by rising cost."""
    best: list[Trial] = []
    for trial in sorted((t for t in trials if t.complete), key=lambda t: (t.cost, t.drop)):
        if not best or trial.drop < best[-1].drop:
            best.append(trial)
    return best
