"""Fetch, decode and compute overlapped, against formulas and plain simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.fetch import fetch_ranges, fetch_stream
from hwmodel.memory import load_memory, memory_names
from hwmodel.pipeline import Accelerator, TileStream, run_pipeline
from hwmodel.tiling import lane_clocks, tiles_of_chunks, tiles_of_stream, utilisation


def stream_of(lengths, work):
    """Tiles one after the other."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    zeros = np.zeros(len(lengths), np.int64)
    return tiles_of_chunks(0, starts.astype(np.int64), np.asarray(work, np.int64), zeros)


def test_without_work_a_pipeline_is_the_fetch():
    for name in memory_names():
        memory = load_memory(name)
        found = run_pipeline(memory, stream_of([4096] * 10, [0] * 10), Accelerator(buffers=10))
        fetch = fetch_stream(memory, 40960)
        assert (found.cycles, found.memory_cycles) == (fetch.cycles, fetch.cycles)
        assert found.stall_cycles == fetch.cycles
        assert found.share_of_peak == pytest.approx(
            40960 / memory.peak_bytes_per_clock / fetch.cycles
        )


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_sram_follows_the_textbook(buffers):
    """On a memory without state every fetch takes words + 1 clocks, so the schedule is plain to compute."""
    memory = load_memory("sram-rp2040")
    rng = np.random.default_rng(buffers)
    lengths = rng.integers(1, 60, 40) * 4
    work = rng.integers(0, 90, 40)
    found = run_pipeline(memory, stream_of(lengths, work), Accelerator(buffers=buffers))
    sent = ready = 0
    done = []
    for tile, (length, clocks) in enumerate(zip(lengths, work, strict=True)):
        free = done[tile - buffers] if tile >= buffers else 0
        sent = max(sent, free) + length // 4  # one word asked for in each clock
        ready = sent + 1
        done.append(max(ready, done[-1] if done else 0) + clocks)
    assert found.cycles == done[-1]


@pytest.mark.parametrize("name", ["ddr4-2400", "lpddr5-6400", "hbm2"])
def test_slow_work_hides_the_memory_and_one_buffer_hides_nothing(name):
    memory = load_memory(name)
    lengths, work = [2048] * 30, [5000] * 30
    first = fetch_stream(memory, 2048).cycles
    double = run_pipeline(memory, stream_of(lengths, work), Accelerator(buffers=2))
    # What is asked for already for the second tile may get in the way of the first, a little.
    assert 0 <= double.stall_cycles - first <= 8
    assert double.cycles == double.stall_cycles + sum(work)
    single = run_pipeline(memory, stream_of(lengths, work), Accelerator(buffers=1))
    assert single.cycles > double.cycles + 29 * memory.read_latency
    assert single.decode_cycles == double.decode_cycles == sum(work)


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(memory_names()),
    tiles=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 900)), min_size=1, max_size=25),
    ratio=st.sampled_from([0.25, 0.8, 1.0, 3.0]),
)
def test_bounds_of_any_pipeline(name, tiles, ratio):
    memory = load_memory(name)
    stream = stream_of([length for length, _ in tiles], [work for _, work in tiles])
    found = [run_pipeline(memory, stream, Accelerator(ratio, buffers)) for buffers in (1, 2, 4, 99)]
    for one in found:
        assert one.cycles >= max(one.memory_cycles, one.decode_cycles)
        assert one.stall_cycles >= 0
        assert one.memory_cycles == found[0].memory_cycles
    assert found[3].cycles <= found[0].cycles
    work = np.ceil(stream.decode_clocks / ratio - 1e-9)
    apart = [fetch_ranges(memory, [piece]).cycles for piece in stream.ranges.tolist()]
    slack = 40 + memory.tRFC * 2 if hasattr(memory, "tRFC") else 40
    assert found[0].cycles <= sum(apart) + work.sum() + slack * len(tiles)


def test_a_head_is_fetched_before_the_first_chunk():
    starts = np.array([0, 100, 250, 260], np.int64)
    stream = tiles_of_chunks(
        40, starts, np.array([7, 9, 3]), np.array([1, 2, 3]), lanes=2, chunks_per_tile=2
    )
    assert stream.ranges.tolist() == [[0, 290], [290, 10]]
    assert stream.decode_clocks.tolist() == [9, 3]
    assert stream.compute_clocks.tolist() == [3, 3]
    four = tiles_of_chunks(
        0, np.arange(6), np.arange(1, 6), np.zeros(5, np.int64), lanes=2, chunks_per_tile=4
    )
    assert four.decode_clocks.tolist() == [2 + 4, 5]


def test_a_stream_in_one_piece_spreads_its_work():
    stream = tiles_of_stream(200, 10, 3, 64)
    assert stream.ranges.tolist() == [[0, 64], [64, 64], [128, 64], [192, 8]]
    assert (stream.decode_clocks.sum(), stream.compute_clocks.sum()) == (10, 3)
    assert tiles_of_stream(0, 0, 0, 64).ranges.shape == (0, 2)


def test_lanes_wait_for_the_fullest_as_measured():
    """16 lanes of 64 weights at a density of 0.1 reach 0.587 of their speed (random masks)."""
    rng = np.random.default_rng(0)
    nonzero = rng.random(16 * 64 * 4000) < 0.1
    assert utilisation(nonzero, 16, 1024) == pytest.approx(0.587, abs=0.01)
    assert utilisation(np.ones(1024, np.bool_), 16, 1024) == 1
    assert utilisation(np.zeros(1024, np.bool_), 16, 1024) == 1


def test_lane_clocks_by_hand():
    nonzero = np.array([1, 1, 0, 0, 0, 1, 0, 0, 1], np.bool_)
    assert lane_clocks(nonzero, 2, 8).tolist() == [2, 1]
    assert lane_clocks(nonzero, 8, 8).tolist() == [1, 1]
    assert lane_clocks(nonzero, 1, 8).tolist() == [3, 1]
    with pytest.raises(ValueError, match="must be at least 1"):
        lane_clocks(nonzero, 0, 8)


def test_wrong_figures_are_refused():
    with pytest.raises(ValueError, match="clock ratio must lie"):
        Accelerator(clock_ratio=0)
    with pytest.raises(ValueError, match="number of buffers"):
        Accelerator(buffers=0)
    none = np.zeros(0, np.int64)
    with pytest.raises(ValueError, match="need as many decode and compute"):
        TileStream(np.zeros((1, 2), np.int64), np.array([1]), none, none)
    with pytest.raises(ValueError, match="must rise from 0"):
        TileStream(np.zeros((2, 2), np.int64), np.array([1]), np.array([0]), np.array([0]))
