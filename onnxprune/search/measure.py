"""What each level of each variable costs, in the unit that the search is to reduce."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.search.space import Space, Variable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxprune.costs import CostOf
    from onnxprune.search.database import LevelDatabase
    from onnxprune.search.groups import Group
    from passes.weights import Weight


def measured_space(
    groups: Sequence[Group],
    keeps: Mapping[str, tuple[int, ...]],
    database: LevelDatabase,
    cost_of: CostOf | None,
    base_cost: float,
) -> Space:
    """The space of all levels of a database, each level's cost measured on its array.

    The figures in a report do not come from here; they are counted on what was written.

    Args:
        groups: the variables and their weights.
        keeps: by weight, the elements kept at each level, falling.
        database: built for these.
        cost_of: a weight's cost; None counts the elements that the masks keep.
        base_cost: of the model beside its weights.
    """
    variables = []
    for name, weights in groups:
        costs = sum(_costs(weight, keeps[weight.name], database, cost_of) for weight in weights)
        # A code may cost a little more where less is kept; a search wants more pruning never to cost more.
        falling = np.minimum.accumulate(costs)
        members = {weight.name: keeps[weight.name] for weight in weights}
        variables.append(Variable(name, members, tuple(float(cost) for cost in falling)))
    return Space(tuple(variables), base_cost)


def _costs(
    weight: Weight, keeps: Sequence[int], database: LevelDatabase, cost_of: CostOf | None
) -> NDArray[np.float64]:
    costs = []
    for keep in keeps:
        if cost_of is None:
            costs.append(float(database.kept(weight.name, keep)))
        else:
            array = weight.array() if keep == weight.elements else database.array(weight.name, keep)
            costs.append(cost_of(weight, array))
    return np.array(costs)
