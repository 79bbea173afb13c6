"""Which cost the next candidate should have, for controllers that move along costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.search.problem import Problem, Trial

FIRST_SAVING = 0.08
SAVINGS = (0.002, 0.25)
"""Share of the cost by which a candidate undercuts the best: where it starts, and its range."""
FASTER, SLOWER = 1.5, 0.9
"""Factors of the saving after a candidate that kept the limit, and after one that did not: at one
success in five they balance (the one-fifth rule, Rechenberg 1973)."""


def undercut(problem: Problem, parent: Trial | None, trials: Sequence[Trial]) -> float:
    """A cost a little below that of ``parent``, by how often such costs could be reached so far.

    Args:
        problem: one that minimises cost.
        parent: the best trial so far.
        trials: all trials so far.
    """
    space = problem.space
    if parent is None or not problem.feasible(parent):
        # Nothing keeps the limit yet: half way (in logarithm) back to dense from what failed least.
        dense = space.cost(space.dense)
        return dense if parent is None else float(np.sqrt(dense * parent.cost))
    best, saving = np.inf, FIRST_SAVING
    starts = set(problem.starts)
    for trial in trials:
        if trial.levels in starts:
            best = min(best, trial.cost) if problem.feasible(trial) else best
        elif problem.feasible(trial) and trial.cost < best:
            best = trial.cost
            saving *= FASTER
        else:
            saving *= SLOWER
        saving = float(np.clip(saving, *SAVINGS))
    return parent.cost * (1 - saving)
