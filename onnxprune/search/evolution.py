"""Evolution by budget-preserving swaps, after EvoPress.

Source: Sieberling et al. 2025, "EvoPress: Accurate Dynamic Model Compression via Evolutionary Search".
There a parent at a fixed budget has many offspring, in each of which some variables go up a level while
others go down, and stages of growing data select the best. Here a trial is one offspring; the stages
are those of the race that every trial runs (:mod:`onnxprune.search.race`), which stops most offspring
early. We deviate where cost is minimised: the budget itself is lowered while offspring still keep
the limit (:mod:`onnxprune.search.aim`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from onnxprune.search.aim import undercut
from onnxprune.search.controller import Controller
from onnxprune.search.neighbours import parents, rechosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.space import Levels

ATTEMPTS = 200
SWAPS = 3
"""An offspring has min(U(1..3), U(1..3)) swaps, as in EvoPress."""
STEP = 4.0
"""A swap moves a variable by up to so many levels."""


@final
class EvolutionController(Controller):
    """Mutates the best candidate so far."""

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """An offspring not seen before, or None after many attempts."""
        seen = self.seen(pending)
        space = self.problem.space
        budget = self.problem.budget_of(len(self.trials) + len(pending))
        elite = parents(self.problem, self.trials, budget, 2)
        for attempt in range(ATTEMPTS):
            parent = elite[min(len(elite) - 1, int(rng.integers(4) == 0))] if elite else None
            base = np.array(parent.levels if parent else space.dense, np.float64)
            limit = undercut(self.problem, parent, self.trials) if budget is None else budget
            first = len(space.choices)
            child = base.copy()
            child[first:] = _swapped(base[first:], rng, STEP * (1 + attempt / 20))
            child = rechosen(space, base[None], child[None], rng)[0]
            if limit < space.cost(tuple(int(level) for level in base)) or budget is not None:
                levels = space.within(child.tolist(), limit)
            else:
                levels = tuple(int(x) for x in np.clip(np.rint(child), 0, space.tops))
            if levels not in seen:
                return levels
        return self.anywhere(seen, rng)


def _swapped(
    base: NDArray[np.float64], rng: np.random.Generator, step: float
) -> NDArray[np.float64]:
    """Some variables up by some levels, as many others down."""
    child = base.copy()
    if not len(base):  # choices alone
        return child
    for _ in range(min(rng.integers(1, SWAPS + 1, size=2))):
        up, down = rng.choice(len(base), 2, replace=False) if len(base) > 1 else (0, 0)
        child[up] += rng.uniform(0.5, step)
        child[down] -= rng.uniform(0.5, step)
    return child
