"""A candidate as an episode: one decision for each variable, in the order of the graph.

The setting is that of AMC (He et al. 2018, "AMC: AutoML for Model Compression and Acceleration on Mobile
Devices"): at each layer an agent sees the layer, what has been spent so far and what is left, and says
how much of the layer to prune. Episodes are walked many at once, as arrays.

Notations
---------
M  episodes walked at once.
D  decisions, so steps of an episode: hyper-parameters first, where they are searched, then variables.
O  numbers that an observation holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, final, get_args

import numpy as np

from onnxprune.search.space import LEAST_DENSITY, STEPS_PER_HALVING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxprune.search.problem import Problem
    from onnxprune.search.space import Levels

Scale = Literal["sparsity", "ladder", "correction"]
SCALES: tuple[Scale, ...] = get_args(Scale)

SPAN = 2.0 * STEPS_PER_HALVING
"""A correction moves a variable by up to so many levels: two halvings of its density."""


@dataclass(frozen=True)
class Walk:
    """What an agent sees and what its actions mean.

    Attributes:
        problem: the variables, and their features where it has some.
        scale: what an action between 0 and 1 means. ``sparsity``: that of the variable. ``ladder``:
            the share of its levels, whose densities fall by a constant factor. ``correction``: by how
            much its level moves from that of ``base``, up to :data:`SPAN` either way; 0.5 not at all.
            For a hyper-parameter it is always the place in the row of its values.
        base: the plan to correct; with a budget it is shifted there first.
    """

    problem: Problem
    scale: Scale
    base: Levels

    @property
    def width(self) -> int:
        """Numbers in an observation, O."""
        size: int = self.static.shape[1] + 5 + self.problem.space.dimensions
        return size

    @property
    def neutral(self) -> float:
        """The action that leaves a variable as it is without the agent."""
        return 0.5 if self.scale == "correction" else 0.0

    @cached_property
    def static(self) -> NDArray[np.float64]:
        """What is known of each variable beforehand, ``(D, .)``, between 0 and 1."""
        space = self.problem.space
        dense = np.array([costs[0, 0] for costs in space.costs])
        features = self.problem.features or [()] * space.dimensions
        known = np.column_stack(
            [
                (np.arange(space.dimensions) + 0.5) / space.dimensions,
                dense / max(float(dense.sum()), 1e-12),
                np.log1p(dense) / max(float(np.log1p(dense).max(initial=0)), 1e-12),
                np.array(self.base) / np.maximum(space.tops, 1),
                np.array(features, np.float64).reshape(space.dimensions, -1),
            ]
        )
        return known.clip(0, 1)

    def begin(self, budgets: NDArray[np.float64]) -> Episodes:
        """New episodes.

        Args:
            budgets: ``(M,)``, of the whole cost; infinity where there is none.
        """
        return Episodes(self, budgets)

    def follow(
        self, levels: NDArray[np.int64], budgets: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What an agent would have seen and done on its way to given candidates ``(M, D)``.

        Returns:
            Observations ``(M, D, O)`` and actions ``(M, D)``, float32.
        """
        episodes = self.begin(budgets)
        seen = []
        for column in levels.T:
            seen.append(episodes.observe())
            episodes.decide(column.astype(np.float64))
        return np.stack(seen, axis=1), episodes.actions.astype(np.float32)


@final
class Episodes:
    """Episodes at the same step.

    Attributes:
        step: the decision to take next.
        levels: float64 ``(M, D)``; chosen up to ``step``, zero from there.
        actions: float64 ``(M, D)``; taken up to ``step``, neutral from there.
    """

    def __init__(self, walk: Walk, budgets: NDArray[np.float64]) -> None:
        space = walk.problem.space
        count = len(budgets)
        dense, least = space.cost(space.dense), space.least_cost
        self.step = 0
        self._space = space
        self._variants = np.zeros(count, dtype=np.int64)
        self.levels = np.zeros((count, space.dimensions))
        self.actions = np.full((count, space.dimensions), walk.neutral)
        self._walk = walk
        self._dense = max(dense, 1e-12)
        self._budgets = np.minimum(budgets, dense)
        self._goal = np.log(dense / np.maximum(self._budgets, 1e-12)) / max(
            np.log(dense / max(least, 1e-12)), 1e-12
        )
        self._spent = np.full(count, space.base_cost)
        self._base = np.tile(np.array(walk.base, np.float64), (count, 1))
        bounded = np.isfinite(budgets)
        if walk.scale == "correction" and bounded.any():
            self._base[bounded] = space.within_many(self._base[bounded], budgets[bounded])

    def observe(self) -> NDArray[np.float32]:
        """What is seen before :attr:`step`, or after the last one; float32 ``(M, O)``, 0 to 1."""
        count, dimensions = self.levels.shape
        static = self._walk.static[min(self.step, dimensions - 1)]
        later = self._space.costs[self.step :]
        rest = sum((costs[self._variants, 0] for costs in later), np.zeros(count))
        previous = self.actions[:, self.step - 1] if self.step else np.full(count, 0.5)
        seen = np.column_stack(
            [
                np.broadcast_to(static, (count, len(static))),
                self._spent / self._dense,
                rest / self._dense,
                (self._budgets - self._spent) / self._dense,
                previous,
                self._goal,
                self.actions,
            ]
        )
        return seen.clip(0, 1).astype(np.float32)

    def levels_of(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The real-valued levels of the next decision that actions ``(M,)`` stand for."""
        top = float(self._space.tops[self.step])
        if self._walk.scale == "ladder" or self._choosing:
            return actions * top
        if self._walk.scale == "sparsity":
            density = np.maximum(1 - actions, LEAST_DENSITY)
            return np.asarray((-STEPS_PER_HALVING * np.log2(density)).clip(0, top))
        return np.asarray((self._base[:, self.step] + SPAN * (2 * actions - 1)).clip(0, top))

    def actions_of(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """The inverse of :meth:`levels_of`, clipped to 0 .. 1."""
        if self._walk.scale == "ladder" or self._choosing:
            return levels / max(1.0, float(self._space.tops[self.step]))
        if self._walk.scale == "sparsity":
            return np.asarray(1 - 2.0 ** (-levels / STEPS_PER_HALVING))
        moved = levels - self._base[:, self.step]
        return np.asarray((0.5 + moved / (2 * SPAN)).clip(0, 1))

    def least_level(self, episode: int) -> int:
        """The lowest next level at which an episode can still keep its budget: AMC's clamp.

        The last level comes back where nothing can keep it. Hyper-parameters are not clamped.
        """
        if self._choosing:
            return 0
        costs, variant = self._space.costs, self._variants[episode]
        rest = sum(float(later[variant, -1]) for later in costs[self.step + 1 :])
        left = self._budgets[episode] - self._spent[episode] - rest
        fits = costs[self.step][variant] <= left + 1e-9 * self._dense
        return int(fits.argmax()) if fits.any() else len(fits) - 1

    def decide(self, levels: NDArray[np.float64]) -> None:
        """Choose levels ``(M,)`` of the next decision, real-valued, and go on."""
        costs = self._space.costs[self.step]
        self.levels[:, self.step] = levels
        self.actions[:, self.step] = self.actions_of(levels)
        chosen = np.rint(levels).astype(np.int64).clip(0, costs.shape[1] - 1)
        if self._choosing and len(costs) > 1:  # choices alone make no variants
            self._variants = self._variants * costs.shape[1] + chosen
        self._spent = self._spent + costs[self._variants, chosen]
        self.step += 1

    @property
    def _choosing(self) -> bool:
        """Whether the next decision is a hyper-parameter's."""
        return self.step < len(self._space.choices)
