"""Hyper-parameters of steps, found by a controller: each trial runs the steps that make the model.

A trial is one value for each field that is searched. Its steps are those of the recipe with these values, up
to the last that changes the model; each lies in a folder named by its fingerprint, so that trials share
what they have in common, a trial that was stopped or killed goes on where it stood, and the run that
follows finds the best trial's steps done.

A trial climbs rungs: first all steps with a share of their passes (``search.fidelity``), then with all of them,
scored after each step from the first pruning on. On every rung it goes on only while its drop is among the
best one in ``search.reduction`` of those that came as far: the stopping form of asynchronous successive
halving (Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning"), where our resource is the
steps of the pipeline, which continue exactly, but for the first rung, whose training is not continued: its
schedules are shorter ones. A trial that was stopped is told with the drop of its rung, corrected by the median
difference that the trials made which went on from there to the end.

Drops are measured on the search part against the dense original. All trials prune to the same size.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np

from onnxprune.errors import RunError, TrainingError
from onnxprune.files import append_line, whole_lines, write_text
from onnxprune.paired import paired_drop
from onnxprune.pipeline.actions import do_step
from onnxprune.pipeline.inputs import fingerprint
from onnxprune.pipeline.records import StepFolder, remove
from onnxprune.pipeline.state import Context, State
from onnxprune.pipeline.steps import CHANGES, PruneStep, training_of
from onnxprune.report import SearchReport, SplitSizes, TrialReport
from onnxprune.runtime import Session
from onnxprune.search.find import BEST_SHOWN, open_journal
from onnxprune.search.problem import Problem, Trial
from onnxprune.search.run import (
    check_candidate,
    controller_name,
    make_controller,
)
from onnxprune.search.space import Choice, Space

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from onnxprune.pipeline.steps import Step
    from onnxprune.recipe import Recipe
    from onnxprune.run_folder import RunFolder
    from onnxprune.search.space import Levels

COST = 1.0
"""Of every candidate: they all prune to the same size."""

WORST = 1.0
"""The drop of a trial that could not be trained: all of an accuracy."""

KEPT_TRIALS = 8
"""The steps of so many latest trials stay on disk, beside those of the best."""


@dataclass(frozen=True)
class Tuned:
    """What tuning found: the recipe with the values of the best trial, and what the report says of it."""

    recipe: Recipe
    report: SearchReport
    warnings: tuple[str, ...] = ()


def problem_of(recipe: Recipe) -> Problem:
    """What a controller is to solve: the least drop over the values that the recipe lists."""
    choices = tuple(Choice(name, recipe.search.vary[name]) for name in recipe.searched)
    space = Space((), COST, choices)
    return Problem(space, recipe.max_drop, objective="drop", budget=COST)


def tune(context: Context, folder: RunFolder, *, resume: bool) -> Tuned:
    """Search the marked fields of the recipe's steps.

    Args:
        context: the dense model, its data, and the recipe with its marks.
        folder: of the run.
        resume: whether a journal that is there may be continued.

    Raises:
        RunError: when no trial could be made.
        OnnxPruneError: whatever a step finds wrong.
    """
    recipe, how = context.recipe, context.recipe.search
    problem = problem_of(recipe)
    made = recipe.model_copy(update={"steps": recipe.steps[: making(recipe)]})
    journal = open_journal(context.study, made, folder.journal, resume=resume)
    controller = make_controller(how.controller, problem, recipe.seed)
    ladder = Ladder(context, problem, folder)
    deadline = math.inf if how.minutes is None else time.monotonic() + 60 * how.minutes
    for trial in journal.trials[: how.trials]:
        check_candidate(problem, trial.levels, journal.path)
        controller.tell(trial)
    while len(controller.trials) < how.trials and time.monotonic() < deadline:
        context.progress("tune", len(controller.trials), how.trials)
        asked = controller.ask()
        if not asked:
            break
        trial = ladder.climb(asked[0], controller.trials)
        journal.add(trial)
        controller.tell(trial)
        ladder.tidy(controller.trials)
    context.progress("tune", how.trials, how.trials)
    best = problem.best(controller.trials)
    if best is None:
        msg = "no trial was made to its end; allow more trials or minutes"
        raise RunError(msg)
    found = recipe.with_values(problem.space.values(best.levels))
    found = found.model_copy(update={"search": how.model_copy(update={"vary": _others(recipe)})})
    warnings: tuple[str, ...] = ()
    if ladder.diverged:
        sentence = (
            f"{ladder.diverged} of {len(controller.trials)} trials diverged; narrow the ranges where they did "
            "(journal.jsonl has their values)"
        )
        warnings = (sentence,)
    return Tuned(found, _report(context, problem, controller.trials, best), warnings)


def making(recipe: Recipe) -> int:
    """How many steps it takes to make the model; those after them leave it as it is."""
    changing = [n for n, step in enumerate(recipe.steps) if isinstance(step, CHANGES)]
    return changing[-1] + 1 if changing else 0


def _others(recipe: Recipe) -> dict[str, Any]:
    return {name: v for name, v in recipe.search.vary.items() if name not in recipe.searched}


def _report(
    context: Context, problem: Problem, trials: Sequence[Trial], best: Trial
) -> SearchReport:
    recipe, study, space = context.recipe, context.study, problem.space
    kept = sorted((t for t in trials if t.complete), key=lambda t: t.drop)[:BEST_SHOWN]
    return SearchReport(
        controller=controller_name(recipe.search.controller),
        objective=problem.objective,
        trials=len(trials),
        candidates=len(trials),
        seed=recipe.seed,
        unit=recipe.unit,
        confidence=recipe.search.confidence,
        splits=SplitSizes(len(study.calibration), len(study.search), len(study.held_out)),
        best=tuple(
            TrialReport(
                list(trials).index(t), t.cost, t.drop, t.drop_upper, {}, space.values(t.levels)
            )
            for t in kept
        ),
        chosen=space.values(best.levels),
    )


def with_passes(recipe: Recipe, share: float) -> Recipe:
    """The recipe with a share of the passes of each step that trains, at least one."""
    values: dict[str, Any] = {}
    for number, step in enumerate(recipe.steps):
        training = training_of(step)
        if training is not None:
            within = "gradual.passes" if isinstance(step, PruneStep) else "passes"
            values[f"steps.{number}.{within}"] = max(1, round(training.passes * share))
    return recipe.with_values(values)


@dataclass(frozen=True)
class Rung:
    """How far a trial has come: with which share of the passes, and after which step."""

    share: float
    number: int

    @property
    def name(self) -> str:
        """As the log has it."""
        return f"{self.share:g}/{self.number}"


DIVERGED = Rung(0.0, 0)
"""Where trials lie whose training ran away."""


@final
class Ladder:
    """The rungs that trials climb, and what came of each trial on each.

    Args:
        context: of the steps.
        problem: the values that can be chosen.
        folder: of the run.
    """

    def __init__(self, context: Context, problem: Problem, folder: RunFolder) -> None:
        self._context, self._problem = context, problem
        self._steps, self._log = folder.trials, _Log(folder.rungs)
        self._used: list[set[str]] = []
        self._end = making(context.recipe)

    def climb(self, levels: Levels, trials: Sequence[Trial]) -> Trial:
        """Make one trial, as far as it deserves.

        One whose training diverges is told with the worst drop so far, and never less than :data:`WORST`.

        Args:
            levels: the candidate.
            trials: made before.
        """
        try:
            return self._climb(levels, trials)
        except TrainingError:
            worst = max([WORST, *(trial.drop for trial in trials)])
            if self._log.of(levels, DIVERGED) is None:
                self._log.add(levels, DIVERGED, worst, worst)
            return Trial(levels, COST, worst, worst, complete=False)

    @property
    def diverged(self) -> int:
        """How many trials could not be trained."""
        return self._log.count(DIVERGED)

    def _climb(self, levels: Levels, trials: Sequence[Trial]) -> Trial:
        full = self._context.recipe.with_values(self._problem.space.values(levels))
        share = full.search.fidelity
        recipes = (
            [(1.0, full)] if share is None else [(share, with_passes(full, share)), (1.0, full)]
        )
        self._used.append(set())
        for passes, recipe in recipes:
            state = State(self._context.study.path)
            for number, step in enumerate(recipe.steps[: self._end]):
                state = self._step(step, number, state)
                final = number + 1 == self._end
                # With few passes only the end tells; with all of them every step from the first pruning on.
                if not final and (passes < 1 or not state.pruned):
                    continue
                rung = Rung(passes, number)
                drop, upper = self._drop(levels, rung, state)
                if final and passes == 1:
                    return Trial(levels, COST, drop, upper, len(self._context.study.search))
                if not self._log.deserves(levels, rung, self._context.recipe.search.reduction):
                    told = drop + self._log.later(rung, trials)
                    return Trial(levels, COST, told, max(told, upper), complete=False)
        msg = "no step of the recipe changes the model, so there is nothing to try"
        raise RunError(msg)

    def tidy(self, trials: Sequence[Trial]) -> None:
        """Delete steps of old trials that are not the best one's."""
        self._used = self._used[-KEPT_TRIALS:]
        best = self._problem.best(trials)
        wanted = set().union(*self._used)
        if best is not None:
            wanted |= self._fingerprints(best)
        for path in self._steps.iterdir() if self._steps.is_dir() else ():
            if path.name not in wanted:
                remove(path)

    def _fingerprints(self, trial: Trial) -> set[str]:
        """The folders of a trial's steps, as far as they are there."""
        recipe = self._context.recipe.with_values(self._problem.space.values(trial.levels))
        state, found = State(self._context.study.path), set()
        for number, step in enumerate(recipe.steps[: self._end]):
            mark = fingerprint(step, number, state, self._context)
            place = StepFolder(self._steps / mark)
            record = place.finished(mark)
            if record is None:
                break
            found.add(mark)
            state = state.after(step, place.path, record)
        return found

    def _step(self, step: Step, number: int, state: State) -> State:
        mark = fingerprint(step, number, state, self._context)
        self._used[-1].add(mark)
        place = StepFolder(self._steps / mark)
        record = place.finished(mark) or do_step(step, number, state, place, self._context, mark)
        return state.after(step, place.path, record)

    def _drop(self, levels: Levels, rung: Rung, state: State) -> tuple[float, float]:
        """The drop on a rung and its upper bound, measured once."""
        known = self._log.of(levels, rung)
        if known is not None:
            return known
        study = self._context.study
        scores = study.evaluator.scores(Session(state.model, threads=study.threads))
        drop = paired_drop(study.evaluator.baseline, scores)
        upper = drop.upper(self._context.recipe.search.confidence)
        self._log.add(levels, rung, drop.mean, upper)
        return drop.mean, upper


