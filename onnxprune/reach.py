"""Pruning to a total that cannot be known before the weights are: bytes or cycles of what is written."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from onnxprune.costs import Costs
    from onnxprune.one_shot import Pruned
    from passes.weights import Weight

ATTEMPTS = 4
"""In how many a target is to be met closely; in as many again it is to be met at all."""

CLOSE = 0.01
"""Of a target that is met closely at most this share is unused."""


def reach(
    costs: Costs,
    weights: Sequence[Weight],
    allocate: Callable[[float], dict[str, int]],
    prune: Callable[[Mapping[str, int]], Pruned],
) -> Pruned:
    """Prune within a budget, measure the whole, correct the budget by what it was off, and again.

    Args:
        costs: how to estimate and to measure.
        weights: that are pruned.
        allocate: weights to keep, by name, within a budget of estimated costs; raises RecipeError
            when there are none.
        prune: to such counts.

    Returns:
        The best that was made, with ``reached``: the largest total within the target, or where none
        of eight is, the smallest.
    """
    names = [weight.name for weight in weights]
    limit = costs.target.limit
    alone = sum(costs.of_weight(weight, weight.array()) for weight in weights)
    budget = limit - (costs.measure({}, names) - alone)
    best: Pruned | None = None
    seen: dict[tuple[int, ...], float] = {}
    margin = CLOSE / 4
    for attempt in range(2 * ATTEMPTS):
        try:
            counts = allocate(budget)
        except RecipeError:
            if best is None:
                raise
            break
        key = tuple(counts.values())
        if key not in seen:
            made = prune(counts)
            seen[key] = costs.measure(made.constants, names)
            if best is None or best.reached is None or _better(seen[key], best.reached, limit):
                best = replace(made, reached=seen[key])
        elif seen[key] <= limit:
            break
        reached = seen[key]
        if reached <= limit and (reached >= limit * (1 - CLOSE) or attempt + 1 >= ATTEMPTS):
            break
        budget += limit * (1 - margin) - reached
        margin *= 2 if reached > limit else 1
    assert best is not None
    return best


def _better(reached: float, before: float, limit: float) -> bool:
    """Whether a total serves a limit better than another: first to keep it, then to use it up."""
    if reached <= limit and before <= limit:
        return reached > before
    return reached < before
