"""Recipes: everything that decides what ``compress`` and ``search`` do, in one validated object."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import Field, ValidationError, model_validator

from onnxprune.errors import RecipeError
from onnxprune.pipeline.steps import (
    CHANGES,
    CalibrateStep,
    EncodeStep,
    PruneStep,
    Step,
    as_written,
    check_order,
    with_inherited,
)
from onnxprune.recipe_marks import take_marks
from onnxprune.recipe_sections import (
    DataSection,
    EncodeSection,
    EstimateSection,
    FinetuneSection,
    PruneSection,
    SearchSection,
    Section,
    Unit,
)
from onnxprune.recipe_text import complaint, parse_yaml, put, read_yaml
from onnxprune.rules import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TARGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>x|B|kB|MB|cycles)(?P<blob>:blob)?")
VARIABLE = ("prune.method", "prune.damping", "prune.pattern")
"""Fields that a search of sparsities may decide too."""

OF_STEPS = "steps."
SIZES = (".sparsity", ".target")

SHIPPED = Path(__file__).parent / "recipes"
"""Recipes that come with onnxprune: ``label-free``, ``l-half`` and ``hardware``."""

_FACTORS = {"B": 1, "kB": 1000, "MB": 1000**2}


@dataclass(frozen=True)
class Target:
    """What is to be reached: at most ``limit`` of ``unit``, or a compression rate of ``rate``."""

    unit: Unit
    limit: float
    text: str

    def met(self, reached: float) -> bool:
        """Whether what was reached is enough: a rate at least, all else at most the limit."""
        return reached >= self.limit if self.unit == "elements" else reached <= self.limit


def parse_target(text: str) -> Target:
    """Read ``10x`` (compression rate), ``200kB``, ``200kB:blob`` or ``500000cycles``.

    Raises:
        RecipeError: for anything else.
    """
    match = _TARGET.fullmatch(text.strip())
    if not match or (match["blob"] and match["unit"] not in _FACTORS) or not float(match["number"]):
        msg = (
            f"target '{text}' is not understood; write 10x (compression rate), 200kB (packed file), "
            "200kB:blob or 500000cycles"
        )
        raise RecipeError(msg)
    number = float(match["number"])
    if match["unit"] == "x":
        return Target("elements", number, text)
    if match["unit"] == "cycles":
        return Target("cycles", number, text)
    unit: Unit = "blob_bytes" if match["blob"] else "packed_bytes"
    return Target(unit, number * _FACTORS[match["unit"]], text)


class Recipe(Section):
    """The whole recipe of ``compress``; every field has a default.

    ``max_drop`` is absolute (0.01 = one point of accuracy); ``target`` as in :func:`parse_target`. Without
    ``steps`` a search decides the sparsity of each weight, and everything is written and verified; with
    them ``compress`` does what they say, in their order; what a prune, encode or estimate step leaves open is
    as the section of that name has it.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    max_drop: Annotated[float, Field(ge=0, le=1)] = 0.01
    target: str | None = None
    data: DataSection = DataSection()
    search: SearchSection = SearchSection()
    prune: PruneSection = PruneSection()
    encode: EncodeSection = EncodeSection()
    estimate: EstimateSection = EstimateSection()
    finetune: FinetuneSection = FinetuneSection()
    rules: tuple[Rule, ...] = ()
    steps: tuple[Step, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _steps_inherit_from_sections(cls, fields: Any) -> Any:
        return with_inherited(fields) if isinstance(fields, dict) else fields

    @model_validator(mode="after")
    def _steps_follow_from_each_other(self) -> Recipe:
        check_order(self.steps, self.target)
        return self

    @model_validator(mode="after")
    def _varies_what_can_be(self) -> Recipe:
        for name, values in self.search.vary.items():
            if name not in VARIABLE and not name.startswith(OF_STEPS):
                msg = f"search.vary: '{name}' cannot be searched; choose of {', '.join(VARIABLE)} or a field of a step"
                raise ValueError(msg)
            if name.endswith(SIZES) and name.startswith(OF_STEPS):
                msg = (
                    f"search.vary: '{name}' says how small the model gets, and trials of different sizes cannot be "
                    "compared; give one size, or a prune step none, and its sparsities are searched"
                )
                raise ValueError(msg)
            if name.startswith(OF_STEPS) and self._leaves_the_model(name):
                msg = (
                    f"search.vary: '{name}' is of a step that neither changes the model nor stores it, so nothing would "
                    "tell its values apart; give one value"
                )
                raise ValueError(msg)
            if len(set(values)) < len(values):
                msg = f"search.vary: '{name}' lists a value twice"
                raise ValueError(msg)
            for value in values:
                self.with_values({name: value})
        if self.searched and not any(isinstance(step, CHANGES) for step in self.steps):
            msg = "fields of steps are searched for the least drop, but no step changes the model"
            raise ValueError(msg)
        searching = [s for s in self.steps if isinstance(s, PruneStep) and s.searches(self)]
        ours = [name for name in self.search.vary if name in VARIABLE]
        if ours and self.steps and not searching:
            msg = (
                f"{ours[0]} is searched together with the sparsities of weights, which no step does here; mark the field "
                "of the prune step itself"
            )
            raise ValueError(msg)
        if self.searched and searching:
            msg = (
                "fields of steps are searched for the least drop at one size; every prune step needs a sparsity or a "
                "target"
            )
            raise ValueError(msg)
        return self

    def _leaves_the_model(self, name: str) -> bool:
        number = name.split(".")[1]
        known = number.isdecimal() and int(number) < len(self.steps)
        return known and not isinstance(
            self.steps[int(number)], (CalibrateStep, EncodeStep, *CHANGES)
        )

    @property
    def searched(self) -> tuple[str, ...]:
        """The fields of steps that trials are made to choose, in the order of the steps."""
        names = [name for name in self.search.vary if name.startswith(OF_STEPS)]
        stored = {number for number, s in enumerate(self.steps) if isinstance(s, EncodeStep)}
        numbers = {name: int(name.split(".")[1]) for name in names}
        return tuple(
            sorted((n for n in names if numbers[n] not in stored), key=numbers.__getitem__)
        )

    def settled(self, number: int) -> dict[str, tuple[Any, ...]]:
        """What an encode step may choose from, by its own names: no trial is needed to compare them."""
        prefix = f"{OF_STEPS}{number}."
        return {
            name.removeprefix(prefix): values
            for name, values in self.search.vary.items()
            if name.startswith(prefix) and isinstance(self.steps[number], EncodeStep)
        }

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values of fields of its pruning and of its steps, by dotted name.

        Raises:
            ValueError: when there is no such field, or it does not take the value.
        """
        fields: dict[str, Any] = {"prune": self.prune.model_dump()}
        fields["steps"] = [as_written(step) for step in self.steps]
        for name, value in values.items():
            put(fields, name, value, "search.vary")
        found = Recipe.model_validate(
            {"prune": fields["prune"], "steps": fields["steps"], "target": self.target}
        )
        return self.model_copy(update={"prune": found.prune, "steps": found.steps})

    def variants(self) -> tuple[Recipe, ...]:
        """A recipe for each combination of the values of pruning that ``search.vary`` lists, the last running fastest.

        Without such values the recipe itself.
        """
        names = [name for name in self.search.vary if name in VARIABLE]
        columns = (self.search.vary[name] for name in names)
        return tuple(
            self.with_values(dict(zip(names, values, strict=True)))
            for values in itertools.product(*columns)
        )

    @model_validator(mode="after")
    def _counts_in_one_unit(self) -> Recipe:
        target, unit = self.parsed_target, self.search.unit
        if target is not None and unit is not None and unit != target.unit:
            msg = f"search.unit {unit} differs from that of the target '{target.text}', which is {target.unit}; leave it out"
            raise ValueError(msg)
        return self

    @property
    def unit(self) -> Unit:
        """What a search counts: the unit of the target, or the one that it names, or elements."""
        target = self.parsed_target
        return target.unit if target else self.search.unit or "elements"

    @property
    def parsed_target(self) -> Target | None:
        """The target, read."""
        return None if self.target is None else parse_target(self.target)

    def with_selection(
        self, nodes_to_exclude: Sequence[str], op_types_to_prune: Sequence[str] | None
    ) -> Recipe:
        """The recipe with more nodes to exclude, and with other operators to prune where they are given."""
        excluded = (*self.prune.nodes_to_exclude, *nodes_to_exclude)
        section = self.prune.model_copy(update={"nodes_to_exclude": excluded})
        if op_types_to_prune is not None:
            section = section.model_copy(update={"op_types_to_prune": tuple(op_types_to_prune)})
        return self.model_copy(update={"prune": section})

    def with_pattern(self, pattern: str) -> Recipe:
        """The recipe with another pattern for weights of which no rule says one."""
        section = self.prune.model_copy(update={"pattern": pattern})
        return self.model_copy(update={"prune": section})

    def to_yaml(self) -> str:
        """The recipe as a YAML document that :func:`load_recipe` reads back."""
        fields = self.model_dump(mode="json") | {"steps": [as_written(step) for step in self.steps]}
        return yaml.safe_dump(fields, sort_keys=False)


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """A recipe from a YAML file (or the defaults), with options put over it.

    Args:
        path: of the YAML file, or the name of a recipe that is shipped (:data:`SHIPPED`), or None.
        overrides: values by dotted field, ``{"search.trials": 50}``; None means "not given".

    Raises:
        RecipeError: naming the file and field, the value found and what is allowed.
    """
    fields = read_yaml(_found(path)) if path else {}
    label = f"'{path}'" if path else "the recipe"
    for dotted, value in overrides.items():
        if value is not None:
            put(fields, dotted, value, label)
    try:
        take_marks(fields, VARIABLE, label)
    except RecursionError:
        msg = f"{label} is nested too deeply; YAML anchors must not lead back to themselves"
        raise RecipeError(msg) from None
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as error:
        msg = f"{label}: {complaint(error, Recipe)}"
        raise RecipeError(msg) from error
    for target in (recipe.target, *(s.target for s in recipe.steps if isinstance(s, PruneStep))):
        if target is not None:
            parse_target(target)
    return recipe


def refuse_steps(recipe: Recipe, command: str) -> None:
    """For commands that do one thing: what steps say would be ignored.

    Raises:
        RecipeError: where the recipe has some.
    """
    if recipe.steps:
        msg = f"the recipe lists steps, which `onnxprune compress` does; {command} without them, or compress"
        raise RecipeError(msg)


def _found(path: Path) -> Path:
    """The file of a recipe: as given, or one that is shipped, by its name alone."""
    shipped = SHIPPED / f"{path}.yaml"
    return shipped if not path.exists() and len(path.parts) == 1 and shipped.is_file() else path


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read ``section.field=value`` texts; values are YAML, so ``[a, b]`` is a list.

    Raises:
        RecipeError: for a text of another form.
    """
    fields = {}
    for text in settings:
        name, equals, value = text.partition("=")
        try:
            fields[name.strip()] = parse_yaml(value)
        except (yaml.YAMLError, RecursionError):
            equals = ""
        if not equals or not name.strip():
            msg = f"setting '{text}' is not understood; write section.field=value, for instance search.trials=50"
            raise RecipeError(msg)
    return fields


def recipe_schema() -> str:
    """The JSON schema of a recipe, for editors."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
    }
    return json.dumps(schema, indent=2) + "\n"
