"""What each level of each weight costs, in the unit that the search is to reduce."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.search.space import Space, ladder
from passes.masks import keep_largest
from passes.saliency import magnitude

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.weights import Weight

CostOf = Callable[["Weight", "NDArray[Any]"], float]
"""The cost of a weight whose array, in stored order, has been pruned."""

STRIDE = 4
"""Every fourth level is measured on the pruned array; those between are interpolated."""


def elements_space(weights: Sequence[Weight]) -> Space:
    """The cost of a level is the number of elements that it keeps."""
    keeps = tuple(ladder(weight.elements) for weight in weights)
    costs = tuple(tuple(float(keep) for keep in levels) for levels in keeps)
    return Space(tuple(weight.name for weight in weights), keeps, costs)


def measured_space(weights: Sequence[Weight], cost_of: CostOf, base_cost: float) -> Space:
    """The cost of a level is measured: the weight is pruned to it by magnitude and costed.

    Between measured levels cost is taken as linear in the number of elements kept. The figures in a
    report do not come from here; they are counted on what was written.
    """
    keeps = tuple(ladder(weight.elements) for weight in weights)
    costs = tuple(
        _level_costs(weight, levels, cost_of) for weight, levels in zip(weights, keeps, strict=True)
    )
    return Space(tuple(weight.name for weight in weights), keeps, costs, base_cost)


def _level_costs(weight: Weight, levels: tuple[int, ...], cost_of: CostOf) -> tuple[float, ...]:
    scores = magnitude(weight.matrices())
    chosen = sorted({*range(0, len(levels), STRIDE), len(levels) - 1})
    measured = [
        cost_of(weight, weight.masked(keep_largest(scores, levels[index]))) for index in chosen
    ]
    kept = np.array([levels[index] for index in chosen])
    costs = np.interp(np.array(levels), kept[::-1], np.array(measured)[::-1])
    # A code may cost a little more where less is kept; a search wants more pruning never to cost more.
    falling = np.minimum.accumulate(costs)
    return tuple(float(cost) for cost in falling)
