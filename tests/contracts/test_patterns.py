"""The contract of all patterns: masks obey them, keep no more than asked, and keep the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.encodings.bitmask import Bitmask
from hwmodel.encodings.ellpack import Ellpack
from hwmodel.tensor import TensorSpec
from hwmodel.tiling import utilisation
from passes.axes import COLUMN, ROW, axes_of
from passes.layout import columns_first
from passes.patterns import (
    NM,
    Balanced,
    Block,
    Burst,
    Channel,
    Pattern,
    Segments,
    Stored,
    Unstructured,
    parse_pattern,
)

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
    Segments(lanes=2, chunk=3),
    Segments(lanes=4, chunk=64),
    Burst(burst=6, chunk=5),
    Burst(burst=8, chunk=16),
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
        "segments:4:8",
        "burst:64",
        "bursts:64x8",
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
    mask = pattern.mask(scores, keep := min(keep, scores.size))
    counts = list(range(0, lanes * chunk + 1, lanes))
    assert np.isclose(scores[mask].sum(), best_total(worth, counts, keep))


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


@given(case=scores_and_keep(), lanes=st.integers(1, 3), chunk=st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_segments_are_the_best_there_are(
    case: tuple[np.ndarray, int], lanes: int, chunk: int
) -> None:
    """Against every choice of counts, where whole tiles are in it and few choices are."""
    scores, keep = case
    tiles = scores.ravel()[: scores.size // (lanes * chunk) * lanes * chunk]
    if not tiles.size or tiles.size > 24:
        return
    falling = -np.sort(-tiles.reshape(-1, lanes, chunk), axis=2).sum(axis=1)
    worth = np.concatenate([np.zeros((len(falling), 1)), np.cumsum(falling, axis=1)], axis=1)
    mask = Segments(lanes=lanes, chunk=chunk).mask(tiles, min(keep, tiles.size))
    counts = list(range(0, lanes * chunk + 1, lanes))
    assert np.isclose(tiles[mask].sum(), best_total(worth, counts, min(keep, tiles.size)))


@given(case=scores_and_keep(), burst=st.integers(5, 14), chunk=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_bursts_are_full_and_the_best_there_are(
    case: tuple[np.ndarray, int], burst: int, chunk: int
) -> None:
    """Against every choice of bursts for each chunk: sizes of chunks as the encoding has them.

    Taking the step of most worth a weight is the best choice where all steps are of one size; what a
    last step of another size leaves unused, a better choice could fill.
    """
    scores, keep = case
    scores = scores.ravel()[: scores.size // chunk * chunk]
    if not scores.size:
        return
    pattern = Burst(burst=burst, chunk=chunk)
    mask = pattern.mask(scores, keep := min(keep, scores.size))
    sizes = pattern.sizes(chunk).tolist()
    kept = mask.reshape(-1, chunk).sum(axis=1)
    assert set(kept.tolist()) <= set(sizes)
    for count in set(kept.tolist()) - {0, chunk}:
        used = chunk + 32 * count
        assert 0 <= -(-used // (8 * burst)) * 8 * burst - used < 32  # no room for one more value
    falling = -np.sort(-scores.reshape(-1, chunk), axis=1)
    worth = np.concatenate([np.zeros((len(falling), 1)), np.cumsum(falling, axis=1)], axis=1)
    best = best_total(worth[:, sizes], sizes, int(mask.sum()))
    steps = np.diff(sizes)
    if (steps == steps[0]).all():
        assert np.isclose(scores[mask].sum(), best_total(worth[:, sizes], sizes, keep))
    else:
        assert scores[mask].sum() <= best + 1e-6


def best_total(worth: np.ndarray, counts: list[int], keep: int) -> float:
    """The most that chunks are worth together at ``keep`` weights, ``worth`` (chunks, counts)."""
    best = np.zeros(keep + 1)
    for chunk in worth:
        best = np.array(
            [
                max(best[n - count] + value for count, value in zip(counts, chunk, strict=True) if count <= n)
                for n in range(keep + 1)
            ]
        )  # fmt: skip
    return float(best[keep])


@pytest.mark.parametrize("pattern", [Segments(lanes=4, chunk=8), Burst(burst=16, chunk=32)])
def test_patterns_of_memory_hold_where_the_weight_is_stored(pattern: Pattern) -> None:
    """A product stores its matrix by columns, a transposed convolution by inputs, then outputs."""
    for layout in (
        columns_first((24, 40)),
        axes_of([(COLUMN, 6)], [(ROW, 8)], [(COLUMN, 5)]).layout(),
        columns_first((2, 9, 30)),
    ):
        fitted = pattern.fitted(1, Stored(layout, 32))
        scores = np.random.default_rng(0).random(layout.matrix_shape)
        mask = fitted.mask(scores, scores.size // 3)
        assert fitted.obeys(mask)
        assert 0 < mask.sum() <= scores.size // 3
        assert pattern.obeys(layout.array(mask))  # without a layout memory is as the array is
        assert not pattern.obeys(mask)


def test_lanes_that_are_dealt_segments_finish_together() -> None:
    """Without the pattern 16 lanes of 64 weights at 10 % density work 0.587 of the time."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((1, 512, 1024))
    drawn = Unstructured().mask(np.abs(weights), weights.size // 10)
    assert utilisation(drawn.ravel(), 16, 1024) == pytest.approx(0.587, abs=0.01)
    even = Segments(lanes=16, chunk=64).mask(np.abs(weights), weights.size // 10)
    assert utilisation(even.ravel(), 16, 1024) == 1
    assert even.sum() > weights.size // 10 - 16
    assert (np.abs(weights) * even).sum() > 0.94 * (np.abs(weights) * drawn).sum()


def test_chunks_of_a_mask_and_values_fill_their_bursts() -> None:
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 1000)).astype(np.float32)
    spec = TensorSpec("w", weights.shape, "float32")
    lost = {}
    for pattern in (Unstructured(), Burst(burst=64, chunk=1024)):
        mask = pattern.mask(np.abs(weights)[None], weights.size // 10)[0]
        pruned = np.where(mask, weights, 0).astype(np.float32)
        size = Bitmask(chunk=1024, align=64).size(pruned, spec)
        chunks = -(-weights.size // 1024)
        lost[pattern.name] = (size.padding_bits - size.metadata_bits % 8) / 8 / chunks
    assert lost["unstructured"] > 24
    assert lost["burst:64x1024"] < 4
