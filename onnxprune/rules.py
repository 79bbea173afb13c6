"""Rules of a recipe: what holds for which weights, by node-name pattern and operator type.

Rules are read in order, and of those that match a weight the last one that says something about a
field decides that field. So the first rule of a list holds the defaults, and later ones the
exceptions; ``exclude: false`` takes back what an earlier rule excluded.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from onnxprune.errors import RecipeError
from onnxprune.pattern_text import read_pattern
from onnxprune.selection import select
from passes.masks import keep_count
from passes.patterns import NM, Pattern, Unstructured, parse_pattern
from passes.weights import Collection, Skipped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from onnxprune.recipe import Recipe
    from passes.weights import Weight

NEAR = 0.4
"""How alike a name must be to be offered in place of a pattern that matches nothing."""


def checked_pattern(text: str) -> str:
    """The name of a pattern, a memory's bursts as their bytes.

    Raises:
        ValueError: when :func:`~onnxprune.pattern_text.read_pattern` cannot read it.
    """
    return read_pattern(text).name


class Rule(BaseModel):
    """What holds for the weights that some nodes read.

    ``match`` is the name of a node or weight, or a pattern of names as shells have them (``*``, also
    across ``/``, ``?``, ``[...]``); ``op_types`` are operators, all when left out. A weight is meant
    when any node that reads it fits both. ``sparsity`` fixes its share of zeros, ``pattern`` the shape
    of its mask, ``exclude`` leaves it dense; what is left out is left to other rules.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Annotated[str, Field(min_length=1)] = "*"
    op_types: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    sparsity: Annotated[float, Field(ge=0, le=1)] | None = None
    pattern: str | None = None
    exclude: bool | None = None

    @field_validator("pattern")
    @classmethod
    def _known(cls, text: str | None) -> str | None:
        return None if text is None else checked_pattern(text)

    @model_validator(mode="after")
    def _says_something(self) -> Rule:
        if self.sparsity is None and self.pattern is None and self.exclude is None:
            msg = "it says nothing; give it a sparsity, a pattern or exclude"
            raise ValueError(msg)
        return self

    def applies(self, weight: Weight) -> bool:
        """Whether any node that reads the weight fits name and operator."""
        return any(
            self._names(weight.name, consumer.node)
            and (self.op_types is None or consumer.op_type in self.op_types)
            for consumer in weight.consumers
        )

    def _names(self, *names: str) -> bool:
        return any(name == self.match or fnmatchcase(name, self.match) for name in names)


@dataclass(frozen=True)
class Ruled:
    """What a recipe makes of a model's weights.

    Attributes:
        collection: what is left to prune; the others are in ``skipped`` with their reason.
        keep: how many elements each weight keeps whose sparsity a rule fixes, by name.
        patterns: the shape of each weight's mask, fitted to its kernel, by name.
    """

    collection: Collection
    keep: Mapping[str, int] = field(default_factory=dict)
    patterns: Mapping[str, Pattern] = field(default_factory=dict)

    @property
    def free(self) -> tuple[Weight, ...]:
        """The weights whose sparsity no rule fixes."""
        return tuple(w for w in self.collection.weights if w.name not in self.keep)

    @property
    def structured(self) -> bool:
        """Whether any mask has a shape of its own."""
        return any(not isinstance(pattern, Unstructured) for pattern in self.patterns.values())

    def most(self, weight: Weight) -> int:
        """The most elements that a weight may keep under its pattern."""
        groups, rows, columns = weight.layout.matrix_shape
        return groups * self.patterns[weight.name].most(rows, columns)


