"""The contract of all patterns: masks obey them, keep no more than asked, and keep the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.encodings.ellpack import Ellpack
from hwmodel.tensor import TensorSpec
from hwmodel.tiling import utilisation
from passes.patterns import NM, Balanced, Block, Channel, Pattern, Unstructured, parse_pattern

PATTERNS = (
    Unstructured(),
    NM(n=2, m=4),
    NM(n=1, m=4),
    NM(n=4, m=8),
    Block(rows=2, columns=3),
    Block(rows=4, columns=1),
    Channel(),
    Balanced(lanes=2, chunk=3),
    Balanced(lanes=4, chunk=64),
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


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5:4",
        "0:4",
        "0x2",
        "2:4:8",
        "2 : 4",
        "4*1",
        "-1x2",
        "balanced:4",
        "balanced:4:8",
        "balanced:0x8",
    ],
)
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


@given(case=scores_and_keep(), lanes=st.integers(1, 3), chunk=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_balanced_masks_are_the_best_there_are(
    case: tuple[np.ndarray, int], lanes: int, chunk: int
) -> None:
    """Against every choice of counts, where rows and columns divide and few choices are."""
    scores, keep = case
    scores = scores[:1, : scores.shape[1] // lanes * lanes, : scores.shape[2] // chunk * chunk]
    if not scores.size or scores.size > 24:
        return
    pattern = Balanced(lanes=lanes, chunk=chunk)
    tiles = scores.reshape(scores.shape[1] // lanes, lanes, -1, chunk).swapaxes(1, 2)
    falling = -np.sort(-tiles, axis=3).sum(axis=2).reshape(-1, chunk)
    worth = np.concatenate([np.zeros((len(falling), 1)), np.cumsum(falling, axis=1)], axis=1)
    steps = min(keep, scores.size) // lanes
    best = np.full(steps + 1, 0.0)  # by how many steps are taken
    for tile in worth:
        best = np.array(
            [max(best[n - k] + tile[k] for k in range(min(n, chunk) + 1)) for n in range(steps + 1)]
        )
    mask = pattern.mask(scores, min(keep, scores.size))
    assert np.isclose(scores[mask].sum(), best[steps])


def test_balanced_lanes_finish_together_and_rows_need_no_filler() -> None:
    """What hardware gains: no lane waits for another, and ELLPACK stores nothing but values."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 512)).astype(np.float32)
    spec = TensorSpec("w", weights.shape, "float32")
    sizes = {}
    for pattern in (Unstructured(), Balanced(lanes=16, chunk=64)):
        mask = pattern.mask(np.abs(weights)[None], weights.size // 10)[0]
        pruned = np.where(mask, weights, 0).astype(np.float32)
        whole = utilisation(mask.ravel(), 16, 16 * 512)
        size = Ellpack(chunk=16 * 512).size(pruned, spec)
        sizes[pattern.name] = size.bytes
        if pattern.name == "unstructured":
            assert whole < 0.9
            assert size.payload_bits > 32 * mask.sum()
        else:
            assert whole == 1
            assert size.payload_bits == 32 * mask.sum()
            assert mask.sum() > weights.size // 10 - 16
    assert sizes["balanced:16x64"] < 0.9 * sizes["unstructured"]
