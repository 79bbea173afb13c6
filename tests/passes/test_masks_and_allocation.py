from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.allocation import (
    BUCKETS,
    by_loss,
    erk,
    global_threshold,
    least_loss,
    owl,
    uniform,
)
from passes.masks import keep_count, keep_largest
from passes.saliency import lamp


def test_equal_scores_do_not_change_the_count() -> None:
    mask = keep_largest(np.ones((3, 5)), 7)
    assert mask.sum() == 7
    assert mask.ravel()[:7].all(), "of equal scores the first are kept"


@pytest.mark.parametrize("keep", [-1, 16])
def test_impossible_counts_are_refused(keep: int) -> None:
    with pytest.raises(ValueError, match="between 0 and 15"):
        keep_largest(np.ones((3, 5)), keep)


@given(
    sizes=st.lists(st.integers(1, 200), min_size=1, max_size=8),
    sparsity=st.floats(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=100, deadline=None)
def test_allocations_add_up_exactly(sizes: list[int], sparsity: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = {f"w{i}": rng.random(size) for i, size in enumerate(sizes)}
    elements = {name: array.size for name, array in scores.items()}
    total = keep_count(sum(sizes), sparsity)
    shapes = {name: (size, 1, ()) for name, size in elements.items()}
    for keep in (
        uniform(elements, sparsity),
        global_threshold(scores, sparsity),
        global_threshold({name: lamp(s) for name, s in scores.items()}, sparsity),
        erk(shapes, sparsity),
        owl(elements, scores, sparsity),
    ):
        assert sum(keep.values()) == total
        assert all(0 <= keep[name] <= elements[name] for name in elements)


def test_uniform_is_uniform_and_global_follows_the_scores() -> None:
    scores = {"small": np.full(100, 0.1), "large": np.full(100, 1.0)}
    assert uniform({"small": 100, "large": 100}, 0.5) == {"small": 50, "large": 50}
    assert global_threshold(scores, 0.5) == {"small": 0, "large": 100}


def test_lamp_scores_are_those_of_the_paper() -> None:
    scores = lamp(np.array([[3.0, -1.0], [2.0, 0.0]]))
    np.testing.assert_allclose(scores, [[1.0, 1 / 14], [4 / 13, 0.0]])


def test_erk_keeps_small_layers_denser_and_none_over_full() -> None:
    keep = erk({"small": (8, 8, (3, 3)), "large": (64, 64, (3, 3)), "tiny": (4, 2, ())}, 0.8)
    density = {
        "small": keep["small"] / 576,
        "large": keep["large"] / 36864,
        "tiny": keep["tiny"] / 8,
    }
    assert density["tiny"] == 1
    assert 1 >= density["small"] > density["large"]
    assert sum(keep.values()) == keep_count(576 + 36864 + 8, 0.8)


def test_owl_gives_more_to_outliers() -> None:
    flat, spiky = np.ones(1000), np.r_[np.full(50, 100.0), np.ones(950)]
    keep = owl({"flat": 1000, "spiky": 1000}, {"flat": flat, "spiky": spiky}, 0.5)
    assert keep == {"flat": 420, "spiky": 580}


def every_choice(costs: dict[str, np.ndarray]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(len(cost)) for cost in costs.values())))


@given(seed=st.integers(0, 10_000), convex=st.booleans())
@settings(max_examples=100, deadline=None)
def test_least_loss_is_the_best_of_all_choices(seed: int, convex: bool) -> None:
    """Whole numbers: brute force over every choice of levels, whatever the shape of the curves."""
    rng = np.random.default_rng(seed)
    costs = {name: rng.integers(0, 30, 5) for name in "abc"}
    losses = {name: rng.random(5) for name in "abc"}
    if convex:
        costs = {name: np.arange(4, -1, -1) * 5 for name in "abc"}
        losses = {name: np.cumsum(np.sort(rng.random(5))) for name in "abc"}
    budget = int(rng.integers(sum(c.min() for c in costs.values()), 90))
    chosen = least_loss(costs, losses, budget)
    assert sum(costs[name][level] for name, level in chosen.items()) <= budget
    reached = sum(losses[name][level] for name, level in chosen.items())
    best = min(
        sum(losses[name][level] for name, level in zip("abc", levels, strict=True))
        for levels in every_choice(costs)
        if sum(costs[name][level] for name, level in zip("abc", levels, strict=True)) <= budget
    )
    assert reached == pytest.approx(best)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=50, deadline=None)
def test_least_loss_in_buckets_keeps_the_budget_and_is_near_the_best(seed: int) -> None:
    """Costs that are no whole numbers, as cycles and bytes of estimates are."""
    rng = np.random.default_rng(seed)
    costs = {name: np.sort(rng.random(6) * 1e6)[::-1] for name in "abc"}
    losses = {name: np.r_[0.0, np.cumsum(rng.random(5) ** 4)] for name in "abc"}
    least = sum(c.min() for c in costs.values())
    budget = least + rng.random() * (sum(c.max() for c in costs.values()) - least)
    chosen = least_loss(costs, losses, budget)

    def best_within(limit: float) -> float:
        return min(
            sum(losses[name][level] for name, level in zip("abc", levels, strict=True))
            for levels in every_choice(costs)
            if sum(costs[name][level] for name, level in zip("abc", levels, strict=True)) <= limit
        )

    assert sum(costs[name][level] for name, level in chosen.items()) <= budget
    reached = sum(losses[name][level] for name, level in chosen.items())
    rounding = 3 * (budget - least) / BUCKETS
    assert best_within(budget) <= reached + 1e-12
    assert reached <= best_within(max(least, budget - rounding)) + 1e-12


def test_a_budget_below_the_cheapest_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="cost 6, more than the budget of 5"):
        least_loss(
            {"a": np.array([9, 4]), "b": np.array([3, 2])}, {"a": np.zeros(2), "b": np.zeros(2)}, 5
        )


@given(seed=st.integers(0, 500))
@settings(max_examples=60, deadline=None)
def test_counts_by_loss_are_as_good_as_trying_everything(seed: int) -> None:
    """Every level one weight apart: brute force over all allocations; totals are exact."""
    rng = np.random.default_rng(seed)
    levels = {name: np.arange(5, -1, -1) for name in "abc"}
    losses = {name: np.r_[0.0, np.cumsum(rng.random(5))] for name in "abc"}
    total = int(rng.integers(0, 16))
    keep = by_loss(levels, losses, total)
    assert sum(keep.values()) == total
    cost = sum(losses[name][5 - keep[name]] for name in "abc")
    best = min(
        losses["a"][5 - a] + losses["b"][5 - b] + losses["c"][5 - (total - a - b)]
        for a in range(6)
        for b in range(6)
        if 0 <= total - a - b <= 5
    )
    assert cost == pytest.approx(best)


def test_counts_by_loss_fill_the_room_between_levels() -> None:
    levels = {"a": np.array([100, 40, 10]), "b": np.array([50, 20, 5])}
    losses = {"a": np.array([0.0, 1.0, 5.0]), "b": np.array([0.0, 4.0, 9.0])}
    for total in range(16, 151):
        keep = by_loss(levels, losses, total)
        assert sum(keep.values()) == total
        assert all(levels[name][-1] <= keep[name] <= levels[name][0] for name in keep)
    assert by_loss(levels, losses, 9) == {"a": 6, "b": 3}, "the lowest levels' shares below them"
