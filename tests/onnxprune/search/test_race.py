"""Races stop early, and almost never a candidate that would have made it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.paired import paired_drop
from onnxprune.search.race import FIRST_STAGE, race

SAMPLES = 1600
LIMIT = 0.01


def scores(seed: int, worse: float, better: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of a dense model and of a candidate that differs by chance."""
    rng = np.random.default_rng(seed)
    dense = (rng.random(SAMPLES) < 0.9).astype(np.float64)
    lost, won = rng.random(SAMPLES) < worse, rng.random(SAMPLES) < better
    pruned = np.where(dense == 1, ~lost, won).astype(np.float64)
    return dense, pruned


def pieces(array: np.ndarray, looked: list[int]) -> object:
    for part in np.array_split(array, 16):
        looked.append(len(part))
        yield part


def test_a_hopeless_candidate_is_given_up_at_once() -> None:
    dense, pruned = scores(0, worse=0.3)
    looked: list[int] = []
    drop, upper, seen = race(dense, pieces(pruned, looked), LIMIT, 0.99, bounded=True)
    assert FIRST_STAGE <= seen <= 2 * FIRST_STAGE + 100
    assert sum(looked) == seen, "no more is run than was looked at"
    assert drop.mean > LIMIT
    assert upper > LIMIT


def test_a_whole_race_is_the_drop_over_all_samples() -> None:
    dense, pruned = scores(1, worse=0.001, better=0.02)
    drop, upper, seen = race(dense, pieces(pruned, []), LIMIT, 0.9, bounded=True)
    whole = paired_drop(dense, pruned)
    assert seen == SAMPLES
    assert drop == whole
    assert upper == whole.upper(0.9)


@pytest.mark.parametrize("bounded", [True, False])
def test_few_that_would_have_made_it_are_given_up(bounded: bool) -> None:
    """At most twice the one in a hundred that the confidence allows at each look."""
    lost = made = 0
    for seed in range(400):
        dense, pruned = scores(seed, worse=0.006 if bounded else 0.012, better=0.02)
        whole = paired_drop(dense, pruned)
        if (whole.upper(0.99) if bounded else whole.mean) > LIMIT:
            continue
        made += 1
        _, _, seen = race(dense, pieces(pruned, []), LIMIT, 0.99, bounded=bounded)
        lost += seen < SAMPLES
    assert made > 50
    assert lost <= 0.02 * made + 1


def test_a_race_that_no_limit_binds_is_run_to_its_end() -> None:
    dense, pruned = scores(2, worse=0.9)
    _, _, seen = race(dense, pieces(pruned, []), np.inf, 0.99, bounded=False)
    assert seen == SAMPLES
