"""Schedules: learning rate, strength of the penalty and sparsity over the steps of a phase.

Each is a function of ``progress``, 0 at the begin of a phase and 1 at its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

PhaseName = Literal["sparsify", "prune", "recover"]
SparsityCurve = Literal["cubic", "log_linear"]
RateCurve = Literal["constant", "cosine"]


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes:
        name: what is done.
        first_step: number of its first step, counted over the whole run.
        steps: how many steps it has.
        cycle: which repetition of the phases it belongs to, from 0.
    """

    name: PhaseName
    first_step: int
    steps: int
    cycle: int

    def progress(self, step: int) -> float:
        """How much of the phase is done before the step of that number, 0 to 1."""
        return (step - self.first_step) / max(1, self.steps)


def phases(epochs: dict[PhaseName, int], steps_per_epoch: int, cycles: int) -> tuple[Phase, ...]:
    """Sparsify, prune and recover, ``cycles`` times; phases of no epochs are left out."""
    made: list[Phase] = []
    first = 0
    for cycle in range(cycles):
        for name in ("sparsify", "prune", "recover"):
            steps = epochs[name] * steps_per_epoch
            if steps:
                made.append(Phase(name, first, steps, cycle))
                first += steps
    return tuple(made)


def density_at(curve: SparsityCurve, begin: float, end: float, progress: float) -> float:
    """The density to reach after a share of the pruning.

    Args:
        curve: ``cubic`` is Zhu and Gupta (2017), "To prune, or not to prune": sparsity rises fast
            first, s = s_end + (s_begin - s_end) (1 - t)^3. ``log_linear`` lowers the logarithm of
            the density evenly, so each step takes the same share of what is left.
        begin: density before, 0 to 1.
        end: density after, 0 to 1.
        progress: 0 to 1.
    """
    progress = min(max(progress, 0.0), 1.0)
    if curve == "cubic":
        return end + (begin - end) * (1 - progress) ** 3
    return math.exp(math.log(begin) + (math.log(max(end, 1e-12)) - math.log(begin)) * progress)


def rate_at(curve: RateCurve, peak: float, progress: float) -> float:
    """The learning rate: constant, or from ``peak`` to zero along a half cosine.

    Recovery starts over at the peak and runs the whole curve again, which is learning-rate rewinding
    (Renda, Frankle and Carbin 2020, "Comparing rewinding and fine-tuning in neural network pruning").
    """
    if curve == "constant":
        return peak
    return 0.5 * peak * (1 + math.cos(math.pi * min(max(progress, 0.0), 1.0)))


def ramped(strength: float, progress: float, ramp: float) -> float:
    """The strength of a penalty that rises evenly from 0 over the first share ``ramp``."""
    return strength if ramp <= 0 else strength * min(1.0, progress / ramp)
