"""The contract of all controllers: ask for candidates, tell what came of them.

What a controller proposes depends on the problem, the seed and the trials told so far, and on nothing
else. So a search that was killed resumes by telling the journal's trials to a fresh controller.
``tests/contracts/test_controllers.py`` checks this of every controller.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.space import Levels


ATTEMPTS = 1000
"""How often a candidate is drawn again when it was there before."""


class Controller(abc.ABC):
    """Proposes candidates. Subclasses say how in :meth:`propose`.

    Args:
        problem: what to solve.
        seed: all randomness derives from it and from the number of trials so far.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.seed = seed
        self.trials: list[Trial] = []

    @final
    def ask(self, count: int = 1, pending: Sequence[Levels] = ()) -> list[Levels]:
        """The next ``count`` candidates, all different and none told or pending.

        Fewer, or none, come back when the space is exhausted.

        Args:
            count: how many.
            pending: candidates asked before and not told yet.
        """
        asked: list[Levels] = []
        for _ in range(count):
            candidate = self._next([*pending, *asked])
            if candidate is None:
                break
            asked.append(candidate)
        return asked

    @final
    def tell(self, trial: Trial) -> None:
        """Learn what came of a candidate."""
        self.trials.append(trial)

    @abc.abstractmethod
    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """One more candidate.

        Args:
            pending: asked, but not yet told.
            rng: the only source of randomness; depends on the seed and the number of trials.
        """

    @final
    def seen(self, pending: Sequence[Levels]) -> set[Levels]:
        """All candidates that must not come again."""
        return {trial.levels for trial in self.trials} | set(pending)

    @final
    def anywhere(self, seen: set[Levels], rng: np.random.Generator) -> Levels | None:
        """For a controller that finds nothing new near: any candidate not seen, uniformly drawn.

        None after many attempts, or where there is a budget, which it would hardly meet.
        """
        space = self.problem.space
        if self.problem.objective != "cost":
            return None
        drawn = rng.integers(0, space.tops + 1, (ATTEMPTS, space.dimensions)).tolist()
        return next((levels for levels in map(tuple, drawn) if levels not in seen), None)

    def _next(self, pending: Sequence[Levels]) -> Levels | None:
        number = len(self.trials) + len(pending)
        seen = self.seen(pending)
        for start in self.problem.starts:
            if start not in seen and not self.problem.hopeless(np.array([start]), self.trials)[0]:
                return start
        return self.propose(pending, np.random.default_rng([self.seed, number]))
