"""What a pruned model loses on samples that nothing else has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from onnxprune.evaluate import Evaluator
from onnxprune.paired import paired_drop
from onnxprune.report import InsteadReport, Quality
from onnxprune.runtime import Session
from onnxprune.search.find import constants_of

if TYPE_CHECKING:
    from onnxprune.recipe import Recipe
    from onnxprune.search.find import Found
    from onnxprune.study import Study

LOOKS = 10
"""Trials that are measured on held-out samples where the plan found breaks the limit there."""


@final
class HeldOut:
    """The held-out part of a study, with the dense model's scores on it.

    Args:
        study: the model and its data.
        recipe: metric and limit.
    """

    def __init__(self, study: Study, recipe: Recipe) -> None:
        self._threads, self._max_drop = study.threads, recipe.max_drop
        dense = Session(study.path, threads=study.threads)
        self._evaluator = Evaluator(dense, study.held_out, recipe.data.metric)

    def quality(self, session: Session) -> Quality:
        """The drop of a model, with its interval."""
        scores = self._evaluator.scores(session)
        drop = paired_drop(self._evaluator.baseline, scores)
        return Quality(
            metric=self._evaluator.metric.name,
            samples=len(scores),
            baseline=float(self._evaluator.baseline.mean()),
            compressed=float(scores.mean()),
            drop=drop.mean,
            drop_ci95=drop.interval(),
            max_drop=self._max_drop,
            target_met=drop.mean <= self._max_drop,
        )

    def instead(self, found: Found) -> InsteadReport | None:
        """The cheapest trial that keeps the limit here too; None when none of the first ones does."""
        search = found.search
        kept = [trial for trial in found.trials if search.problem.feasible(trial)]
        ranked = sorted(kept, key=lambda trial: trial.cost)[:LOOKS]
        for looked_at, trial in enumerate(ranked, 1):
            plan, constants = constants_of(search, trial.levels)
            session = search.tester.candidates.session(constants, threads=self._threads)
            quality = self.quality(session)
            if quality.target_met:
                return InsteadReport(
                    found.trials.index(trial),
                    trial.cost,
                    quality.drop,
                    quality.drop_ci95,
                    looked_at,
                    plan.sparsity,
                    search.problem.space.values(trial.levels),
                )
        return None
