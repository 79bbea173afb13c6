"""What is searched: a level of density for each weight, and what a choice of levels costs.

Notations
---------
D     number of weights (decision variables); tied consumers count once.
L     number of levels on the ladder; level 0 keeps all, each further level keeps less.
levels  a candidate: int ``(D,)``, or ``(M, D)`` for M candidates at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STEPS_PER_HALVING = 8
LEAST_DENSITY = 1 / 1024

Levels = tuple[int, ...]


def ladder(elements: int) -> tuple[int, ...]:
    """How many of ``elements`` weights each level keeps, from all of them downwards.

    Densities fall by a factor of 2^(1/8) a level, down to 1/1024 but never below one weight;
    levels that would keep equally many are merged.
    """
    count = int(np.log2(1 / LEAST_DENSITY) * STEPS_PER_HALVING) + 1
    densities = 2.0 ** (-np.arange(count) / STEPS_PER_HALVING)
    keeps = np.maximum(1, np.round(elements * densities).astype(np.int64))
    return tuple(int(keep) for keep in np.unique(keeps)[::-1])


@dataclass(frozen=True)
class Space:
    """The decision variables.

    Attributes:
        names: of the weights.
        keeps: by weight, how many elements each level keeps; level 0 keeps all, or all that a rule
            of the recipe allows.
        costs: by weight, what each level costs (in the unit of the measure); falls with the level.
        base_cost: what the model costs beside its weights.
    """

    names: tuple[str, ...]
    keeps: tuple[tuple[int, ...], ...]
    costs: tuple[tuple[float, ...], ...]
    base_cost: float = 0.0

    @property
    def dimensions(self) -> int:
        """Number of weights, D."""
        return len(self.names)

    @property
    def tops(self) -> NDArray[np.int64]:
        """The highest level of each weight, int64 ``(D,)``."""
        return np.array([len(keeps) - 1 for keeps in self.keeps], dtype=np.int64)

    def cost(self, levels: Levels) -> float:
        """Total cost of one candidate."""
        return self.base_cost + sum(
            costs[level] for costs, level in zip(self.costs, levels, strict=True)
        )

    def cost_many(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Total costs of candidates ``(M, D)``; float64 ``(M,)``."""
        total = np.full(len(levels), self.base_cost)
        for column, costs in enumerate(self.costs):
            total += np.asarray(costs)[levels[:, column]]
        return total

    def keep(self, levels: Levels) -> dict[str, int]:
        """How many elements each weight keeps, by name."""
        return {
            name: keeps[level]
            for name, keeps, level in zip(self.names, self.keeps, levels, strict=True)
        }

    def nearest(self, keep: dict[str, int]) -> Levels:
        """The candidate nearest to an allocation (by density ratio)."""
        return tuple(
            int(np.abs(np.log(np.maximum(1, keeps)) - np.log(max(1, keep[name]))).argmin())
            for name, keeps in zip(self.names, self.keeps, strict=True)
        )

    def unit(self, levels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Candidates ``(M, D)`` scaled to 0 (dense) .. 1 (last level) in each dimension."""
        scaled: NDArray[np.float64] = levels / np.maximum(self.tops, 1)
        return scaled
