"""Candidates near good ones: the pool that a surrogate ranks, and the moves of an evolution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.space import Levels, Space

STRIDES = (1.0, 3.0, 8.0, 20.0)
"""Standard deviations, in levels, of the steps away from a good candidate."""

REDRAWN = 0.2
"""How likely a choice is drawn anew; steps of levels mean nothing to it."""


def parents(
    problem: Problem, trials: Sequence[Trial], budget: float | None, count: int
) -> list[Trial]:
    """The trials to start from, best first.

    Where cost is minimised: those that keep the limit by cost, then the others by drop. Where a
    budget is given: those near it by how little they drop for their cost.
    """
    if budget is None:
        return sorted(
            trials,
            key=lambda t: (not problem.feasible(t), t.cost if problem.feasible(t) else t.drop),
        )[:count]
    near = sorted(trials, key=lambda t: abs(np.log(max(t.cost, 1e-9) / budget)))[: 4 * count]
    return sorted(near, key=lambda t: (t.cost > budget * 1.02, t.drop))[:count]


def around(
    problem: Problem,
    bases: NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
    budget: float | None,
) -> NDArray[np.int64]:
    """``size`` candidates ``(M, D)``: some decisions of a base moved by random steps.

    With a budget each is shifted to it, so that what one variable loses the others gain.
    """
    space = problem.space
    base = bases[rng.integers(len(bases), size=size)]
    stride = rng.choice(STRIDES, size=(size, 1))
    moved = rng.random(base.shape) < rng.uniform(1.0 / space.dimensions, 1.0, size=(size, 1))
    steps = rng.standard_normal(base.shape) * stride * moved
    if budget is not None:
        return space.within_many(rechosen(space, base, base + steps, rng), np.full(size, budget))
    stepped = rechosen(space, base, base + np.rint(steps), rng)
    moved_to: NDArray[np.int64] = np.clip(stepped, 0, space.tops).astype(np.int64)
    return moved_to


def rechosen(
    space: Space,
    base: NDArray[Any],
    moved: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Candidates ``moved`` ``(M, D)`` with the choices of their ``base``, some drawn anew."""
    first = len(space.choices)
    if first:
        drawn = rng.integers(0, space.tops[:first] + 1, size=(len(base), first))
        anew = rng.random(drawn.shape) < REDRAWN
        moved[:, :first] = np.where(anew, drawn, base[:, :first])
    return moved


def unseen(candidates: NDArray[np.int64], seen: set[Levels]) -> NDArray[np.int64]:
    """Those of the candidates ``(M, D)`` that are new, each once, sorted."""
    distinct: NDArray[np.int64] = np.unique(candidates, axis=0)
    fresh = [tuple(row) not in seen for row in distinct.tolist()]
    new: NDArray[np.int64] = distinct[np.array(fresh, dtype=bool)]
    return new
