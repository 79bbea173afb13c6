"""What each level of each weight costs, in the unit that the search is to reduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.search.space import Space, ladder
from passes.saliency import magnitude

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxprune.rules import Ruled
    from passes.patterns import Pattern
    from passes.weights import Weight

CostOf = Callable[["Weight", "NDArray[Any]"], float]
"""The cost of a weight whose array, in stored order, has been pruned."""

STRIDE = 4
"""Every fourth level is measured on the pruned array; those between are interpolated."""


def levels_of(weight: Weight, ruled: Ruled) -> tuple[int, ...]:
    """How many elements a weight may keep: one level where a rule fixes it, else all its pattern allows."""
    if weight.name in ruled.keep:
        return (ruled.keep[weight.name],)
    most = ruled.most(weight)
    steps = ladder(weight.elements)
    return steps if most == weight.elements else (most, *(keep for keep in steps if keep < most))


def elements_space(ruled: Ruled) -> Space:
    """The cost of a level is the number of elements that it keeps."""
    weights = ruled.collection.weights
    keeps = tuple(levels_of(weight, ruled) for weight in weights)
    costs = tuple(tuple(float(keep) for keep in levels) for levels in keeps)
    return Space(tuple(weight.name for weight in weights), keeps, costs)


def measured_space(ruled: Ruled, cost_of: CostOf, base_cost: float) -> Space:
    """The cost of a level is measured: the weight is pruned to it by magnitude and costed.

    Between measured levels cost is taken as linear in the number of elements kept. The figures in a
    report do not come from here; they are counted on what was written.
    """
    weights = ruled.collection.weights
    keeps = tuple(levels_of(weight, ruled) for weight in weights)
    costs = tuple(
        _level_costs(weight, ruled.patterns[weight.name], levels, cost_of)
        for weight, levels in zip(weights, keeps, strict=True)
    )
    return Space(tuple(weight.name for weight in weights), keeps, costs, base_cost)


def _level_costs(
    weight: Weight, pattern: Pattern, levels: tuple[int, ...], cost_of: CostOf
) -> tuple[float, ...]:
    scores = magnitude(weight.matrices())
    chosen = sorted({*range(0, len(levels), STRIDE), len(levels) - 1})
    measured = [
        cost_of(weight, weight.masked(pattern.mask(scores, levels[index]))) for index in chosen
    ]
    kept = np.array([levels[index] for index in chosen])
    costs = np.interp(np.array(levels), kept[::-1], np.array(measured)[::-1])
    # A code may cost a little more where less is kept; a search wants more pruning never to cost more.
    falling = np.minimum.accumulate(costs)
    return tuple(float(cost) for cost in falling)
