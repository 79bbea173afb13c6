"""From a study and a recipe to the best plan that keeps the accuracy floor."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnxprune
from onnxprune.report import FinishReport, SearchReport, SplitSizes, TrialReport
from onnxprune.search.finish import WORTH, Finished, Finisher
from onnxprune.search.journal import Finish, Journal
from onnxprune.search.problem import Problem, Trial, front
from onnxprune.search.run import controller_name, make_controller, run_search
from onnxprune.search.workers import open_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxprune.plan import Plan
    from onnxprune.recipe import Recipe
    from onnxprune.rules import Ruled
    from onnxprune.search.opening import Search
    from onnxprune.search.space import Levels
    from onnxprune.study import Study

    Progress = Callable[[str, int, int], None]

BEST_SHOWN = 5
"""Trials that the report shows."""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        plan: the best one that keeps the limit on the search part; dense when none does.
        constants: what to put in the model's place for it.
        kept: whether any trial kept the limit.
        trials: all of them.
        search: what was searched, to try other trials of it.
        variant: of the plan; see :class:`Search`.
        report: for the report.
        methods: how weights were pruned.
        warnings: sentences for the report.
    """

    plan: Plan
    constants: Mapping[str, NDArray[Any]]
    kept: bool
    trials: tuple[Trial, ...]
    search: Search
    variant: int
    report: SearchReport
    methods: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe with the hyper-parameters that were found."""
        return self.search.variants[self.variant]

    @property
    def ruled(self) -> Ruled:
        """What holds for each weight under it."""
        return self.search.studies[self.variant].ruled


def open_journal(study: Study, recipe: Recipe, path: Path, *, resume: bool) -> Journal:
    """The journal of this search, new or continued.

    Raises:
        RunError: when there is a journal that may not or cannot be continued.
        OutputError: when it cannot be written.
    """
    header = {"tool_version": onnxprune.__version__, **study.identity(recipe)}
    return Journal(path, header, resume=resume)


def find_plan(search: Search, journal: Journal, progress: Progress) -> Found:
    """Search as the recipe says, from where the journal stands, and finish what was found.

    Raises:
        OutputError: when the journal cannot be written.
    """
    recipe, study, problem = search.recipe, search.study, search.problem
    how = recipe.search
    with open_workers(search.tester, how.workers, how.backend, how.scheduler) as workers:
        trials = run_search(
            make_controller(how.controller, problem, recipe.seed),
            journal,
            workers,
            trials=how.trials,
            at_once=how.workers,
            deadline=None if how.minutes is None else time.monotonic() + 60 * how.minutes,
            progress=lambda done, total: progress("search", done, total),
        )
    best = problem.best(trials)
    finished = _finish(search, journal, trials, best, progress)
    plan = search.plan(finished.keep)
    report = SearchReport(
        controller=controller_name(how.controller),
        objective=problem.objective,
        trials=len(trials),
        candidates=len(trials) + len(journal.finishes),
        seed=recipe.seed,
        unit=search.unit,
        confidence=recipe.search.confidence,
        splits=SplitSizes(len(study.calibration), len(study.search), len(study.held_out)),
        best=_best_trials(search, trials),
        finish=None if finished.finish is None else _finish_report(finished.finish),
        chosen=problem.space.values(best.levels) if best else {},
    )
    return Found(
        plan,
        finished.constants,
        best is not None,
        tuple(trials),
        search,
        problem.space.variant(best.levels) if best else 0,
        report,
        finished.methods,
        finished.warnings,
    )


def constants_of(search: Search, levels: Levels) -> tuple[Plan, Mapping[str, NDArray[Any]]]:
    """The plan of a candidate as it was tried, and what to put in the model's place."""
    return search.plan(search.problem.space.keep(levels)), search.tester.constants(levels)


def _finish(
    search: Search,
    journal: Journal,
    trials: list[Trial],
    best: Trial | None,
    progress: Progress,
) -> Finished:
    space = search.problem.space
    levels = best.levels if best else space.dense
    variant, keep = space.variant(levels), space.keep(levels)
    study, recipe = search.studies[variant], search.variants[variant]
    database = search.tester.databases[variant]
    if best and recipe.prune.method != "magnitude" and recipe.search.finish:
        finisher = Finisher(study, recipe, search.tester, journal, search.cost)
        made = finisher.run(
            trials.index(best), keep, lambda done, total: progress("finish", done, total)
        )
        if made is not None and _better(search.problem, made, best):
            return made
    methods = {name: database.entries[name].method for name in keep}
    return Finished(keep, database.constants(keep), None, methods)


def _finish_report(finish: Finish) -> FinishReport:
    return FinishReport(finish.finish, finish.shift, finish.cost, finish.drop, finish.drop_upper)


def _better(problem: Problem, made: Finished, best: Trial) -> bool:
    assert made.finish is not None
    if problem.objective == "drop":
        return made.finish.drop <= best.drop
    return made.finish.cost <= best.cost * WORTH


def _best_trials(search: Search, trials: list[Trial]) -> tuple[TrialReport, ...]:
    """The trials that the report shows: the best by the objective, or a front's own."""
    problem = search.problem
    if problem.objective == "front":
        shown = front(trials)
    else:
        kept = (trial for trial in trials if problem.feasible(trial))
        by_drop = problem.objective == "drop"
        shown = sorted(kept, key=lambda t: t.drop if by_drop else t.cost)[:BEST_SHOWN]
    return tuple(
        TrialReport(
            trials.index(trial),
            trial.cost,
            trial.drop,
            trial.drop_upper,
            search.plan(problem.space.keep(trial.levels)).sparsity,
            problem.space.values(trial.levels),
        )
        for trial in shown
    )
