"""Plans that need no trial: allocations of a total sparsity by rule, as candidates of a space.

They are where controllers start, and the baselines that they have to beat.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from passes.allocation import by_loss, erk, global_threshold, uniform
from passes.curves import Curve, losses_of
from passes.masks import keep_count
from passes.saliency import lamp, magnitude

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from onnxprune.search.database import LevelDatabase
    from onnxprune.search.problem import Problem
    from onnxprune.search.space import Levels, Space
    from passes.outputs import OutputError
    from passes.weights import Weight

Rule = Literal["loss", "lamp", "erk", "global", "uniform"]
RULES: tuple[Rule, ...] = get_args(Rule)

START_RATES = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
"""Compression rates at which each rule's plan is tried before a controller proposes."""

START_RULES: tuple[Rule, ...] = ("loss", "lamp", "erk")

PROBED_SPARSITY = 0.83
"""Where one weight alone is pruned to see how much its error matters."""


class Plans:
    """The rules' plans for one space.

    Args:
        weights: of the space.
        space: whose levels plans are rounded to.
        losses: by weight, what each level costs the model (level 0 first), for ``loss``; see
            :func:`level_losses`. None leaves that rule out.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        space: Space,
        losses: Mapping[str, NDArray[np.float64]] | None,
    ) -> None:
        self._weights, self._space, self._losses = tuple(weights), space, losses
        self._elements = {weight.name: weight.elements for weight in weights}
        self._scores: dict[str, dict[str, NDArray[np.floating]]] = {}

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that can be asked for."""
        return tuple(rule for rule in RULES if rule != "loss" or self._losses is not None)

    def at(self, rule: Rule, sparsity: float) -> Levels:
        """The plan of a rule at a total sparsity, rounded to the space's levels."""
        return self._space.nearest(self._allocation(rule, sparsity))

    def within(self, rule: Rule, budget: float) -> Levels:
        """The plan of a rule that costs at most ``budget``, and little less."""
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            if self._space.cost(self.at(rule, middle)) > budget:
                low = middle
            else:
                high = middle
        return self._space.within(self.at(rule, high), budget)

    def starts(self, problem: Problem) -> tuple[Levels, ...]:
        """Where controllers begin: each of :data:`START_RULES`, at the budget or from mild to hard."""
        rules = [rule for rule in START_RULES if rule in self.rules]
        if problem.objective == "drop" and problem.budget is not None:
            plans = [self.within(rule, problem.budget) for rule in (*rules, "uniform")]
        else:
            plans = [self.at(rule, 1 - 1 / rate) for rate in START_RATES for rule in rules]
        return tuple(plan for plan in dict.fromkeys(plans) if any(plan))

    def _allocation(self, rule: Rule, sparsity: float) -> dict[str, int]:
        if rule == "uniform":
            return uniform(self._elements, sparsity)
        if rule == "erk":
            return erk({w.name: w.fans for w in self._weights}, sparsity)
        if rule == "loss":
            return self._by_loss(sparsity)
        if rule not in self._scores:
            score = lamp if rule == "lamp" else magnitude
            self._scores[rule] = {w.name: score(w.matrices()) for w in self._weights}
        return global_threshold(self._scores[rule], sparsity)

    def _by_loss(self, sparsity: float) -> dict[str, int]:
        assert self._losses is not None
        keeps = {
            name: np.array(list(dict.fromkeys(counts)))
            for variable in self._space.variables
            for name, counts in variable.keeps.items()
        }
        # Losses begin with the dense level, which rules and N:M patterns take away.
        losses = {name: self._losses[name][-len(counts) :] for name, counts in keeps.items()}
        total = min(
            keep_count(sum(self._elements.values()), sparsity),
            sum(int(counts[0]) for counts in keeps.values()),
        )
        return by_loss(keeps, losses, total)


def level_losses(
    weights: Sequence[Weight],
    database: LevelDatabase,
    output_error: OutputError,
    progress: Callable[[int, int], None],
) -> dict[str, NDArray[np.float64]]:
    """What each level of each weight costs the model; see :func:`passes.curves.losses_of`."""
    curves = {}
    for weight in weights:
        entry = database.entries[weight.name]
        keeps = np.array([weight.elements, *entry.keeps])
        aim = weight.elements * (1 - PROBED_SPARSITY)
        probed = int(np.abs(keeps - aim).argmin())
        probe = database.constants({weight.name: int(keeps[probed])})
        errors = np.array([0.0, *entry.errors])
        curves[weight.name] = Curve(keeps, errors, keeps.astype(np.float64), probe, probed)

    def sensitivity_of(constants: Mapping[str, NDArray[Any]]) -> float | None:
        return output_error(constants) if output_error.replaces(constants) else None

    return losses_of(curves, sensitivity_of, progress)
