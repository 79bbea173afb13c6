"""How many weights each tensor keeps: by a total sparsity, or within a budget of bytes or cycles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import RecipeError
from passes.allocation import by_loss, erk, global_threshold, least_loss, owl, uniform
from passes.curves import error_curve, losses_of, magnitude_curve
from passes.masks import keep_count
from passes.methods import SECOND_ORDER
from passes.saliency import lamp, magnitude, wanda

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from onnxprune.costs import Costs
    from onnxprune.one_shot import OneShot
    from onnxprune.progress import Progress
    from onnxprune.rules import Ruled
    from passes.courses import Courses
    from passes.curves import Curve
    from passes.layers import Layer
    from passes.moments import Moments
    from passes.weights import Weight

CURVE_POSITIONS = 8192
PROBE_SAMPLES, PROBE_NUMBERS = 128, 2**21
"""What is run to see how much a layer's error matters: a few samples say it where each is large."""

HALVINGS = 40


@dataclass(frozen=True)
class Allocator:
    """What an allocation looks at; statistics are gathered when first asked for.

    Attributes:
        ruled: what to share between, in which patterns, and what rules fix.
        courses: of the calibration data through the model; None where there are none.
        options: method and allocation among them.
        progress: as :func:`onnxprune.one_shot.prune_one_shot` has it.
        costs: how to count towards a budget; None where none is given.
    """

    ruled: Ruled
    courses: Courses | None
    options: OneShot
    progress: Progress
    costs: Costs | None = None

    @property
    def weights(self) -> tuple[Weight, ...]:
        """Those whose sparsity no rule fixes, which are shared between."""
        return self.ruled.free

    def share(self, sparsity: float) -> dict[str, int]:
        """Elements to keep of the free weights, by name, at a sparsity from 0 to 1 of all of them."""
        kind = self.options.chosen_allocation
        if kind == "loss":
            keeps = {name: curve.keeps for name, curve in self._curves.items()}
            return by_loss(keeps, self._losses, keep_count(sum(self._elements.values()), sparsity))
        if kind == "uniform":
            return uniform(self._elements, sparsity)
        if kind == "erk":
            return erk({weight.name: weight.fans for weight in self.weights}, sparsity)
        if kind == "owl":
            return owl(self._elements, self._scores, sparsity)
        return global_threshold(self._scores, sparsity)

    def within(self, budget: float) -> dict[str, int]:
        """Elements to keep of all weights, by name, for estimated costs within a budget.

        Raises:
            RecipeError: when the weights cost more even with nothing but zeros in them.
        """
        budget -= self._fixed
        least = sum(self._empty.values())
        if budget < least:
            msg = (
                f"the weights take {least:g} even when all of them are zero, where {max(0, budget):g} is "
                "left for them; ask for a larger target"
            )
            raise RecipeError(msg)
        return dict(self.ruled.keep) | self._free_within(budget)

    def _free_within(self, budget: float) -> dict[str, int]:
        curves = self._curves
        if self.options.chosen_allocation == "loss":
            floor = sum(float(curve.costs[-1]) for curve in curves.values())
            if budget >= floor:
                costs = {name: curve.costs for name, curve in curves.items()}
                chosen = least_loss(costs, self._losses, budget)
                return {name: int(curves[name].keeps[level]) for name, level in chosen.items()}
            lowest = {name: int(curve.keeps[-1]) for name, curve in curves.items()}
            return self._densest(lambda sparsity: uniform(lowest, sparsity), budget)
        return self._densest(self.share, budget)

    def _densest(self, share: Callable[[float], dict[str, int]], budget: float) -> dict[str, int]:
        """The allocation of lowest sparsity that is estimated to fit."""
        low, high, best = 0.0, 1.0, share(1.0)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            counts = share(middle)
            if self._estimate(counts) <= budget:
                high, best = middle, counts
            else:
                low = middle
        return best

    def _estimate(self, counts: Mapping[str, int]) -> float:
        total = 0.0
        for name, curve in self._curves.items():
            keeps = np.r_[0, curve.keeps[::-1]]
            total += float(
                np.interp(counts[name], keeps, np.r_[self._empty[name], curve.costs[::-1]])
            )
        return total

    @cached_property
    def _elements(self) -> dict[str, int]:
        return {weight.name: weight.elements for weight in self.weights}

    @cached_property
    def _fixed(self) -> float:
        """What the weights cost whose sparsity a rule fixes, pruned by magnitude."""
        assert self.costs is not None
        total = 0.0
        for weight in self.ruled.collection.weights:
            if weight.name in self.ruled.keep:
                pattern = self.ruled.patterns[weight.name]
                mask = pattern.mask(magnitude(weight.matrices()), self.ruled.keep[weight.name])
                total += self.costs.of_weight(weight, weight.masked(mask))
        return total

    @cached_property
    def _empty(self) -> dict[str, float]:
        """What each weight costs with zeros alone."""
        assert self.costs is not None
        return {
            w.name: self.costs.of_weight(w, w.masked(np.zeros(w.matrices().shape, np.bool_)))
            for w in self.weights
        }

    @cached_property
    def _moments(self) -> dict[str, Moments]:
        assert self.courses is not None
        return self.courses.moments(CURVE_POSITIONS, self.options.seed)

    @property
    def _layers(self) -> Mapping[str, Layer]:
        return {} if self.courses is None else self.courses.layers

    @cached_property
    def _scores(self) -> dict[str, NDArray[Any]]:
        """Saliency by which ``global``, ``lamp`` and ``owl`` compare tensors."""
        if self.options.chosen_allocation == "owl":
            return {
                w.name: wanda(self._layers[w.name].matrices(), self._moments[w.name].gram)
                if w.name in self._moments
                else magnitude(w.matrices())
                for w in self.weights
            }
        score = lamp if self.options.chosen_allocation == "lamp" else magnitude
        return {weight.name: score(weight.matrices()) for weight in self.weights}

    @cached_property
    def _curves(self) -> dict[str, Curve]:
        curves = {}
        cost_of = None if self.costs is None else self.costs.of_weight
        method, loss = self.options.method, self.options.chosen_allocation == "loss"
        for number, weight in enumerate(self.weights):
            layer = self._layers.get(weight.name) if loss else None
            curves[weight.name] = (
                magnitude_curve(weight, self.ruled.patterns[weight.name], cost_of)
                if layer is None
                else error_curve(
                    layer,
                    self._moments[weight.name],
                    self.ruled.patterns[weight.name],
                    method="obs" if method in SECOND_ORDER else method,
                    damping=self.options.damping,
                    cost_of=cost_of,
                )
            )
            self.progress("error curves", number + 1, len(self.weights))
        return curves

    @cached_property
    def _losses(self) -> dict[str, NDArray[np.float64]]:
        assert self.courses is not None
        error = self.courses.sensitivity(PROBE_SAMPLES, PROBE_NUMBERS)
        return losses_of(
            self._curves, error, lambda done, total: self.progress("sensitivity", done, total)
        )
