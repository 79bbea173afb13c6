"""Recipes: everything that decides what ``compress`` and ``search`` do, in one validated object."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from onnxprune.errors import RecipeError
from onnxprune.recipe_marks import take_marks
from onnxprune.recipe_text import complaint, parse_yaml, put, read_yaml
from onnxprune.rules import Rule, checked_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Unit = Literal["elements", "packed_bytes", "blob_bytes", "cycles"]

_TARGET = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>x|B|kB|MB|cycles)(?P<blob>:blob)?")
VARIABLE = ("prune.method", "prune.damping", "prune.pattern")
"""Fields that a search may decide."""

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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Share = Annotated[float, Field(gt=0, lt=1)]
Varied = float | str


class DataSection(_Section):
    """How data are split, and how models are scored."""

    calibration: Annotated[float, Field(ge=0, lt=1)] = 0.1
    search: Share = 0.45
    metric: str | None = None

    @model_validator(mode="after")
    def _leaves_some(self) -> DataSection:
        if self.calibration + self.search >= 1:
            msg = "calibration and search together must leave a held-out part (be below 1)"
            raise ValueError(msg)
        return self


class SearchSection(_Section):
    """Who searches for what, for how long, and how sure a trial must be to count as good.

    ``controller`` ``auto`` is the one that measures best, at any number of weights ``bayes``.
    ``objective`` ``cost`` finds the smallest model that keeps ``max_drop``, ``drop`` the best one within
    the target, ``front`` the best one at every size. ``trials`` and ``minutes`` both end a search.
    ``groups`` are shell patterns of weight or node names that share one sparsity (null: only models of
    very many weights are grouped, by similar layers). ``finish`` is how often the plan found is
    pruned once more with full reconstruction, sparser each time (0: not at all). ``workers`` trials
    are made at the same time, by processes of this machine or by a ``backend`` whose cluster answers at
    ``scheduler``. ``vary`` lists the values of hyper-parameters that the controller decides too:
    ``prune.method``, ``prune.damping`` or ``prune.pattern``; ``prune: {damping: {search: [0.001, 0.1,
    log]}}`` says the same.
    """

    controller: Literal["auto", "bayes", "evolution", "random", "rl"] = "auto"
    objective: Literal["cost", "drop", "front"] = "cost"
    trials: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    minutes: Annotated[float, Field(gt=0)] | None = None
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.999
    groups: tuple[str, ...] | None = None
    finish: Annotated[int, Field(ge=0, le=100)] = 6
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    backend: Literal["local", "dask", "ray"] = "local"
    scheduler: str | None = None
    vary: dict[str, Annotated[tuple[Varied, ...], Field(min_length=2)]] = {}


class PruneSection(_Section):
    """What is pruned, how and in which pattern; rules say more of single weights.

    Method, damping, pattern and reconstruct are those of ``onnxprune prune``. A search tries plans layer by
    layer, and reconstructs by blocks where it finishes one.
    """

    method: Literal["obs", "admm", "exact", "sparsegpt", "wanda", "magnitude"] = "obs"
    damping: Annotated[float, Field(ge=0, le=10)] = 0.01
    pattern: str = "unstructured"
    reconstruct: Literal["layers", "blocks"] = "layers"
    nodes_to_exclude: tuple[str, ...] = ()
    op_types_to_prune: tuple[str, ...] | None = None

    @field_validator("pattern")
    @classmethod
    def _known(cls, text: str) -> str:
        return checked_pattern(text)


def _encodings_schema(schema: dict[str, Any]) -> None:
    from hwmodel.encodings import encoding_names

    schema["enum"] = ["auto", "auto-cycles", *encoding_names()]


class EncodeSection(_Section):
    """How the hardware blob is encoded.

    ``encoding`` is ``auto`` (fewest bytes for each weight), ``auto-cycles`` (fewest cycles on the
    hardware that ``estimate`` describes) or a name. ``chunk`` counts weights, 0 for one chunk; left
    out it is 1024 with ``auto-cycles`` or a decoder, else 0. ``decoder`` names the encodings that the
    hardware knows; empty for all.
    """

    encoding: Annotated[str, Field(json_schema_extra=_encodings_schema)] = "auto"
    chunk: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    align: Annotated[int, Field(ge=1, le=1 << 16)] = 1
    decoder: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> EncodeSection:
        from onnxprune.design_space import check_storage

        check_storage(self.encoding, self.align, self.decoder)
        return self


class EstimateSection(_Section):
    """From which memory the blob is fetched, and what stands behind it.

    ``memory`` is a name or a YAML file. Without ``decoder_lanes`` cycles are those of the fetch
    alone; with ``compute_lanes`` they end when every nonzero weight is used. ``clock_ratio`` is clocks
    of decoder and compute units in one of the memory; ``buffers`` 1 is single buffering, 2 double.
    """

    memory: str = "ddr4-2400"
    decoder_lanes: Annotated[int, Field(ge=1, le=1 << 20)] | None = None
    decoder_width: Annotated[int, Field(ge=1, le=1 << 20)] = 1
    compute_lanes: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    clock_ratio: Annotated[float, Field(ge=1e-6, le=1e6)] = 1.0
    buffers: Annotated[int, Field(ge=1, le=1 << 20)] = 2
    buffer_bytes: Annotated[int, Field(ge=1, le=1 << 40)] = 4096


class PhaseSection(_Section):
    """How many passes over the training data each phase of a cycle takes."""

    sparsify: Annotated[int, Field(ge=0, le=100_000)] = 6
    prune: Annotated[int, Field(ge=0, le=100_000)] = 25
    recover: Annotated[int, Field(ge=0, le=100_000)] = 20


class PenaltySection(_Section):
    """What pulls weights to zero, and how hard.

    ``strength`` is for sparsifying, ``prune_strength`` for pruning and ``recover_strength`` for
    recovering; ``by_weight`` multiplies them for weights by name. ``prune_strength: auto`` draws
    masks by the penalty's own map, at the strength that leaves the weights due. ``form`` ``smoothed`` adds a
    gradient to the loss's, ``proximal`` applies the penalty's exact map after each step.
    """

    name: Literal["l_half", "l1", "l2", "group_l_half", "group_l1", "none"] = "l_half"
    form: Literal["smoothed", "proximal"] = "smoothed"
    smoothing: Annotated[float, Field(gt=0)] = 1e-3
    strength: Annotated[float, Field(ge=0)] = 3e-5
    prune_strength: Annotated[float, Field(ge=0)] | Literal["auto"] = 1e-5
    recover_strength: Annotated[float, Field(ge=0)] = 0.0
    ramp: Share | Literal[0] = 0
    by_weight: dict[str, Annotated[float, Field(ge=0)]] = {}


class OptimizerSection(_Section):
    """How weights move."""

    name: Literal["adam", "sgd"] = "adam"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch: Annotated[int, Field(ge=1)] = 128
    precision: Literal["float32", "bfloat16", "float16"] = "float32"


class LossSection(_Section):
    """What is minimised: a loss against labels, and the distance to the dense model's outputs.

    ``name`` is ``auto`` (cross-entropy for class numbers, mse for floats), ``cross_entropy``,
    ``mse`` or ``module:function`` (outputs, labels -> scalar). ``distill`` is the share of the
    distance to the dense model; without labels it is all.
    """

    name: str = "auto"
    distill: Annotated[float, Field(ge=0, le=1)] = 0.7
    temperature: Annotated[float, Field(gt=0)] = 2.0


class FinetuneSection(_Section):
    """How ``finetune`` trains; the target is the recipe's own, as a compression rate.

    ``saliency`` says what a weight is worth: ``magnitude``, ``lamp`` (Lee et al. 2021) or
    ``fisher`` (w^2 sqrt(E[g^2]), from the moments that the optimizer keeps; for SGD they are kept
    beside it). Masks are drawn anew every ``prune_every`` steps on the ``schedule``, over all
    weights together, or by weight where a plan is given. ``keep_zeros``: zeros of the model stay.
    ``validation`` and ``held_out`` are shares of the data.
    """

    phases: PhaseSection = PhaseSection()
    cycles: Annotated[int, Field(ge=1, le=1000)] = 1
    penalty: PenaltySection = PenaltySection()
    optimizer: OptimizerSection = OptimizerSection()
    loss: LossSection = LossSection()
    saliency: Literal["magnitude", "lamp", "fisher"] = "fisher"
    schedule: Literal["cubic", "log_linear"] = "log_linear"
    prune_every: Annotated[int, Field(ge=1)] = 47
    keep_zeros: bool = True
    augment: str | None = None
    batch_norm: Literal["fixed", "train"] = "fixed"
    dropout: bool = False
    validation: Share = 0.1
    held_out: Share = 0.1
    patience: Annotated[int, Field(ge=1)] | None = None
    checkpoint_every: Annotated[int, Field(ge=1)] = 1000

    @model_validator(mode="after")
    def _leaves_some(self) -> FinetuneSection:
        if self.validation + self.held_out >= 1:
            msg = "validation and held_out together must leave data to train on (be below 1)"
            raise ValueError(msg)
        return self


class Recipe(_Section):
    """The whole recipe of ``compress``; every field has a default.

    ``max_drop`` is absolute (0.01 = one point of accuracy); ``target`` as in :func:`parse_target`.
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

    @model_validator(mode="after")
    def _varies_what_can_be(self) -> Recipe:
        for name, values in self.search.vary.items():
            if name not in VARIABLE:
                msg = f"search.vary: '{name}' cannot be searched; choose of {', '.join(VARIABLE)}"
                raise ValueError(msg)
            if len(set(values)) < len(values):
                msg = f"search.vary: '{name}' lists a value twice"
                raise ValueError(msg)
            for value in values:
                _with_pruning(self, {name: value})
        return self

    def variants(self) -> tuple[Recipe, ...]:
        """A recipe for each combination of the values that ``search.vary`` lists, the last running fastest.

        Without such values the recipe itself.
        """
        names = list(self.search.vary)
        return tuple(
            _with_pruning(self, dict(zip(names, values, strict=True)))
            for values in itertools.product(*self.search.vary.values())
        )

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
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _with_pruning(recipe: Recipe, values: dict[str, Any]) -> Recipe:
    """A recipe with other values of fields of its pruning, by dotted name."""
    fields = recipe.prune.model_dump() | {name.split(".")[1]: values[name] for name in values}
    return recipe.model_copy(update={"prune": PruneSection.model_validate(fields)})


def load_recipe(path: Path | None, overrides: dict[str, Any]) -> Recipe:
    """A recipe from a YAML file (or the defaults), with options put over it.

    Args:
        path: of the YAML file, or None.
        overrides: values by dotted field, ``{"search.trials": 50}``; None means "not given".

    Raises:
        RecipeError: naming the file and field, the value found and what is allowed.
    """
    fields = read_yaml(path) if path else {}
    label = f"'{path}'" if path else "the recipe"
    for dotted, value in overrides.items():
        if value is not None:
            put(fields, dotted, value, label)
    take_marks(fields, VARIABLE, label)
    try:
        recipe = Recipe.model_validate(fields)
    except ValidationError as error:
        msg = f"{label}: {complaint(error, Recipe)}"
        raise RecipeError(msg) from error
    if recipe.target is not None:
        parse_target(recipe.target)
    return recipe


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
