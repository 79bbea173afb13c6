"""From a study and a recipe to the best plan that keeps the accuracy floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnxprune
from onnxprune import hardware
from onnxprune.memories import find_memory
from onnxprune.plan import Plan
from onnxprune.report import SearchReport, SplitSizes, TrialReport
from onnxprune.search.controller import Problem, Trial
from onnxprune.search.journal import Journal
from onnxprune.search.measure import elements_space, measured_space
from onnxprune.search.run import make_controller, run_search
from passes.allocation import global_threshold, uniform
from passes.pack import MODEL_BYTES, packed_bytes
from passes.saliency import magnitude

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from numpy.typing import NDArray

    from onnxprune.recipe import Recipe, Unit
    from onnxprune.search.space import Levels, Space
    from onnxprune.study import Study
    from passes.weights import Weight

START_RATES = (2, 4, 8, 16, 32)
"""Compression rates at which the plain allocations are tried before the controller proposes."""

BEST_SHOWN = 5


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        plan: the cheapest one that keeps the limit on the search part; when none does, the densest that
            the recipe's rules allow.
        kept: whether any trial kept the limit.
        trials: all of them.
        report: for the report.
    """

    plan: Plan
    kept: bool
    trials: tuple[Trial, ...]
    report: SearchReport


def open_journal(study: Study, recipe: Recipe, path: Path, *, resume: bool) -> Journal:
    """The journal of this search, new or continued.

    Raises:
        RunError: when there is a journal that may not or cannot be continued.
        OutputError: when it cannot be written.
    """
    header = {"tool_version": onnxprune.__version__, **study.identity(recipe)}
    return Journal(path, header, resume=resume)


def find_plan(
    study: Study, recipe: Recipe, journal: Journal, progress: Callable[[int, int], None]
) -> Found:
    """Search as the recipe says, from where the journal stands.

    Raises:
        OutputError: when the journal cannot be written.
    """
    target = recipe.parsed_target
    unit: Unit = target.unit if target else "elements"
    space = _space(study, recipe, unit)
    problem = Problem(space, recipe.max_drop, _starts(study, space))
    trials = run_search(
        make_controller(recipe.search.controller, problem, recipe.seed),
        journal,
        study.drop_of,
        trials=recipe.search.trials,
        confidence=recipe.search.confidence,
        progress=progress,
    )
    best = problem.best(trials)
    elements = {weight.name: weight.elements for weight in study.collection.weights}
    plan = Plan(space.keep(best.levels if best else (0,) * space.dimensions), elements)
    splits = SplitSizes(len(study.calibration), len(study.search), len(study.held_out))
    report = SearchReport(
        controller=recipe.search.controller,
        trials=len(trials),
        candidates=len(trials),
        seed=recipe.seed,
        unit=unit,
        confidence=recipe.search.confidence,
        splits=splits,
        best=_best_trials(problem, trials, elements),
    )
    return Found(plan, best is not None, tuple(trials), report)


def _space(study: Study, recipe: Recipe, unit: Unit) -> Space:
    weights = study.collection.weights
    if unit == "elements":
        return elements_space(study.ruled)
    encoding = recipe.encode.encoding
    if unit == "blob_bytes":
        return measured_space(
            study.ruled, lambda weight, array: hardware.encoded_bytes(weight, array, encoding), 0.0
        )
    if unit == "cycles":
        memory = find_memory(recipe.estimate.memory)
        return measured_space(
            study.ruled,
            lambda w, array: hardware.cycles_of(hardware.encoded_bytes(w, array, encoding), memory),
            0.0,
        )
    rest = study.path.stat().st_size - sum(weight.array().nbytes for weight in weights)
    return measured_space(study.ruled, _packed_cost, float(rest + MODEL_BYTES))


def _packed_cost(weight: Weight, array: NDArray[Any]) -> float:
    del weight
    return packed_bytes(array)


def _starts(study: Study, space: Space) -> tuple[Levels, ...]:
    weights = study.collection.weights
    elements = {weight.name: weight.elements for weight in weights}
    scores = {weight.name: magnitude(weight.matrices()) for weight in weights}
    allocations = [
        allocation
        for rate in START_RATES
        for allocation in (
            global_threshold(scores, 1 - 1 / rate),
            uniform(elements, 1 - 1 / rate),
        )
    ]
    return tuple(dict.fromkeys(space.nearest(allocation) for allocation in allocations))


def _best_trials(
    problem: Problem, trials: list[Trial], elements: dict[str, int]
) -> tuple[TrialReport, ...]:
    ranked = sorted(
        (number for number, trial in enumerate(trials) if problem.feasible(trial)),
        key=lambda number: trials[number].cost,
    )
    return tuple(
        TrialReport(
            number,
            trials[number].cost,
            trials[number].drop,
            trials[number].drop_upper,
            Plan(problem.space.keep(trials[number].levels), elements).sparsity,
        )
        for number in ranked[:BEST_SHOWN]
    )
