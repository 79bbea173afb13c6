"""What is searched: a level of density for each variable, and what a choice of levels costs.

A variable is a weight, or a group of similar weights that share one density. Hyper-parameters of pruning
may be decided too, each once for the whole model: then every combination of them, a variant, has levels
of its own.

Notations
---------
C     number of choices, the hyper-parameters; mostly none.
D     number of decisions: the choices, then the variables; tied consumers of a weight count once.
V     number of variants, the product of the choices' values.
L     number of levels on a variable's ladder; level 0 keeps all, each further level keeps less.
levels  a candidate: int ``(D,)``, or ``(M, D)`` for M candidates at once; a choice's level is the
      index of its value.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

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
class Choice:
    """A hyper-parameter of pruning that is decided with the levels.

    Attributes:
        name: the recipe's field, for instance ``prune.damping``.
        values: to choose from.
    """

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Space:
    """The decisions.

    Attributes:
        variables: in the order of the model's graph; those of the first variant.
        base_cost: what the model costs beside its weights.
        choices: hyper-parameters that are decided too.
        others: the variables of the other variants, the last choice running fastest; same names and
            numbers of levels as ``variables``.
    """

    variables: tuple[Variable, ...]
    base_cost: float = 0.0
    choices: tuple[Choice, ...] = ()
    others: tuple[tuple[Variable, ...], ...] = ()

    @property
    def dimensions(self) -> int:
        """Number of decisions, D."""
        return len(self.choices) + len(self.variables)

    @cached_property
    def tops(self) -> NDArray[np.int64]:
        """The highest level of each decision, int64 ``(D,)``."""
        choices = [len(choice.values) - 1 for choice in self.choices]
        return np.array([*choices, *(v.top for v in self.variables)], dtype=np.int64)

    @cached_property
    def costs(self) -> tuple[NDArray[np.float64], ...]:
        """By decision, what its levels cost in each variant, float64 ``(V, L)``; choices cost nothing."""
        variants = (self.variables, *self.others)
        free = [np.zeros((len(variants), len(choice.values))) for choice in self.choices]
        columns = zip(*variants, strict=True)
        return (*free, *(np.array([variable.costs for variable in same]) for same in columns))

    @property
    def least_cost(self) -> float:
        """The cost where everything is at its last level, in the variant where that is least."""
        last = sum((costs[:, -1] for costs in self.costs), np.zeros(1))
        return self.base_cost + float(last.min())

    @property
    def dense(self) -> Levels:
        """The candidate that keeps all that may be kept."""
        return (0,) * self.dimensions

    def cost(self, levels: Levels) -> float:
        """Total cost of one candidate."""
        return float(self.cost_many(np.array([levels], dtype=np.int64))[0])

    def cost_many(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Total costs of candidates ``(M, D)``; float64 ``(M,)``."""
        total, variants = np.full(len(levels), self.base_cost), self.variants(levels)
        for column, costs in enumerate(self.costs):
            total += costs[variants, levels[:, column]]
        return total

    def variants(self, levels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which variants candidates ``(M, D)`` choose; int64 ``(M,)``. Without variables there is one."""
        chosen = np.zeros(len(levels), dtype=np.int64)
        if not self.variables:
            return chosen
        for column, choice in enumerate(self.choices):
            chosen = chosen * len(choice.values) + levels[:, column]
        return chosen

    def variant(self, levels: Levels) -> int:
        """Which variant one candidate chooses."""
        return int(self.variants(np.array([levels], dtype=np.int64))[0])

    def values(self, levels: Levels) -> dict[str, Any]:
        """The hyper-parameters that a candidate chooses, by name."""
        return {
            choice.name: choice.values[level]
            for choice, level in zip(self.choices, levels, strict=False)
        }

    def keep(self, levels: Levels) -> dict[str, int]:
        """How many elements each weight keeps, by name."""
        variables = (self.variables, *self.others)[self.variant(levels)]
        return {
            name: keeps[level]
            for variable, level in zip(variables, levels[len(self.choices) :], strict=True)
            for name, keeps in variable.keeps.items()
        }

    def nearest(self, keep: Mapping[str, int]) -> Levels:
        """The candidate nearest to an allocation (by density ratio, over a variable's weights).

        It chooses the first variant.
        """
        return (0,) * len(self.choices) + tuple(
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
        which fills the budget finely. Where even the last levels cost more, those come back. Choices
        are rounded, and stay.

        Args:
            levels: real-valued, ``(M, D)``.
            budgets: ``(M,)`` in the unit of the costs, ``base_cost`` included.

        Returns:
            int64 ``(M, D)``.
        """
        # Fractional parts that differ by variable, so that a shift moves one of them at a time.
        first = len(self.choices)
        chosen = np.rint(levels[:, :first])
        aim = levels[:, first:] + np.arange(len(self.variables)) * 0.618033988749895 % 1.0
        low = -aim.max(axis=1, initial=0.0) - 1  # even the dense candidate
        high = (self.tops[first:] - aim).max(axis=1, initial=0.0) + 1  # even the last levels

        def shifted(shift: NDArray[np.float64]) -> NDArray[np.int64]:
            moved = np.hstack([chosen, np.floor(aim + shift[:, None])]).astype(np.int64)
            clipped: NDArray[np.int64] = np.clip(moved, 0, self.tops)
            return clipped

        for _ in range(32):
            shift = (low + high) / 2
            fits = self.cost_many(shifted(shift)) <= budgets
            low, high = np.where(fits, low, shift), np.where(fits, shift, high)
        return shifted(high)

    def unit(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Candidates ``(M, D)`` scaled to 0 (dense) .. 1 (last level) in each dimension."""
        scaled: NDArray[np.float64] = levels / np.maximum(self.tops, 1)
        return scaled
