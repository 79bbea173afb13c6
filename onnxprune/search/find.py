"""From a study and a recipe to the best plan that keeps the accuracy floor."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnxprune
from onnxprune import hardware, one_shot
from onnxprune.candidates import Candidates
from onnxprune.errors import RecipeError
from onnxprune.files import output_error
from onnxprune.plan import Plan
from onnxprune.report import FinishReport, SearchReport, SplitSizes, TrialReport
from onnxprune.search.features import variable_features
from onnxprune.search.finish import WORTH, Finished, Finisher
from onnxprune.search.groups import group_weights, levels_of
from onnxprune.search.journal import Finish, Journal
from onnxprune.search.levels import open_levels, watch
from onnxprune.search.measure import CostOf, measured_space
from onnxprune.search.plans import Plans, level_losses
from onnxprune.search.problem import Problem, Trial, front
from onnxprune.search.run import AUTO, check_installed, make_controller, run_search
from onnxprune.search.space import Choice
from onnxprune.search.tester import Tester
from onnxprune.search.workers import open_workers
from onnxprune.target_hardware import target_hardware
from passes.pack import MODEL_BYTES, packed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxprune.recipe import Recipe, Unit
    from onnxprune.search.space import Levels
    from onnxprune.study import Study
    from passes.moments import Moments

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


def open_journal(study: Study, recipe: Recipe, path: Path, *, resume: bool) -> Journal:
    """The journal of this search, new or continued.

    Raises:
        RunError: when there is a journal that may not or cannot be continued.
        OutputError: when it cannot be written.
    """
    header = {"tool_version": onnxprune.__version__, **study.identity(recipe)}
    return Journal(path, header, resume=resume)


@dataclass(frozen=True, eq=False)
class Search:
    """A search, ready to be run: its levels, problem and tester.

    Attributes:
        study, recipe: as given.
        variants: the recipe for each variant of the space.
        studies: the study as each of them selects and rules.
        tester: tries candidates of its ``problem``.
        plans: those that need no trial.
        unit: of the costs.
        cost_of: a weight's cost in that unit, from its array; None counts elements.
    """

    study: Study
    recipe: Recipe
    variants: tuple[Recipe, ...]
    studies: tuple[Study, ...]
    tester: Tester
    plans: Plans
    unit: Unit
    cost_of: CostOf | None

    @property
    def problem(self) -> Problem:
        """What is searched."""
        return self.tester.problem

    def plan(self, keep: Mapping[str, int]) -> Plan:
        """Counts as a plan of the model."""
        return Plan(
            keep, {weight.name: weight.elements for weight in self.study.collection.weights}
        )

    def cost(self, keep: Mapping[str, int], constants: Mapping[str, NDArray[Any]]) -> float:
        """The cost of a whole model whose weights keep so many elements, from its constants."""
        if self.cost_of is None:
            return self.problem.space.base_cost + sum(keep.values())
        return self.problem.space.base_cost + sum(
            self.cost_of(weight, constants.get(weight.name, weight.array()))
            for weight in self.study.collection.weights
        )

    def remove_levels(self) -> None:
        """Delete the databases, once nothing of the search is needed any more."""
        for database in self.tester.databases:
            database.remove()
        if len(self.tester.databases) > 1:
            self.tester.databases[0].folder.parent.rmdir()


def open_search(study: Study, recipe: Recipe, levels: Path, progress: Progress) -> Search:
    """Build the levels that are missing, and pose the problem.

    Args:
        study: the model and its data.
        recipe: all settings.
        levels: folder of the database.
        progress: told of steps.

    Raises:
        RecipeError, DataError: when an option or the data cannot be used.
        RunError: when the folder holds other levels.
        OutputError: when it cannot be written.
    """
    check_installed(recipe.search.controller)
    one_shot.check_installed(recipe.prune.reconstruct)
    weights = study.collection.weights
    variants = recipe.variants()
    studies = tuple(study.ruled_by(variant) for variant in variants)
    groups = group_weights(study.ruled, recipe.search.groups)
    keeps: list[dict[str, tuple[int, ...]]] = [{} for _ in variants]
    for _, members in groups:
        for number, own in enumerate(levels_of(members, [one.ruled for one in studies])):
            keeps[number].update(own)
    watched = watch(study, recipe, variants)
    known: dict[str, Moments] = {}
    target = recipe.parsed_target
    unit: Unit = target.unit if target else "elements"
    cost_of, base = _costs(study, recipe, unit)
    databases, spaces = [], []
    for number, (one, variant) in enumerate(zip(studies, variants, strict=True)):
        database = open_levels(
            one,
            variant,
            keeps[number],
            watched,
            known,
            levels if len(variants) == 1 else _part(levels, number),
            workers=study.threads or os.cpu_count() or 1,
            progress=lambda done, total: progress("levels", done, total),
        )
        databases.append(database)
        spaces.append(measured_space(groups, keeps[number], database, cost_of, base))
    choices = tuple(Choice(name, values) for name, values in recipe.search.vary.items())
    others = tuple(space.variables for space in spaces[1:])
    space = replace(spaces[0], choices=choices, others=others)
    losses = None
    if watched is not None:
        losses = level_losses(
            weights,
            databases[0],
            watched.output_error(),
            lambda done, total: progress("sensitivity", done, total),
        )
    plans = Plans(weights, space, losses)
    problem = Problem(
        space,
        recipe.max_drop,
        (),
        recipe.search.objective,
        _budget(recipe, space.cost(space.dense)),
    )
    problem = replace(
        problem, starts=plans.starts(problem), features=variable_features(space, weights)
    )
    tester = Tester(
        problem,
        tuple(databases),
        Candidates(study.path, set().union(*(database.names for database in databases))),
        study.evaluator,
        recipe.search.confidence,
        study.threads,
    )
    return Search(study, recipe, variants, studies, tester, plans, unit, cost_of)


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
        controller=AUTO if how.controller == "auto" else how.controller,
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


def _part(levels: Path, number: int) -> Path:
    """Where the levels of one of several variants are."""
    try:
        levels.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(levels, error) from error
    return levels / f"{number:02d}"


def _finish_report(finish: Finish) -> FinishReport:
    return FinishReport(finish.finish, finish.shift, finish.cost, finish.drop, finish.drop_upper)


def _better(problem: Problem, made: Finished, best: Trial) -> bool:
    assert made.finish is not None
    if problem.objective == "drop":
        return made.finish.drop <= best.drop
    return made.finish.cost <= best.cost * WORTH


def _budget(recipe: Recipe, dense: float) -> float | None:
    target = recipe.parsed_target
    if recipe.search.objective != "drop":
        return None
    if target is None:
        msg = (
            "search.objective drop needs a target to keep to: give --target, for instance 10x, "
            "200kB or 500000cycles"
        )
        raise RecipeError(msg)
    return dense / target.limit if target.unit == "elements" else target.limit


def _costs(study: Study, recipe: Recipe, unit: Unit) -> tuple[CostOf | None, float]:
    """A weight's cost in a unit, and that of the model beside its weights."""
    if unit == "elements":
        return None, 0.0
    if unit in ("blob_bytes", "cycles"):
        return _blob_cost(recipe, unit), 0.0
    weights = study.collection.weights
    rest = study.path.stat().st_size - sum(weight.array().nbytes for weight in weights)
    return lambda _, array: packed_bytes(array), float(rest + MODEL_BYTES)


def _blob_cost(recipe: Recipe, unit: Unit) -> CostOf:
    """What a weight costs in the blob, as the recipe stores and fetches it."""
    target = target_hardware(recipe)
    storage, one = target.storage, target.space.only
    if unit == "cycles":
        return lambda weight, array: hardware.fetch_cycles(weight, array, storage, one)
    return lambda weight, array: hardware.encoded_bytes(weight, array, storage)


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
