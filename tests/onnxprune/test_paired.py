from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from onnxprune.paired import paired_drop


def test_mean_is_the_difference_of_scores() -> None:
    drop = paired_drop(np.array([1.0, 1, 0, 1]), np.array([1.0, 0, 1, 0]))
    assert drop.mean == pytest.approx(0.25)


def test_equal_scores_still_leave_doubt() -> None:
    ones = np.ones(100)
    drop = paired_drop(ones, ones)
    low, high = drop.interval()
    assert drop.mean == 0
    assert low < 0 < high < 0.03


def test_intervals_of_right_or_wrong_scores_cover() -> None:
    """Bonett and Price's interval: at least about 95 % of samples cover the true drop."""
    rng = np.random.default_rng(0)
    for worse, better in ((0.02, 0.01), (0.005, 0.0), (0.1, 0.05)):
        hits = 0
        for _ in range(1000):
            u = rng.random(400)
            lost, won = u < worse, (u >= worse) & (u < worse + better)
            base = np.where(won, 0.0, 1.0)
            low, high = paired_drop(base, np.where(lost, 0.0, 1.0)).interval()
            hits += low <= worse - better <= high
        assert hits >= 930


def test_real_scores_take_students_t() -> None:
    rng = np.random.default_rng(1)
    base, other = rng.random(50), rng.random(50)
    expected = stats.ttest_rel(base, other).confidence_interval(0.95)
    assert paired_drop(base, other).interval() == pytest.approx((expected.low, expected.high))


def test_upper_bound_is_never_below_the_mean() -> None:
    lost_all = paired_drop(np.ones(20), np.zeros(20))
    assert lost_all.upper(0.5) >= lost_all.mean == 1


def test_no_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        paired_drop(np.zeros(0), np.zeros(0))
