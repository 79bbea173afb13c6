"""What is searched: a level of density for each variable, and what a choice of levels costs.

A variable is a weight, or a group of similar weights that share one density.

Notations
---------
D     number of variables; tied consumers of a weight count once.
L     number of levels on a variable's ladder; level 0 keeps all, each further level keeps less.
levels  a candidate: int ``(D,)``, or ``(M, D)`` for M candidates at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

STEPS_PER_HALVING = 4
LEAST_DENSITY = 1 / 256

Levels = tuple[int, ...]


def ladder(*elements: int) -> tuple[tuple[int, ...], ...]:
    """How many elements each weight of a variable keeps at each level, from all of them downwards.

    Densities fall by a factor of 2^(1/4) a level, down to 1/256 but never below one element; levels
    at which every weight would keep what it kept before are left out.

    Args:
        elements: sizes of the weights that share the levels.

    Returns:
        For each weight, what it keeps at each level; all of the same length.
    """
    count = int(np.log2(1 / LEAST_DENSITY) * STEPS_PER_HALVING) + 1
    densities = 2.0 ** (-np.arange(count) / STEPS_PER_HALVING)
    sizes = np.array(elements)[:, None]
    keeps = np.minimum(np.maximum(1, np.round(sizes * densities).astype(np.int64)), sizes)
    changed = np.concatenate([[True], (np.diff(keeps, axis=1) != 0).any(axis=0)])
    return tuple(tuple(row) for row in keeps[:, changed].tolist())


@dataclass(frozen=True)
class Variable:
    """One decision.

    Attributes:
        name: of the weight, or of the group.
        keeps: by weight, how many elements each level keeps; level 0 keeps all, or all that a rule
            of the recipe or the weight's pattern allows.
        costs: what each level costs (in the unit of the measure); never rises with the level.
    """

    name: str
    keeps: Mapping[str, tuple[int, ...]]
    costs: tuple[float, ...]

    @property
    def top(self) -> int:
        """The highest level."""
        return len(self.costs) - 1


@dataclass(frozen=True)
class Space:
    """The decision variables.

    Attributes:
        variables: in the order of the model's graph.
        base_cost: what the model costs beside its weights.
    """

    variables: tuple[Variable, ...]
    base_cost: float = 0.0

    @property
    def dimensions(self) -> int:
        """Number of variables, D."""
        return len(self.variables)

    @cached_property
    def tops(self) -> NDArray[np.int64]:
        """The highest level of each variable, int64 ``(D,)``."""
        return np.array([variable.top for variable in self.variables], dtype=np.int64)

    @property
    def dense(self) -> Levels:
        """The candidate that keeps all that may be kept."""
        return (0,) * self.dimensions

    def cost(self, levels: Levels) -> float:
        """Total cost of one candidate."""
        return self.base_cost + sum(
            variable.costs[level] for variable, level in zip(self.variables, levels, strict=True)
        )

    def cost_many(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Total costs of candidates ``(M, D)``; float64 ``(M,)``."""
        total = np.full(len(levels), self.base_cost)
        for column, variable in enumerate(self.variables):
            total += np.asarray(variable.costs)[levels[:, column]]
        return total

    def keep(self, levels: Levels) -> dict[str, int]:
        """How many elements each weight keeps, by name."""
        return {
            name: keeps[level]
            for variable, level in zip(self.variables, levels, strict=True)
            for name, keeps in variable.keeps.items()
        }

    def nearest(self, keep: Mapping[str, int]) -> Levels:
        """The candidate nearest to an allocation (by density ratio, over a variable's weights)."""
        return tuple(
            int(
                sum(
                    np.abs(np.log(np.maximum(1, keeps)) - np.log(max(1, keep[name]))) * keeps[0]
                    for name, keeps in variable.keeps.items()
                ).argmin()
            )
            for variable in self.variables
        )

    def within(self, levels: Sequence[float], budget: float) -> Levels:
        """:meth:`within_many` of one candidate."""
        [found] = self.within_many(np.array([levels], np.float64), np.array([budget])).tolist()
        return tuple(found)

    def within_many(
        self, levels: NDArray[np.float64], budgets: NDArray[np.float64]
    ) -> NDArray[np.int64]:
        """The candidates nearest to ``levels`` that cost at most their budgets, and little less.

        All levels of a candidate are shifted alike, up or down, and clipped to their ladders; so
        densities keep their proportions. Fractions of a level round up one variable after the other,
        which fills the budget finely. Where even the last levels cost more, those come back.

        Args:
            levels: real-valued, ``(M, D)``.
            budgets: ``(M,)`` in the unit of the costs, ``base_cost`` included.

        Returns:
            int64 ``(M, D)``.
        """
        # Fractional parts that differ by variable, so that a shift moves one of them at a time.
        aim = levels + np.arange(self.dimensions) * 0.618033988749895 % 1.0
        low = -aim.max(axis=1, initial=0.0) - 1  # even the dense candidate
        high = (self.tops - aim).max(axis=1, initial=0.0) + 1  # even the last levels

        def shifted(shift: NDArray[np.float64]) -> NDArray[np.int64]:
            moved: NDArray[np.int64] = np.floor(aim + shift[:, None]).astype(np.int64)
            return np.clip(moved, 0, self.tops)

        for _ in range(32):
            shift = (low + high) / 2
            fits = self.cost_many(shifted(shift)) <= budgets
            low, high = np.where(fits, low, shift), np.where(fits, shift, high)
        return shifted(high)

    def unit(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Candidates ``(M, D)`` scaled to 0 (dense) .. 1 (last level) in each dimension."""
        scaled: NDArray[np.float64] = levels / np.maximum(self.tops, 1)
        return scaled
