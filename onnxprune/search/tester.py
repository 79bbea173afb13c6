"""One trial: levels put together, run on the search split, and given up as soon as it cannot make it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.search.problem import Trial
from onnxprune.search.race import STAGES, race

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from numpy.typing import NDArray

    from onnxprune.candidates import Candidates
    from onnxprune.evaluate import Evaluator
    from onnxprune.search.database import LevelDatabase
    from onnxprune.search.problem import Problem
    from onnxprune.search.space import Levels


@dataclass(frozen=True, eq=False)
class Tester:
    """Tries candidates. It can be pickled, for workers.

    Attributes:
        problem: what is searched.
        databases: the levels, by variant of the space.
        candidates: the model that they are put into.
        evaluator: scores on the search split.
        confidence: that a trial must keep the limit with.
        threads: of onnxruntime.
    """

    problem: Problem
    databases: tuple[LevelDatabase, ...]
    candidates: Candidates
    evaluator: Evaluator
    confidence: float
    threads: int | None = None

    def __call__(self, levels: Levels, must_beat: float) -> Trial:
        """Try a candidate.

        Args:
            levels: of the space.
            must_beat: see :meth:`onnxprune.search.problem.Problem.must_beat`.
        """
        cost = self.problem.space.cost(levels)
        return self.trial(levels, cost, self.constants(levels), must_beat)

    def constants(self, levels: Levels) -> dict[str, NDArray[Any]]:
        """What a candidate puts in the model's place, by initializer name."""
        space = self.problem.space
        return self.databases[space.variant(levels)].constants(space.keep(levels))

    def trial(
        self,
        levels: Levels,
        cost: float,
        constants: Mapping[str, NDArray[Any]],
        must_beat: float,
    ) -> Trial:
        """Try any constants in the model's place; arguments as in :meth:`__call__`."""
        session = self.candidates.session(constants, threads=self.threads)
        drop, upper, samples = race(
            self.evaluator.baseline,
            self.evaluator.stages(session, STAGES),
            must_beat,
            self.confidence,
            bounded=self.problem.objective == "cost",
        )
        complete = samples == self.evaluator.samples
        return Trial(levels, cost, drop.mean, upper, samples, complete)
