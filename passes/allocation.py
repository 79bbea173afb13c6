"""Allocation: how many weights each tensor keeps, so that the total sparsity is as asked.

Every function takes what it needs of each tensor by name and returns how many weights to keep by
name. The counts add up exactly to ``keep_count(total elements, sparsity)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_count, keep_largest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

OWL_FACTOR = 5.0
OWL_SPREAD = 0.08

BUCKETS = 10_000
"""Into which a budget is cut for dynamic programming, as SPDY has it."""

SLACK = 1e-9
TINY = 1e-300


def uniform(elements: Mapping[str, int], sparsity: float) -> dict[str, int]:
    """The same sparsity everywhere, remainders going to the tensors that rounding hurt most.

    Args:
        elements: number of weights by name.
        sparsity: 0 to 1, over all tensors.
    """
    return _rounded(elements, dict.fromkeys(elements, 1.0 - sparsity), sparsity)


def global_threshold(scores: Mapping[str, NDArray[Any]], sparsity: float) -> dict[str, int]:
    """One threshold for all tensors: those with small scores lose most.

    With the scores of :func:`passes.saliency.lamp` this is the LAMP allocation.

    Args:
        scores: saliency of each weight by name, any shape, comparable between tensors.
        sparsity: 0 to 1, over all tensors.
    """
    flat = np.concatenate([array.ravel() for array in scores.values()])
    mask = keep_largest(flat, keep_count(flat.size, sparsity))
    starts = np.cumsum([0, *(array.size for array in scores.values())])[:-1]
    counts = np.add.reduceat(mask, starts, dtype=np.int64)
    return dict(zip(scores, counts.tolist(), strict=True))


def erk(shapes: Mapping[str, tuple[int, int, tuple[int, ...]]], sparsity: float) -> dict[str, int]:
    """Erdos-Renyi-Kernel: density as the sum of a tensor's sizes over their product.

    Source: Evci et al. 2020, "Rigging the Lottery". Tensors whose density would pass 1 stay dense and
    the others share the rest.

    Args:
        shapes: by name: inputs (of all groups), outputs, and spatial sizes of the kernel.
        sparsity: 0 to 1, over all tensors.
    """
    elements, raw = {}, {}
    for name, (inputs, outputs, kernel) in shapes.items():
        elements[name] = inputs * outputs * int(np.prod(kernel, dtype=np.int64))
        raw[name] = (inputs + outputs + sum(kernel)) / elements[name]
    return _rounded(elements, raw, sparsity)


def owl(
    elements: Mapping[str, int], scores: Mapping[str, NDArray[Any]], sparsity: float
) -> dict[str, int]:
    """Outlier-weighed: tensors with more outlying Wanda scores stay denser.

    Source: Yin et al. 2023, "OWL". An outlier is over five times its tensor's mean score; sparsities
    spread 0.08 to both sides of the total.

    Args:
        elements: number of weights by name.
        scores: of :func:`passes.saliency.wanda`, by name.
        sparsity: 0 to 1, over all tensors.
    """
    shares = np.array([float((s > OWL_FACTOR * s.mean()).mean()) for s in scores.values()])
    span = float(np.ptp(shares)) or 1.0
    spread = min(OWL_SPREAD, sparsity, 1 - sparsity)
    offsets = (shares - shares.min()) / span * 2 * spread
    density = 1 - sparsity + offsets - offsets.mean()
    return _rounded(elements, dict(zip(scores, density.tolist(), strict=True)), sparsity)


def least_loss(
    costs: Mapping[str, NDArray[Any]],
    losses: Mapping[str, NDArray[Any]],
    budget: float,
    buckets: int = BUCKETS,
) -> dict[str, int]:
    """The level of each tensor that makes the sum of losses least at a total cost within a budget.

    Dynamic programming over a budget in buckets (Frantar and Alistarh 2022, "SPDY"). What each level
    costs above the cheapest one is rounded up to whole buckets, so that the budget always holds;
    what rounding left over is spent where it helps most. With whole numbers and a budget of up to
    ``buckets`` above the least cost a bucket is 1, and the result is exact. Neither curve need be
    convex or monotone.

    Args:
        costs: by name, what each level costs, any finite numbers.
        losses: by name, the loss at each level; of the same length.
        budget: the most that all tensors together may cost.
        buckets: into which the budget above the least cost is cut.

    Returns:
        Index of the level by name.

    Raises:
        ValueError: when the cheapest levels together cost more than the budget.
    """
    floor = sum(float(np.min(cost)) for cost in costs.values())
    room = min(budget, sum(float(np.max(cost)) for cost in costs.values())) - floor
    if room < 0:
        msg = f"the cheapest levels together cost {floor:g}, more than the budget of {budget:g}"
        raise ValueError(msg)
    whole = all(np.array_equal(cost, np.round(cost)) for cost in costs.values())
    unit = 1.0 if whole and room <= buckets else max(room, 1e-300) / buckets
    size = int(room / unit + SLACK)
    table = np.zeros(size + 1)
    choices = []
    for name, cost in costs.items():
        steps = np.ceil((cost - np.min(cost)) / unit - SLACK).astype(np.int64)
        best, choice = np.full(size + 1, np.inf), np.zeros(size + 1, np.int32)
        for level in _undominated(steps, losses[name]):
            step = int(steps[level])
            if step > size:
                break
            total = table[: size + 1 - step] + losses[name][level]
            better = total < best[step:]
            best[step:][better] = total[better]
            choice[step:][better] = level
        table = best
        choices.append((name, steps, choice))
    chosen, left = {}, size
    for name, steps, choice in reversed(choices):
        chosen[name] = int(choice[left])
        left -= int(steps[chosen[name]])
    return _spent({name: chosen[name] for name in costs}, costs, losses, floor + room)


def by_loss(
    keeps: Mapping[str, NDArray[np.int64]], losses: Mapping[str, NDArray[Any]], total: int
) -> dict[str, int]:
    """Counts that make the sum of losses least at a total number of weights kept.

    :func:`least_loss` picks levels; what is left of the total goes where it helps most, linearly
    between levels. Where even the lowest levels keep more than the total, each keeps the same share of
    its lowest level.

    Args:
        keeps: by name, weights kept at each level, falling.
        losses: by name, the loss at each level.
        total: weights to keep over all tensors, at most the sum of the first levels.
    """
    least = {name: int(levels[-1]) for name, levels in keeps.items()}
    if total < sum(least.values()):
        return uniform(least, 1 - total / sum(least.values()))
    chosen = least_loss(keeps, losses, total)
    counts = {name: int(keeps[name][level]) for name, level in chosen.items()}
    rates = {}
    for name, level in chosen.items():
        if level:
            gain = losses[name][level] - losses[name][level - 1]
            rates[name] = float(gain / (keeps[name][level - 1] - keeps[name][level]))
    left = total - sum(counts.values())
    for name in sorted(rates, key=lambda n: (-rates[n], n)):
        more = min(left, int(keeps[name][chosen[name] - 1]) - counts[name])
        counts[name] += more
        left -= more
    return _exactly(counts, {name: int(levels[0]) for name, levels in keeps.items()}, total)


def _undominated(steps: NDArray[np.int64], losses: NDArray[Any]) -> list[int]:
    """Levels by rising cost, without those that cost more than another and lose no less."""
    order = np.lexsort((losses, steps))
    before = np.minimum.accumulate(np.r_[np.inf, losses[order][:-1]])
    return [int(level) for level in order[losses[order] < before]]


def _spent(
    chosen: dict[str, int],
    costs: Mapping[str, NDArray[Any]],
    losses: Mapping[str, NDArray[Any]],
    budget: float,
) -> dict[str, int]:
    """``chosen`` with what is left of the budget spent: each time the best loss for its cost."""
    left = budget - sum(float(costs[name][level]) for name, level in chosen.items())
    while True:
        best = (0.0, "", 0)
        for name, level in chosen.items():
            gain = losses[name][level] - losses[name]
            more = costs[name] - costs[name][level]
            rates = np.where((gain > 0) & (more <= left), gain / np.maximum(more, TINY), 0.0)
            better = int(np.argmax(rates))
            if rates[better] > best[0]:
                best = (float(rates[better]), name, better)
        if not best[1]:
            return chosen
        _, name, better = best
        left -= float(costs[name][better] - costs[name][chosen[name]])
        chosen[name] = better


def _rounded(
    elements: Mapping[str, int], raw: Mapping[str, float], sparsity: float
) -> dict[str, int]:
    """Counts in proportion to ``raw`` densities, none over its tensor's size, adding up exactly."""
    names = list(elements)
    sizes = np.array([elements[name] for name in names], np.float64)
    density = np.maximum([raw[name] for name in names], 0.0)
    total = keep_count(int(sizes.sum()), sparsity)
    full = np.zeros(len(names), np.bool_)
    share = np.zeros(len(names))
    while True:
        rest = total - sizes[full].sum()
        weight = float((density * sizes)[~full].sum())
        share = np.where(full, 1.0, density * (rest / weight if weight > 0 else 0.0))
        over = (share > 1.0) & ~full
        if not over.any():
            break
        full |= over
    exact = np.clip(share, 0.0, 1.0) * sizes
    keep = np.floor(exact + 1e-9).astype(np.int64)
    by_remainder = np.argsort(-(exact - keep), kind="stable")
    for index in np.resize(by_remainder, 4 * len(names)):
        missing = total - int(keep.sum())
        if missing <= 0:
            break
        room = int(sizes[index]) - int(keep[index])
        keep[index] += min(room, max(1, missing // len(names)))
    return _exactly(dict(zip(names, keep.tolist(), strict=True)), elements, total)


def _exactly(keep: dict[str, int], elements: Mapping[str, int], total: int) -> dict[str, int]:
    """``keep`` changed as little as makes it add up to ``total``, large tensors first."""
    for name in sorted(keep, key=lambda n: -elements[n]):
        change = total - sum(keep.values())
        keep[name] = min(max(keep[name] + change, 0), elements[name])
    return keep
