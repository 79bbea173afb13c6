from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.allocation import global_threshold, uniform
from passes.masks import keep_count, keep_largest


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
    for keep in (uniform(elements, sparsity), global_threshold(scores, sparsity)):
        assert sum(keep.values()) == total
        assert all(0 <= keep[name] <= elements[name] for name in elements)


def test_uniform_is_uniform_and_global_follows_the_scores() -> None:
    scores = {"small": np.full(100, 0.1), "large": np.full(100, 1.0)}
    assert uniform({"small": 100, "large": 100}, 0.5) == {"small": 50, "large": 50}
    assert global_threshold(scores, 0.5) == {"small": 0, "large": 100}
