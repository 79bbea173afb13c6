from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passes.methods import METHODS, SECOND_ORDER, Pruner, taken
from passes.moments import Moments, moments
from passes.patterns import NM, Balanced, Block, Burst, Channel, Pattern, Segments, Unstructured
from passes.reconstruction import Quadratic, least_squares, quadratic, shrinkage
from passes.saliency import ranked_by_row, wanda

PATTERNS = (
    Unstructured(),
    NM(n=2, m=4),
    Block(rows=2, columns=2),
    Channel(taps=2, columns=2),
    Balanced(lanes=2, chunk=4),
    Segments(lanes=3, chunk=4),  # 12 of 32: tiles cross rows and groups
    Burst(burst=16, chunk=12),
)
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


def solved_in_words(method: str, keep: int, seed: int):
    dense, sums, problem = problem_of(seed=seed)
    weights, _, words = Pruner(method, dense, problem, sums.gram, Unstructured()).at(keep)
    return dense, problem, weights, words


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


def test_wide_reductions_are_never_above_magnitude_either(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the width of least squares the sweep alone can lose to magnitude's mask; then that is taken."""
    monkeypatch.setattr("passes.methods.ADMM_COLUMNS", 0)
    words = set()
    for seed in range(60):
        dense, problem, weights, label = solved_in_words("obs", 8, seed)
        mask = Unstructured().mask(np.abs(dense), int((weights != 0).sum()))
        assert problem.error(weights) <= problem.error(dense * mask) * (1 + 1e-9)
        words.add(label)
    assert words == {"sparsegpt", "sparsegpt, outdone by magnitude's mask"}


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


def correlated(positions: int, columns: int, seed: int) -> np.ndarray:
    """Inputs ``(1, positions, columns)`` whose variances fall over two orders of magnitude."""
    rng = np.random.default_rng(seed)
    scales = np.logspace(0, -1, columns)
    mixing = np.linalg.qr(np.random.default_rng(99).standard_normal((columns, columns)))[0]
    return ((rng.standard_normal((1, positions, columns)) * scales) @ mixing).astype(np.float32)


def test_shrinking_brings_a_gram_of_few_samples_nearer_to_that_of_many() -> None:
    few, many = correlated(30, 60, 1), correlated(100_000, 60, 2)
    sums = moments(few, np.zeros((1, 30, 2), np.float32))
    truth, seen = many[0].T @ many[0] / 100_000, sums.gram[0] / 30

    def distance(share: float) -> float:
        damped = (seen + share * np.trace(seen) / 60 * np.eye(60)) / (1 + share)
        return float(np.linalg.norm(damped - truth))

    (share,) = shrinkage(sums)
    best = min(np.logspace(-4, 1, 101), key=distance)
    assert best / 3 < share < best * 3
    assert distance(share) < 0.9 * distance(0.01)


def test_shrinking_fades_with_the_data_and_spares_what_no_data_reach() -> None:
    def share_of(positions: int) -> float:
        return float(shrinkage(moments(*[correlated(positions, 16, 3)] * 2))[0])

    shares = [share_of(positions) for positions in (8, 64, 512, 4096)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] <= 16 / 4096
    assert shares[0] <= 1
    white = np.random.default_rng(4).standard_normal((1, 512, 16)).astype(np.float32)
    assert shrinkage(moments(white, white))[0] <= 16 / 512
    dead = np.zeros((1, 8, 16), np.float32)
    assert shrinkage(moments(dead, dead))[0] == 0


def test_masks_of_few_samples_hold_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    few, others = correlated(30, 60, 5), correlated(4000, 60, 6)
    dense = np.random.default_rng(7).standard_normal((1, 20, 60))
    sums = moments(few, (few @ dense.transpose(0, 2, 1)).astype(np.float32))
    lost, told = [], []
    for shrunk in (True, False):
        if not shrunk:
            monkeypatch.setattr("passes.reconstruction.shrinkage", lambda _: np.zeros(1))
        problem = quadratic(sums, dense)
        weights, _, _ = Pruner("admm", dense, problem, sums.gram, Unstructured()).at(480)
        gone = others[0] @ (weights - dense)[0].T
        lost.append(float((gone**2).mean()))
        told.append(problem.error(weights) / 30 / 20)
    assert lost[0] < 0.7 * lost[1], "without it the few samples are fitted and nothing else"
    assert told[0] > 0.3 * lost[0], "the error that allocation sees is of the size of the real one"
    assert told[1] < 0.3 * lost[1]


def test_no_damping_is_none() -> None:
    x = correlated(64, 16, 8)
    problem = quadratic(moments(x, x), np.zeros((1, 16, 16)), damping=0.0)
    assert problem.damping == 0.0


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
