"""Lossy forms of values: what they lose is bounded, and what is packed is just that."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from passes.layout import columns_first, rows_first
from passes.pack.values import kmeans, nearest, parse_values, prepare

INT8, FLOAT16 = parse_values("int8"), parse_values("float16")


def sparse(shape, density: float = 0.2, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < density, array, np.float32(0))


@pytest.mark.parametrize("text", ["codebook1", "codebook257", "codebook", "int4", "", "Keep"])
def test_unknown_forms_are_named_with_those_there_are(text: str) -> None:
    with pytest.raises(ValueError, match="allowed are keep, float16, int8, codebook2 to"):
        parse_values(text)


@pytest.mark.parametrize(
    ("shape", "layout", "scale"),
    [
        ((8, 3, 3, 3), rows_first((8, 3, 3, 3)), (8, 1, 1, 1)),
        ((30, 20), columns_first((30, 20)), (1, 20)),
        ((4, 30, 20), columns_first((4, 30, 20)), (4, 1, 20)),
    ],
)
def test_int8_has_one_scale_for_each_output_channel(shape, layout, scale) -> None:
    array = sparse(shape)
    prepared = prepare(array, INT8, layout)
    assert prepared.array.dtype == np.int8
    assert prepared.scale is not None
    assert prepared.scale.shape == scale
    rebuilt = prepared.array.astype(np.float32) * prepared.scale
    assert (rebuilt[array == 0] == 0).all()
    assert (np.abs(rebuilt - array) <= prepared.scale * 0.5001).all()
    rows = np.abs(layout.matrices(prepared.array)).max(axis=2)
    assert (rows == 127).all(), "each channel uses the whole range"


def test_float16_keeps_what_it_cannot_hold() -> None:
    array = sparse((20, 20))
    assert prepare(array, FLOAT16, None).array.dtype == np.float16
    array[0, 0] = 1e6
    assert prepare(array, FLOAT16, None).array is array


def test_int8_without_a_layout_and_infinite_weights_are_kept() -> None:
    array = sparse((20, 20))
    assert prepare(array, INT8, None).array is array
    array[0, 0] = np.inf
    for form in ("int8", "codebook4", "float16"):
        assert prepare(array, parse_values(form), rows_first((20, 20))).array is array


@example([0.0, 1.0, 2.0, 4.0, 5.0, 9.0, 1.5, 3.5], 7)  # 4.0 lies between two centres
@given(
    values=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=300),
    size=st.integers(2, 16),
)
@settings(max_examples=100, deadline=None)
def test_kmeans_is_no_worse_than_moving_any_centre(values: list[float], size: int) -> None:
    points = np.array(values, np.float64)
    centres = kmeans(points, np.ones(points.size), size)
    assert centres.size <= size
    assert (np.diff(centres) > 0).all()
    closest = nearest(centres, points)
    best = np.abs(points[:, None] - centres[None, :]).min(axis=1)
    np.testing.assert_allclose(np.abs(points - centres[closest]), best, atol=1e-9)
    for number in np.unique(closest):  # each centre is the mean of what is closest to it
        np.testing.assert_allclose(centres[number], points[closest == number].mean(), atol=1e-4)


def test_kmeans_of_three_clusters_is_exact_and_finds_the_best_of_all_splits() -> None:
    points = np.sort(np.random.default_rng(3).standard_normal(40))
    centres = kmeans(points, np.ones(40), 3)
    cost = ((points - centres[nearest(centres, points)]) ** 2).sum()
    best = min(
        sum(((part - part.mean()) ** 2).sum() for part in np.split(points, cuts))
        for cuts in itertools.combinations(range(1, 40), 2)
    )
    assert cost <= best * 1.1


def test_saliency_pulls_the_codebook_to_what_matters() -> None:
    array = sparse((40, 40), 0.5)
    matters = np.where(np.abs(array) < 0.3, np.float32(1000), np.float32(1))
    plain = prepare(array, parse_values("codebook8"), None).array
    weighted = prepare(array, parse_values("codebook8"), None, matters).array
    small = (np.abs(array) < 0.3) & (array != 0)
    assert ((weighted - array)[small] ** 2).sum() < ((plain - array)[small] ** 2).sum() / 2
    assert np.unique(weighted).size <= 9
    assert ((weighted == 0) == (array == 0)).all()
