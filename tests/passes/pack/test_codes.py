"""Every position code: what it writes can be read back by the rule in its docstring."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.bits import unpack_fields
from passes.pack.codes import (
    ALL_CODES,
    QUICK_CODES,
    Bitmask,
    Coded,
    Delta,
    Positions,
    QuickDelta,
    Rice,
    planes_of,
)
from passes.pack.nested_codes import NESTED_CODES, Nested


def read_planes(coded: Coded, name: str, width: int, *, by_runs: bool = False) -> np.ndarray:
    """Fields from their planes; ``by_runs`` where field k of all bytes makes a run of entries."""
    total, shift = np.zeros(0, np.int64), 0
    for number, plane in enumerate(planes_of(width)):
        data = coded.arrays[f"{name}{number}"]
        assert data.dtype == np.uint8
        part = unpack_fields(data.tobytes(), plane, data.size * 8 // plane).astype(np.int64)
        if by_runs:
            part = part.reshape(-1, 8 // plane).T.ravel()
        total = part << shift if number == 0 else total + (part << shift)
        shift += plane
    return total


def read_nested(code: Nested, coded: Coded) -> np.ndarray:
    groups = -(-coded.length // int(np.prod(code.sizes)))
    mask = np.unpackbits(coded.arrays["outer"], bitorder="little")[:groups].astype(bool)
    for level, size in enumerate(code.sizes):
        bits = np.unpackbits(coded.arrays[f"level{level}"], bitorder="little")
        rows = np.zeros((mask.size, size), bool)
        assert not bits[:size].any()
        rows[mask] = bits[size : size + int(mask.sum()) * size].reshape(-1, size)
        mask = rows.ravel()
    return np.flatnonzero(mask)


def read(code, coded: Coded) -> np.ndarray:
    """The positions that the arrays stand for, fillers left out: a decoder written anew."""
    if isinstance(code, Bitmask):
        return np.flatnonzero(np.unpackbits(coded.arrays["bits"], bitorder="little"))
    if isinstance(code, Delta):
        steps = read_planes(coded, "step", code.bits, by_runs=isinstance(code, QuickDelta))
        places = np.cumsum(steps)[: coded.source.size]
        kept = coded.source >= 0
        _, first = np.unique(coded.source[kept], return_index=True)
        return places[kept][first]
    if isinstance(code, Nested):
        return read_nested(code, coded)
    assert isinstance(code, Rice)
    unary = np.unpackbits(coded.arrays["unary"], bitorder="little")[: coded.length]
    ends = np.flatnonzero(unary)
    quotients = np.diff(ends, prepend=-1) - 1
    lows = read_planes(coded, "low", code.low)
    assert lows[0] == (1 << code.low) - 1
    return np.cumsum((quotients << code.low) + lows[1 : ends.size + 1] + 1) - 1


@given(data=st.data(), code=st.sampled_from((*ALL_CODES, *QUICK_CODES, *NESTED_CODES)))
@settings(max_examples=300, deadline=None)
def test_what_is_coded_can_be_read_and_costs_what_was_said(data, code) -> None:
    elements = data.draw(st.integers(1, 3000))
    at = data.draw(
        st.lists(st.integers(0, elements - 1), min_size=1, max_size=200, unique=True).map(sorted)
    )
    positions = Positions(elements, np.array(at, np.int64))
    coded, cost = code.encode(positions), code.cost(positions)
    assert read(code, coded).tolist() == at
    kept = coded.source[coded.source >= 0]
    assert np.unique(kept).tolist() == list(range(len(at)))
    assert np.count_nonzero(coded.source < 0) == cost.fillers
    # Exact up to whole bytes, up to 7 entries of padding, the one field of the zeros of Rice, and
    # the empty row of each level that is nested.
    written = sum(array.size for array in coded.arrays.values()) * 8
    assert 0 <= written - cost.bits < 8 * len(coded.arrays) + 9 * 16


@pytest.mark.parametrize("density", [0.02, 0.05, 0.1, 0.2, 0.3])
def test_the_gaps_take_less_than_elias_fano_and_little_more_than_entropy(density: float) -> None:
    from hwmodel.entropy import binary_entropy

    rng = np.random.default_rng(0)
    elements = 200_000
    at = np.flatnonzero(rng.random(elements) < density)
    positions = Positions(elements, at)
    best = min(code.cost(positions).bits for code in ALL_CODES if isinstance(code, Rice))
    low = int(np.log2(1 / density))
    elias_fano = at.size * (low + 1) + (elements >> low)
    assert best < elias_fano
    assert best / at.size < binary_entropy(density) / density + 0.12


def test_delta_keeps_fillers_off_what_is_stored() -> None:
    code = Delta(2)
    coded = code.encode(Positions(100, np.array([0, 1, 50, 99])))
    places = np.cumsum(read_planes(coded, "step", 2))
    assert not set(places[coded.source < 0]) & {0, 1, 50, 99}
    assert places.max() == 99