@dataclass
class _Log:
    """The drop of every trial on every rung it reached, one line of JSON each, seen to the disk."""

    path: Path
    _known: dict[tuple[Levels, str], tuple[float, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.is_file():
            return
        content = self.path.read_bytes()
        whole = whole_lines(content)
        try:
            for line in whole.splitlines():
                levels, rung, drop, upper = json.loads(line)
                self._known[tuple(int(x) for x in levels), str(rung)] = float(drop), float(upper)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            msg = f"'{self.path}' is damaged ({error}); start again in another folder"
            raise RunError(msg) from error
        if len(whole) < len(content):
            write_text(self.path, whole.decode())

    def of(self, levels: Levels, rung: Rung) -> tuple[float, float] | None:
        """What is known of a trial on a rung."""
        return self._known.get((levels, rung.name))

    def add(self, levels: Levels, rung: Rung, drop: float, upper: float) -> None:
        """Write one down."""
        append_line(self.path, json.dumps([list(levels), rung.name, drop, upper]))
        self._known[levels, rung.name] = drop, upper

    def count(self, rung: Rung) -> int:
        """How many trials came to a rung."""
        return sum(name == rung.name for _, name in self._known)

    def deserves(self, levels: Levels, rung: Rung, reduction: float) -> bool:
        """Whether a trial is among the best one in ``reduction`` that came to a rung so far, itself included."""
        drops = [drop for (_, name), (drop, _) in self._known.items() if name == rung.name]
        own = self._known[levels, rung.name][0]
        return sum(drop < own for drop in drops) < math.ceil(len(drops) / reduction)

    def later(self, rung: Rung, trials: Sequence[Trial]) -> float:
        """By how much the drop changes from a rung to the end: the median over trials that went all the way."""
        ends: Mapping[Levels, float] = {t.levels: t.drop for t in trials if t.complete}
        changes = [
            ends[levels] - drop
            for (levels, name), (drop, _) in self._known.items()
            if name == rung.name and levels in ends
        ]
        return float(np.median(changes)) if changes else 0.0
