"""Random search: the baseline that every controller has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from onnxprune.search.controller import ATTEMPTS, Controller

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.search.space import Levels

SPREADS = (2.0, 12.0)
"""Range of the standard deviation of a candidate's levels about their common one."""


@final
class RandomController(Controller):
    """Draws candidates and learns nothing (Bergstra and Bengio, JMLR 13, 2012).

    Levels drawn independently would all have about the same total, so a candidate has a common
    level, drawn uniformly, from which its variables stray by a spread, drawn uniformly too. Where the
    problem has a budget, the candidate is shifted to it. Choices are drawn uniformly.
    """

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """A candidate not seen before, or None after many attempts."""
        seen = self.seen(pending)
        space = self.problem.space
        first = len(space.choices)
        budget = self.problem.budget_of(len(self.trials) + len(pending))
        for _ in range(ATTEMPTS):
            common = rng.uniform(0, space.tops[first:].max(initial=0))
            strayed = common + rng.uniform(*SPREADS) * rng.standard_normal(len(space.variables))
            drawn = np.concatenate([rng.integers(0, space.tops[:first] + 1), strayed])
            levels: Levels = (
                tuple(int(level) for level in np.clip(np.rint(drawn), 0, space.tops))
                if budget is None
                else space.within(drawn.tolist(), budget)
            )
            if levels not in seen:
                return levels
        return None
