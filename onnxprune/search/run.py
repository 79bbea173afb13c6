"""The search loop: ask, evaluate, write down, tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxprune.search.controller import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.paired import Drop
    from onnxprune.search.controller import Controller, Problem
    from onnxprune.search.journal import Journal
    from onnxprune.search.space import Levels

Evaluate = Callable[["Mapping[str, int]"], "Drop"]
"""From how many elements each weight keeps to the drop on the search split."""

Progress = Callable[[int, int], None]
"""Called with the trials done and the trials in all."""


def make_controller(name: str, problem: Problem, seed: int) -> Controller:
    """A controller by name: ``bayes`` or ``random``. Imports scikit-optimize only where needed."""
    if name == "bayes":
        from onnxprune.search.bayes import BayesController

        return BayesController(problem, seed)
    from onnxprune.search.random_search import RandomController

    return RandomController(problem, seed)


def run_search(
    controller: Controller,
    journal: Journal,
    evaluate: Evaluate,
    *,
    trials: int,
    confidence: float,
    progress: Progress,
) -> list[Trial]:
    """Search until ``trials`` trials are in the journal; those already there are told, not re-run.

    Args:
        controller: fresh; learns the journal's trials first.
        journal: of this search.
        evaluate: the drop of a candidate.
        trials: how many in all.
        confidence: of the upper bound of the drop that must keep the limit.
        progress: told after each trial.
    """
    for trial in journal.trials[:trials]:
        controller.tell(trial)
    progress(len(controller.trials), trials)
    while len(controller.trials) < trials:
        asked = controller.ask()
        if not asked:
            break
        trial = _try(controller.problem, asked[0], evaluate, confidence)
        journal.add(trial)
        controller.tell(trial)
        progress(len(controller.trials), trials)
    return controller.trials


def _try(problem: Problem, levels: Levels, evaluate: Evaluate, confidence: float) -> Trial:
    drop = evaluate(problem.space.keep(levels))
    return Trial(levels, problem.space.cost(levels), drop.mean, drop.upper(confidence))
