"""The event model against cycle-accurate simulators, and against itself."""

import importlib.util
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.closed_form import consumer_limited_clocks, covers, stream_clocks
from hwmodel.dram.specification import Dram
from hwmodel.fetch import Requester, fetch_ranges, fetch_stream
from hwmodel.memory import load_memory, memory_names

ROOT = Path(__file__).parents[2]
DRAMS = [name for name in memory_names() if isinstance(load_memory(name), Dram)]


def load_benchmark():
    """benchmarks/fetch.py, which knows how to read a table of cycles."""
    spec = importlib.util.spec_from_file_location(
        "benchmark_fetch", ROOT / "benchmarks" / "fetch.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_fetch"] = module
    sys.path.insert(0, str(ROOT / "benchmarks"))  # where it finds what benchmarks share
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return module


BENCHMARK = load_benchmark()
GOLDEN = BENCHMARK.read_rows(ROOT / "tests" / "golden" / "cycles.tsv")


@pytest.mark.parametrize("name", DRAMS)
def test_cycles_are_those_of_the_simulators(name):
    rows = [row for row in GOLDEN if row.memory == name]
    assert rows
    for row in rows:
        fetch = row.model()
        assert (fetch.requests, fetch.cycles) == (row.requests, row.cycles), row


def all_rows(shared_folder, sizes):
    table = shared_folder / "cycles.tsv"
    if not table.is_file():
        pytest.skip("the simulators' table ../shared/cycles.tsv is not here")
    rows = [row for row in BENCHMARK.read_rows(table) if row.size in sizes]
    assert rows
    return [(row, row.model()) for row in rows]


def test_every_row_up_to_1_mib_is_exact(shared_folder):
    for row, fetch in all_rows(shared_folder, range((1 << 20) + 1)):
        assert (fetch.requests, fetch.cycles) == (row.requests, row.cycles), row


@pytest.mark.slow
def test_every_larger_row_is_exact(shared_folder):
    for row, fetch in all_rows(shared_folder, range((1 << 20) + 1, 1 << 30)):
        assert (fetch.requests, fetch.cycles) == (row.requests, row.cycles), row


@pytest.mark.parametrize("name", DRAMS)
def test_compiled_and_plain_python_agree(name, monkeypatch):
    """Also shows that machine code kept on disk is that of these sources."""
    from hwmodel.dram import simulate

    ranges = [(0x2A80, 6000), (1 << 20, 64), ((1 << 21) + 33, 3000)]
    requester = Requester(slots=16, drain=3, start=50)
    machine = fetch_ranges(load_memory(name), ranges, requester)
    monkeypatch.setattr(simulate, "drive", simulate.drive.py_func)
    assert fetch_ranges(load_memory(name), ranges, requester) == machine


