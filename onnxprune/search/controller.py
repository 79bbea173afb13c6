"""The contract of all controllers: ask for candidates, tell what came of them.

What a controller proposes depends on the space, the seed and the trials told so far, and on nothing
else. So a search that was killed resumes by telling the journal's trials to a fresh controller.
``tests/contracts/test_controllers.py`` checks this of every controller.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.space import Levels, Space


@dataclass(frozen=True)
class Trial:
    """One candidate and what came of it.

    Attributes:
        levels: the candidate.
        cost: in the unit of the space's costs.
        drop: mean drop on the search split.
        drop_upper: its upper confidence bound, which must stay within the limit.
    """

    levels: Levels
    cost: float
    drop: float
    drop_upper: float


@dataclass(frozen=True)
class Problem:
    """What a controller is to solve: least cost at ``drop_upper <= max_drop``.

    Attributes:
        space: the decision variables and their costs.
        max_drop: the limit.
        starts: candidates to try first, in order; the dense model (all levels 0) need not be tried.
    """

    space: Space
    max_drop: float
    starts: tuple[Levels, ...] = ()

    def feasible(self, trial: Trial) -> bool:
        """Whether a trial keeps the limit."""
        return trial.drop_upper <= self.max_drop

    def hopeless(self, levels: NDArray[np.int64], trials: Sequence[Trial]) -> NDArray[np.bool_]:
        """Which candidates ``(M, D)`` prune every weight at least as much as one that failed badly.

        Badly is a drop of more than twice the limit. More pruning seldom loses less, so such
        candidates wait until nothing else is left.
        """
        failed = [trial.levels for trial in trials if trial.drop > 2 * self.max_drop]
        result = np.zeros(len(levels), dtype=np.bool_)
        for limit in failed:
            result |= (levels >= np.array(limit)).all(axis=1)
        return result

    def best(self, trials: Sequence[Trial]) -> Trial | None:
        """The cheapest trial that keeps the limit; the earlier one of equals."""
        kept = [trial for trial in trials if self.feasible(trial)]
        return min(kept, key=lambda trial: trial.cost, default=None)


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
    def ask(self, count: int = 1) -> list[Levels]:
        """The next ``count`` candidates, all different and none told before.

        Fewer, or none, come back when the space is exhausted.
        """
        asked: list[Levels] = []
        for _ in range(count):
            candidate = self._next(asked)
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

    def _next(self, pending: Sequence[Levels]) -> Levels | None:
        number = len(self.trials) + len(pending)
        seen = self.seen(pending)
        for start in self.problem.starts:
            if start not in seen and not self.problem.hopeless(np.array([start]), self.trials)[0]:
                return start
        return self.propose(pending, np.random.default_rng([self.seed, number]))
