"""The contract of all patterns: masks obey them, keep no more than asked, and keep the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.patterns import Pattern, Unstructured

PATTERNS = (Unstructured(),)


@st.composite
def scores_and_keep(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    shape = tuple(draw(st.integers(1, 6)) for _ in range(3))
    size = int(np.prod(shape))
    # Few distinct values: ties are the hard case.
    values = draw(st.lists(st.integers(0, 4), min_size=size, max_size=size))
    return np.array(values, np.float32).reshape(shape), draw(st.integers(0, size))


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@given(case=scores_and_keep())
@settings(max_examples=60, deadline=None)
def test_masks_obey_and_keep_no_more_than_asked(
    pattern: Pattern, case: tuple[np.ndarray, int]
) -> None:
    scores, keep = case
    mask = pattern.mask(scores, keep)
    assert mask.dtype == np.bool_
    assert mask.shape == scores.shape
    assert pattern.obeys(mask)
    assert mask.sum() <= keep
    assert np.array_equal(mask, pattern.mask(scores.copy(), keep))


@given(case=scores_and_keep())
@settings(max_examples=100, deadline=None)
def test_unstructured_keeps_exactly_the_best(case: tuple[np.ndarray, int]) -> None:
    scores, keep = case
    mask = Unstructured().mask(scores, keep)
    assert mask.sum() == keep
    assert scores[mask].sum() == np.sort(scores.ravel())[::-1][:keep].sum()
