"""Which weights share one decision: all by themselves, by name, or similar layers of deep models."""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from passes.weights import Weight

MANY = 48
"""Models of more weights than this are grouped by themselves: no controller tells so many apart in some
hundred trials."""

Group = tuple[str, tuple["Weight", ...]]


def group_weights(weights: Sequence[Weight], patterns: Sequence[str] | None) -> list[Group]:
    """Groups by name, in the order of their first weights.

    Args:
        weights: in graph order.
        patterns: shell patterns over names of weights or nodes; what the same one matches first
            shares a decision, all else stays alone. None groups only models of more than
            :data:`MANY` weights: by operator and shape, runs of neighbours first, then all alike.

    Raises:
        RecipeError: for a pattern that matches nothing.
    """
    if patterns is not None:
        return _by_pattern(weights, patterns)
    alone: list[Group] = [(weight.name, (weight,)) for weight in weights]
    if len(alone) <= MANY:
        return alone
    near = [tuple(run) for _, run in itertools.groupby(weights, _kind)]
    if len(near) <= MANY:
        return [_named(run) for run in near]
    alike: dict[object, list[Weight]] = {}
    for weight in weights:
        alike.setdefault(_kind(weight), []).append(weight)
    return [_named(tuple(members)) for members in alike.values()]


def _by_pattern(weights: Sequence[Weight], patterns: Sequence[str]) -> list[Group]:
    members: dict[str, list[Weight]] = {}
    for weight in weights:
        names = [weight.name, *(consumer.node for consumer in weight.consumers)]
        found = (p for p in patterns if any(fnmatchcase(name, p) for name in names))
        members.setdefault(next(found, weight.name), []).append(weight)
    for pattern in patterns:
        if pattern not in members:
            msg = f"search.groups: '{pattern}' matches no prunable weight; see `onnxprune inspect`"
            raise RecipeError(msg)
    return [(name, tuple(group)) for name, group in members.items()]


def _kind(weight: Weight) -> object:
    return tuple(c.op_type for c in weight.consumers), weight.layout.shape


def _named(members: tuple[Weight, ...]) -> Group:
    first = members[0].name
    return (first if len(members) == 1 else f"{first} and {len(members) - 1} alike", members)
