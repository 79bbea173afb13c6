"""From a study and a recipe to a search that is ready to be run: its levels, problem and tester."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from onnxprune import one_shot
from onnxprune.candidates import Candidates
from onnxprune.costs import weight_cost
from onnxprune.errors import RecipeError
from onnxprune.files import output_error
from onnxprune.plan import Plan
from onnxprune.recipe import VARIABLE
from onnxprune.search.features import variable_features
from onnxprune.search.groups import group_weights, levels_of
from onnxprune.search.levels import open_levels, watch
from onnxprune.search.measure import measured_space
from onnxprune.search.plans import Plans, level_losses
from onnxprune.search.problem import Problem
from onnxprune.search.run import check_installed
from onnxprune.search.space import Choice
from onnxprune.search.tester import Tester
from onnxprune.target_hardware import target_hardware
from passes.pack import MODEL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from onnxprune.costs import CostOf
    from onnxprune.recipe import Recipe
    from onnxprune.recipe_sections import Unit
    from onnxprune.study import Study
    from passes.moments import Moments

    Progress = Callable[[str, int, int], None]


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
    unit = recipe.unit
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
    vary = recipe.search.vary
    choices = tuple(Choice(name, vary[name]) for name in vary if name in VARIABLE)
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


def _part(levels: Path, number: int) -> Path:
    """Where the levels of one of several variants are."""
    try:
        levels.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(levels, error) from error
    return levels / f"{number:02d}"


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
    cost_of = weight_cost(unit, target_hardware(recipe))
    if unit != "packed_bytes":
        return cost_of, 0.0
    weights = study.collection.weights
    rest = study.path.stat().st_size - sum(weight.array().nbytes for weight in weights)
    return cost_of, float(rest + MODEL_BYTES)
