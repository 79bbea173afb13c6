"""Finishing: the plan that a search found, pruned once more with all that one-shot pruning can do.

Levels of a database are solved for the dense model's activations, each weight by itself. The plan
deserves better: weights pruned one after the other, each given what its pruned predecessors really
produce (:mod:`passes.sequential`), and blocks of them trained where the recipe says so. That loses less,
so a plan that is sparser in the same proportions may keep the limit too. How much sparser is found by a
few more candidates, tested like trials: the shift (in halvings of density, equal for all weights) grows
until the limit breaks, or falls a little where it breaks at once, then the gap is halved.

The best of hundreds of trials is partly lucky, and loses more on other samples; a finishing try is one of a
few. So a finish that costs little more than its trial is preferred to it (:data:`WORTH`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxprune.one_shot import OneShot, Pruned, prune_one_shot
from onnxprune.search.journal import Finish

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from onnxprune.recipe import Recipe
    from onnxprune.search.journal import Journal
    from onnxprune.search.tester import Tester
    from onnxprune.study import Study

FIRST_SHIFT = 0.25
"""A quarter of a halving: one level."""

MILDEST_SHIFT = -0.125
WORTH = 1.1
"""A finish may cost so many times its trial; the mildest shift costs about as much."""


def next_shift(low: float | None, high: float | None) -> float | None:
    """Between the sparsest shift that kept the limit and the mildest that did not, or beyond the one.

    None once a finish would have to be so much milder than its trial that it is not worth it.
    """
    if low is None:
        assert high is not None
        return None if high < 0 else MILDEST_SHIFT
    return max(2 * low, FIRST_SHIFT) if high is None else (low + high) / 2


@dataclass(frozen=True)
class Finished:
    """What finishing made of a plan.

    Attributes:
        keep: elements to keep, by weight.
        constants: what to put in the model's place.
        finish: how it was tested; None where no finishing try was better than the trial itself.
        methods: how each weight was pruned.
        warnings: sentences for the report.
    """

    keep: Mapping[str, int]
    constants: Mapping[str, NDArray[Any]]
    finish: Finish | None
    methods: Mapping[str, str]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Tried:
    """A finishing try; ``made`` is None where the journal knew it."""

    plan: Mapping[str, int]
    finish: Finish
    made: Pruned | None


@dataclass(frozen=True, eq=False)
class Finisher:
    """Finishes plans.

    Attributes:
        study: the model and its data.
        recipe: method, damping and pattern of pruning, and how many tries there are.
        tester: of the search.
        journal: where tries are written, and read when a search is resumed.
        cost_of: the cost of a whole plan, from what each weight keeps and the constants.
    """

    study: Study
    recipe: Recipe
    tester: Tester
    journal: Journal
    cost_of: Callable[[Mapping[str, int], Mapping[str, NDArray[Any]]], float]

    def run(
        self, number: int, keep: Mapping[str, int], progress: Callable[[int, int], None]
    ) -> Finished | None:
        """The best finish of a trial's plan, or None when none keeps what it must.

        Args:
            number: of the trial.
            keep: its plan.
            progress: told of tries done and in all.
        """
        tries = self.recipe.search.finish
        best: _Tried | None = None
        low: float | None = None
        high: float | None = None
        shift: float | None = 0.0
        for done in range(tries):
            if shift is None:
                break
            tried = self._try(number, shift, self._shifted(keep, shift))
            progress(done + 1, tries)
            kept = self._keeps_limit(tried.finish)
            if kept and (best is None or tried.finish.cost < best.finish.cost):
                best = tried
            if self.tester.problem.objective == "drop":
                break
            low, high = (shift, high) if kept else (low, shift)
            shift = next_shift(low, high)
        progress(tries, tries)
        if best is None:
            return None
        made = best.made or self._prune(best.plan)
        return Finished(best.plan, made.constants, best.finish, made.methods, made.warnings)

    def _try(self, number: int, shift: float, plan: Mapping[str, int]) -> _Tried:
        for known in self.journal.finishes:
            if (known.finish, known.shift) == (number, shift):
                return _Tried(plan, known, None)
        made = self._prune(plan)
        cost = self.cost_of(plan, made.constants)
        problem = self.tester.problem
        must_beat = problem.max_drop if problem.objective == "cost" else math.inf
        trial = self.tester.trial((), cost, made.constants, must_beat)
        finish = Finish(
            number, shift, cost, trial.drop, trial.drop_upper, trial.samples, trial.complete
        )
        self.journal.add_finish(finish)
        return _Tried(plan, finish, made)

    def _keeps_limit(self, finish: Finish) -> bool:
        problem = self.tester.problem
        if problem.objective == "drop":
            return problem.budget is None or finish.cost <= problem.budget
        return finish.complete and finish.drop_upper <= problem.max_drop

    def _shifted(self, keep: Mapping[str, int], shift: float) -> dict[str, int]:
        elements = {weight.name: weight.elements for weight in self.study.collection.weights}
        fixed, factor = self.study.ruled.keep, 2.0**-shift
        return {
            name: count
            if count == elements[name] or name in fixed
            else min(elements[name], max(1, round(count * factor)))
            for name, count in keep.items()
        }

    def _prune(self, plan: Mapping[str, int]) -> Pruned:
        prune = self.recipe.prune
        options = OneShot(
            method=prune.method,
            pattern=prune.pattern,
            damping=prune.damping,
            reconstruct=prune.reconstruct,
            seed=self.recipe.seed,
        )
        return prune_one_shot(
            self.study.model,
            self.study.ruled,
            options,
            keep=plan,
            data=dict(self.study.calibration.inputs),
            threads=self.study.threads,
        )