@pytest.mark.parametrize("name", memory_names())
def test_more_bytes_never_take_less_and_never_beat_the_bus(name):
    memory = load_memory(name)
    sizes = [0, 1, 63, 64, 65, 4096, 4097, 10**5, 3 * 10**5, 10**6]
    fetches = [fetch_stream(memory, size) for size in sizes]
    cycles = [fetch.cycles for fetch in fetches]
    assert cycles == sorted(cycles)
    assert cycles[0] == 0 < cycles[1]
    for size, fetch in zip(sizes, fetches, strict=True):
        assert fetch.fetched_bytes == -(-size // memory.unit_bytes) * memory.unit_bytes
        assert fetch.cycles >= fetch.fetched_bytes / memory.peak_bytes_per_clock


streams = st.lists(
    st.tuples(st.integers(0, 300_000), st.integers(0, 5_000)), min_size=1, max_size=12
)


def in_order(gaps):
    """Ranges from gaps and lengths."""
    places = itertools.accumulate(gap + length for gap, length in gaps)
    return [(place - length, length) for place, (_, length) in zip(places, gaps, strict=True)]


@settings(max_examples=60, deadline=None)
@given(gaps=streams, name=st.sampled_from(DRAMS))
def test_any_stream_keeps_the_physical_bounds(gaps, name):
    memory = load_memory(name)
    ranges = in_order(gaps)
    fetch = fetch_ranges(memory, ranges)
    units = {
        unit
        for start, length in ranges
        if length
        for unit in range(start // memory.unit_bytes, (start + length - 1) // memory.unit_bytes + 1)
    }
    assert fetch.requests == len(units)
    if not units:
        assert fetch.cycles == 0
        return
    peak = fetch.fetched_bytes / memory.peak_bytes_per_clock
    assert fetch.cycles >= max(peak, memory.tRCD + memory.read_latency)
    assert fetch.requests >= fetch.activates - fetch.refreshes * memory.timing.banks
    assert fetch.cycles <= (fetch.requests + 2) * (memory.tRC + memory.tRP + 40) + (
        fetch.refreshes + 1
    ) * (memory.tRFC + 100)


@settings(max_examples=40, deadline=None)
@given(gaps=streams, rows=st.integers(1, 50), name=st.sampled_from(DRAMS))
def test_shifting_by_whole_rows_of_all_banks_changes_nothing(gaps, rows, name):
    """Rows are alike. Where column bits are xored into rows they change the lowest three bits."""
    memory = load_memory(name)
    all_banks = memory.row_bytes * memory.timing.banks * memory.channels
    all_banks *= 8 if memory.mapping_xor else 1
    ranges = in_order(gaps)
    moved = [(start + rows * all_banks, length) for start, length in ranges]
    assert fetch_ranges(memory, moved) == fetch_ranges(memory, ranges)


@settings(max_examples=30, deadline=None)
@given(
    cuts=st.lists(st.integers(1, 39_999), max_size=8),
    name=st.sampled_from(memory_names()),
)
def test_a_range_cut_in_pieces_is_the_same_fetch(cuts, name):
    memory = load_memory(name)
    edges = [0, *sorted(set(cuts)), 40_000]
    pieces = [(512 + start, end - start) for start, end in itertools.pairwise(edges)]
    assert fetch_ranges(memory, pieces) == fetch_stream(memory, 40_000, 512)


@pytest.mark.parametrize("name", [name for name in DRAMS if covers(load_memory(name))])
def test_closed_form_and_event_form_agree_where_the_closed_form_holds(name):
    memory = load_memory(name)
    for size in (256 << 10, 400_000, 1 << 20, 3_000_000, 4 << 20):
        assert stream_clocks(memory, size) == pytest.approx(
            fetch_stream(memory, size).cycles, rel=0.0095
        )


@pytest.mark.parametrize("name", [name for name in DRAMS if covers(load_memory(name))])
@pytest.mark.parametrize(("drain", "slots"), [(9, 64), (12, 16), (40, 8)])
def test_a_slow_consumer_sets_the_pace_and_a_deep_buffer_hides_refresh(name, drain, slots):
    memory = load_memory(name)
    for size in (256 << 10, 1 << 20):
        found = fetch_ranges(memory, [(0, size)], Requester(slots=slots, drain=drain)).cycles
        assert found == pytest.approx(consumer_limited_clocks(memory, size, drain, slots), rel=0.01)


def test_cycles_grow_smoothly_with_size_between_refreshes():
    """No jump from one burst to the next is longer than a row miss takes."""
    memory = load_memory("ddr4-2400")
    cycles = [fetch_stream(memory, 64 * bursts).cycles for bursts in range(1, 400)]
    steps = np.diff(cycles)
    assert steps.min() >= 0
    assert steps.max() <= memory.tRP + memory.tRCD + memory.tCCD_L


def test_an_untouched_consumer_or_endless_buffer_changes_nothing():
    memory = load_memory("lpddr4-2400")
    assert fetch_ranges(memory, [(0, 50_000)], Requester(slots=10_000, drain=1)).cycles == (
        fetch_stream(memory, 50_000).cycles
    )


def test_requesters_and_ranges_are_checked():
    with pytest.raises(ValueError, match="gap of a requester must lie between 0"):
        Requester(gap=-1)
    with pytest.raises(ValueError, match="line_bytes of a requester must be at least 1"):
        Requester(line_bytes=0)
    with pytest.raises(ValueError, match="cannot be negative"):
        fetch_ranges(load_memory("ddr4-2400"), [(-64, 64)])
