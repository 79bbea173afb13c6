"""Which weights share one decision: all by themselves, by name, or similar layers of deep models."""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from onnxprune.errors import RecipeError
from onnxprune.search.space import ladder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.rules import Ruled
    from passes.weights import Weight

MANY = 48
"""Models of more weights than this are grouped by themselves: no controller tells so many apart in some
hundred trials."""

Group = tuple[str, tuple["Weight", ...]]


def group_weights(ruled: Ruled, patterns: Sequence[str] | None) -> list[Group]:
    """Groups by name, in the order of their first weights.

    Weights whose sparsity a rule fixes decide nothing, and stay alone.

    Args:
        ruled: the weights in graph order, and what rules say of them.
        patterns: shell patterns over names of weights or nodes; what the same one matches first
            shares a decision, all else stays alone. None groups only models of more than
            :data:`MANY` weights: by operator and shape, runs of neighbours first, then all alike.

    Raises:
        RecipeError: for a pattern that matches nothing.
    """
    weights = ruled.collection.weights
    if patterns is not None:
        return _by_pattern(ruled, patterns)
    alone: list[Group] = [(weight.name, (weight,)) for weight in weights]
    if len(alone) <= MANY:
        return alone

    def kind(weight: Weight) -> object:
        if weight.name in ruled.keep:
            return weight.name
        op_types = tuple(consumer.op_type for consumer in weight.consumers)
        return op_types, weight.layout.shape, ruled.patterns[weight.name].name

    near = [tuple(run) for _, run in itertools.groupby(weights, kind)]
    if len(near) <= MANY:
        return [_named(run) for run in near]
    alike: dict[object, list[Weight]] = {}
    for weight in weights:
        alike.setdefault(kind(weight), []).append(weight)
    return [_named(tuple(members)) for members in alike.values()]


def levels_of(
    weights: Sequence[Weight], variants: Sequence[Ruled]
) -> tuple[dict[str, tuple[int, ...]], ...]:
    """How many elements each weight of a group may keep, by level, for each variant.

    One level where a rule fixes it; else the ladder, from all that a variant's pattern allows. All
    variants have as many levels: what one's pattern does not allow is what it allows at most.
    """
    if weights[0].name in variants[0].keep:
        return tuple({w.name: (ruled.keep[w.name],) for w in weights} for ruled in variants)
    rungs = ladder(*(max(ruled.most(weight) for ruled in variants) for weight in weights))
    return tuple(
        {
            weight.name: tuple(min(count, ruled.most(weight)) for count in counts)
            for weight, counts in zip(weights, rungs, strict=True)
        }
        for ruled in variants
    )


def _by_pattern(ruled: Ruled, patterns: Sequence[str]) -> list[Group]:
    members: dict[str, list[Weight]] = {}
    for weight in ruled.collection.weights:
        names = [weight.name, *(consumer.node for consumer in weight.consumers)]
        fixed = weight.name in ruled.keep
        found = (p for p in patterns if not fixed and any(fnmatchcase(n, p) for n in names))
        members.setdefault(next(found, weight.name), []).append(weight)
    for pattern in patterns:
        if pattern not in members:
            msg = f"search.groups: '{pattern}' matches no prunable weight; see `onnxprune inspect`"
            raise RecipeError(msg)
    return [(name, tuple(group)) for name, group in members.items()]


def _named(members: tuple[Weight, ...]) -> Group:
    first = members[0].name
    return (first if len(members) == 1 else f"{first} and {len(members) - 1} alike", members)
