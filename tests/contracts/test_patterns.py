"""The contract of all patterns: masks obey them, keep no more than asked, and keep the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.patterns import NM, Block, Channel, Pattern, Unstructured, parse_pattern

PATTERNS = (
    Unstructured(),
    NM(n=2, m=4),
    NM(n=1, m=4),
    NM(n=4, m=8),
    Block(rows=2, columns=3),
    Block(rows=4, columns=1),
    Channel(),
)


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


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_names_read_back(pattern: Pattern) -> None:
    assert parse_pattern(pattern.name) == pattern


@pytest.mark.parametrize("text", ["", "5:4", "0:4", "0x2", "2:4:8", "2 : 4", "4*1", "-1x2"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not understood"):
        parse_pattern(text)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@given(seed=st.integers(0, 999), taps=st.sampled_from([1, 3, 4]), channels=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_cells_hold_every_column_once(
    pattern: Pattern, seed: int, taps: int, channels: int
) -> None:
    fitted = pattern.fitted(taps)
    cells = fitted.cells(taps * channels)
    assert sorted(cells[cells >= 0].tolist()) == list(range(taps * channels))
    scores = np.random.default_rng(seed).random((2, 5, taps * channels))
    mask = fitted.mask(scores, scores.size)
    assert fitted.obeys(mask)
    assert mask.sum() == 2 * fitted.most(5, taps * channels)


def test_two_of_four_runs_over_the_channels_of_a_kernel() -> None:
    """TensorRT wants 2:4 along C of KCRS: 4 channels at one tap, not 4 neighbours in memory."""
    rng = np.random.default_rng(0)
    kernel = rng.random((8, 8, 3, 3))
    mask = NM(n=2, m=4).fitted(9).mask(kernel.reshape(1, 8, 72), kernel.size)
    by_group = mask.reshape(8, 2, 4, 3, 3).sum(axis=2)
    assert (by_group == 2).all()
    best = np.sort(kernel.reshape(8, 2, 4, 3, 3), axis=2)[:, :, 2:].sum()
    assert np.isclose((kernel.reshape(1, 8, 72) * mask).sum(), best)


def test_channels_go_whole() -> None:
    scores = np.arange(12.0).reshape(1, 1, 12).repeat(3, axis=1)
    mask = Channel().fitted(4).mask(scores, 3 * 8)
    assert mask[0].sum(axis=1).tolist() == [8, 8, 8]
    assert not mask[0, :, :4].any()
