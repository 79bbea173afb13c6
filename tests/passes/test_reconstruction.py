from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.methods import METHODS, SECOND_ORDER, Pruner, taken
from passes.moments import Moments, moments
from passes.patterns import NM, Block, Channel, Pattern, Unstructured
from passes.reconstruction import Quadratic, least_squares, quadratic
from passes.saliency import ranked_by_row, wanda

PATTERNS = (Unstructured(), NM(n=2, m=4), Block(rows=2, columns=2), Channel(taps=2, columns=2))
NAMED = tuple(method for method in METHODS if method != "obs")


def problem_of(
    rows: int = 4, columns: int = 8, samples: int = 200, groups: int = 1, seed: int = 0
) -> tuple[np.ndarray, Moments, Quadratic]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((groups, columns, columns))
    x = (rng.standard_normal((groups, samples, columns)) @ mixing).astype(np.float32)
    dense = rng.standard_normal((groups, rows, columns))
    sums = moments(x, (x @ dense.transpose(0, 2, 1)).astype(np.float32))
    return dense, sums, quadratic(sums, dense)


def solved(method: str, pattern: Pattern, keep: int, seed: int = 0, **sizes: int):
    dense, sums, problem = problem_of(seed=seed, **sizes)
    weights, mask, _ = Pruner(method, dense, problem, sums.gram, pattern).at(keep)
    return dense, problem, weights, mask


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@pytest.mark.parametrize("method", NAMED)
def test_every_method_keeps_every_pattern(method: str, pattern: Pattern) -> None:
    _, _, weights, mask = solved(method, pattern, 32, groups=2)
    assert mask.sum() <= 32
    assert pattern.obeys(mask)
    assert weights[~mask].tobytes() == bytes(8 * int((~mask).sum())), "+0.0 where nothing is kept"
    assert pattern.obeys(weights != 0)
    again = solved(method, pattern, 32, groups=2)[2]
    assert np.array_equal(weights, again), "equal input, equal bits"


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@pytest.mark.parametrize("method", sorted(SECOND_ORDER - {"obs"}))
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_error_is_never_above_magnitude(method: str, pattern: Pattern, seed: int) -> None:
    dense, problem, weights, mask = solved(method, pattern, 16, seed=seed)
    by_magnitude = dense * pattern.mask(np.abs(dense), int(mask.sum()))
    assert problem.error(weights) <= problem.error(by_magnitude) * (1 + 1e-9)


@pytest.mark.parametrize("method", ["admm", "exact"])
def test_near_the_best_of_all_masks(method: str) -> None:
    """One row of 8: all 70 masks with exact least squares tell what is possible."""
    ratios = []
    for seed in range(12):
        _, problem, weights, _ = solved(method, Unstructured(), 4, seed=seed, rows=1)
        best = min(
            problem.error(least_squares(problem, _mask_of(kept, 8)))
            for kept in itertools.combinations(range(8), 4)
        )
        assert problem.error(weights) >= best * (1 - 1e-6)
        ratios.append(problem.error(weights) / best)
    assert np.median(ratios) < 1.1
    assert np.mean(np.isclose(ratios, 1, rtol=1e-6)) >= 0.4


def test_removing_one_weight_costs_what_obs_says() -> None:
    """Brute force over the first removal: w_p^2 / [H^-1]_pp, and the least of them is taken."""
    _, problem, weights, mask = solved("exact", Unstructured(), 7, rows=1)
    inverse = np.linalg.inv(problem.hessian[0])
    costs = problem.optimum[0, 0] ** 2 / np.diagonal(inverse)
    assert np.flatnonzero(~mask[0, 0]).tolist() == [int(np.argmin(costs))]
    assert problem.error(weights) == pytest.approx(costs.min(), rel=1e-6)


@pytest.mark.parametrize("wide", [False, True])
def test_a_fixed_support_is_solved_exactly(wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if wide:
        monkeypatch.setattr("passes.reconstruction.EXACT_COLUMNS", 0)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((1, 300, 12)).astype(np.float32)
    t = rng.standard_normal((1, 300, 5)).astype(np.float32)
    problem = quadratic(moments(x, t), np.zeros((1, 5, 12)), damping=0.0)
    mask = rng.random((1, 5, 12)) < 0.6
    got = least_squares(problem, mask)
    for row in range(5):
        kept = mask[0, row]
        want = np.linalg.lstsq(x[0][:, kept], t[0, :, row], rcond=None)[0]
        np.testing.assert_allclose(got[0, row, kept], want, rtol=1e-3, atol=1e-4)


def test_dead_inputs_keep_their_dense_values() -> None:
    x = np.random.default_rng(0).standard_normal((1, 50, 6)).astype(np.float32)
    x[:, :, 2] = 0
    dense = np.ones((1, 3, 6))
    problem = quadratic(moments(x, x @ np.ones((6, 3), np.float32)), dense)
    np.testing.assert_allclose(problem.optimum[0, :, 2], 1.0)


@pytest.mark.parametrize("method", NAMED)
@pytest.mark.parametrize("samples", [1, 3])
def test_rank_deficient_grams_are_solved(method: str, samples: int) -> None:
    _, problem, weights, _ = solved(method, Unstructured(), 12, samples=samples)
    assert np.isfinite(weights).all()
    assert problem.damping >= 0.01


def test_damping_is_raised_by_the_stated_rule_and_told() -> None:
    x = np.ones((1, 4, 6), np.float32)  # rank 1: no Cholesky without damping
    problem = quadratic(moments(x, np.ones((1, 4, 2), np.float32)), np.ones((1, 2, 6)), damping=0.0)
    assert problem.damping > 0
    assert np.log10(problem.damping / 1e-6) == pytest.approx(
        round(np.log10(problem.damping / 1e-6))
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    x = np.ones((1, 4, 3), np.float32)
    x[0, 1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        moments(x, np.ones((1, 4, 2), np.float32))


def test_obs_says_what_it_takes() -> None:
    assert taken("obs", 64) == "admm"
    assert taken("obs", 4096) == "sparsegpt"
    assert taken("exact", 4096) == "exact"


def test_wanda_compares_within_a_row() -> None:
    dense = np.array([[[1.0, 2.0, 3.0, 4.0], [100.0, 1.0, 50.0, 2.0]]])
    gram = np.diag([1.0, 1.0, 100.0, 1.0])[None]
    scores = wanda(dense, gram)
    assert scores[0, 0].tolist() == [1, 2, 30, 4]
    mask = Unstructured().mask(ranked_by_row(scores), 4)
    assert mask[0].tolist() == [[False, False, True, True], [True, False, True, False]]


def _mask_of(kept: tuple[int, ...], columns: int) -> np.ndarray:
    mask = np.zeros((1, 1, columns), np.bool_)
    mask[0, 0, list(kept)] = True
    return mask