def apply_rules(collection: Collection, recipe: Recipe) -> Ruled:
    """Select weights as a recipe's ``prune`` section and its rules say, and settle what holds for each.

    Raises:
        RecipeError: for a rule that matches no weight, a node or operator that reads none, or a
            sparsity that a weight's pattern rules out.
    """
    for number, rule in enumerate(recipe.rules):
        if not any(rule.applies(weight) for weight in collection.weights):
            raise _matches_nothing(number, rule, collection)
    section = recipe.prune
    selected = select(collection, section.nodes_to_exclude, section.op_types_to_prune)
    kept, skipped, keep, patterns = [], list(selected.skipped), {}, {}
    for weight in selected.weights:
        excluded = _last(recipe.rules, weight, "exclude")
        if excluded is not None and excluded[1]:
            nodes = tuple(consumer.node for consumer in weight.consumers)
            reason = f"excluded on request (rules.{excluded[0]})"
            skipped.append(Skipped(weight.name, nodes, reason))
            continue
        kept.append(weight)
        shape = _last(recipe.rules, weight, "pattern")
        text = section.pattern if shape is None else shape[1]
        patterns[weight.name] = parse_pattern(text).fitted(weight.taps, weight.in_memory)
        fixed = _last(recipe.rules, weight, "sparsity")
        if fixed is not None:
            keep[weight.name] = _fixed(weight, patterns[weight.name], *fixed)
    return Ruled(Collection(tuple(kept), tuple(skipped)), keep, patterns)


def share_left(ruled: Ruled, sparsity: float) -> float:
    """The sparsity of the weights that no rule fixes at which all together come to ``sparsity``.

    Raises:
        RecipeError: when it is no number from 0 to 1, or the rules make it impossible.
    """
    if not 0 <= sparsity <= 1:  # NaN fails this too
        msg = f"sparsity must lie between 0 and 1, found {sparsity}"
        raise RecipeError(msg)
    if not ruled.keep:
        return sparsity
    total, fixed = ruled.collection.elements, sum(ruled.keep.values())
    free = sum(weight.elements for weight in ruled.free)
    left = keep_count(total, sparsity) - fixed
    if not 0 <= left <= free:
        low, high = 1 - (fixed + free) / total, 1 - fixed / total
        msg = (
            f"a total sparsity of {sparsity} cannot be met: with what the rules fix, it comes to "
            f"{low:.4g} to {high:.4g}; change the rules or leave the total out"
        )
        raise RecipeError(msg)
    return 1 - left / free if free else 0.0


def _last(rules: Sequence[Rule], weight: Weight, name: str) -> tuple[int, Any] | None:
    """Number and value of the last rule that applies and says something about a field."""
    found = None
    for number, rule in enumerate(rules):
        value = getattr(rule, name)
        if value is not None and rule.applies(weight):
            found = number, value
    return found


def _fixed(weight: Weight, pattern: Pattern, number: int, sparsity: float) -> int:
    if isinstance(pattern, NM) and sparsity < 1 - pattern.n / pattern.m:
        msg = (
            f"rules.{number}: a sparsity of {sparsity} is not to be had for '{weight.name}', whose pattern "
            f"{pattern.name} leaves at least {1 - pattern.n / pattern.m:.4g} zero; ask for that or more"
        )
        raise RecipeError(msg)
    return keep_count(weight.elements, sparsity)


def _matches_nothing(number: int, rule: Rule, collection: Collection) -> RecipeError:
    """What a rule that matches no weight may have meant."""
    anywhere = rule.model_copy(update={"op_types": None})
    named = [weight for weight in collection.weights if anywhere.applies(weight)]
    if rule.op_types is not None and (named or not collection.weights):
        found = sorted({c.op_type for weight in named for c in weight.consumers})
        asked = ", ".join(rule.op_types)
        return RecipeError(
            f"rules.{number}: what '{rule.match}' matches is read by {', '.join(found)}, not by {asked}"
        )
    for skipped in collection.skipped:
        if any(fnmatchcase(name, rule.match) for name in (skipped.name, *skipped.nodes)):
            return RecipeError(
                f"rules.{number}: '{rule.match}' matches only what cannot be pruned; "
                f"'{skipped.name}': {skipped.reason}"
            )
    names = {name for w in collection.weights for name in (w.name, *(c.node for c in w.consumers))}
    near = difflib.get_close_matches(rule.match.strip("*"), sorted(names), n=3, cutoff=NEAR)
    hint = f"near are {', '.join(map(repr, near))}" if near else "see `onnxprune inspect`"
    return RecipeError(
        f"rules.{number}: '{rule.match}' matches no node that reads a prunable weight, and no such weight; {hint}"
    )
