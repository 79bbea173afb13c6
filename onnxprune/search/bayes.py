"""Bayesian search with scikit-optimize's Gaussian process.

The cost of a candidate is known before it is tried; only its drop is not. So the process models the
drop alone, and the next candidate is the one with the highest expected saving over the best so far:
log(best cost / its cost) times the probability that it keeps the limit (Gardner et al. 2014,
"Bayesian Optimization with Inequality Constraints", with a deterministic objective). The process
departs from a trend that rises with the level of every weight.
"""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, final

import numpy as np
from scipy import optimize, special
from skopt.learning import GaussianProcessRegressor
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

from onnxprune.search.controller import Controller, Problem, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.space import Levels

POOL = 2000
"""Candidates drawn around the best ones for each ask."""
STRIDES = (1.0, 3.0, 8.0, 20.0)
"""Standard deviations, in levels, of the steps away from good candidates."""
PARENTS = 5
_FILTERS = threading.Lock()
"""The filters of warnings belong to the whole process: one search at a time may change them."""
REFIT = 1.2
"""The process's hyper-parameters are fitted again when there are so many times the trials."""


@final
class BayesController(Controller):
    """A Gaussian process (Matern 5/2, one length scale a weight) on the drop.

    Its hyper-parameters are those that fit a prefix of the trials best; the prefix grows in steps of
    ``REFIT``, for fitting is what costs time. So they still follow from the trials alone.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        super().__init__(problem, seed)
        self._kernels: dict[int, Any] = {}

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """The unseen candidate of highest expected saving, or None when the pool has none."""
        pool = self._pool(rng, self.seen(pending))
        if not len(pool):
            return None
        space = self.problem.space
        chance = self._chance(space.unit(pool), pending)
        best = self.problem.best(self.trials)
        best_cost = best.cost if best else space.cost((0,) * space.dimensions)
        costs = np.maximum(space.cost_many(pool), 1e-9)
        value = np.maximum(np.log(best_cost / costs), 0.0) * chance
        if not value.max() > 0:  # nothing near saves: learn about the cheapest that may be kept
            value = np.maximum(np.log(space.cost((0,) * space.dimensions) / costs), 0.0) * chance
        return tuple(int(level) for level in pool[value.argmax()])

    def _pool(self, rng: np.random.Generator, seen: set[Levels]) -> NDArray[np.int64]:
        space = self.problem.space
        ranked = sorted(self.trials, key=lambda t: (not self.problem.feasible(t), t.cost))
        parents = np.array([t.levels for t in ranked[:PARENTS]] or [(0,) * space.dimensions])
        base = parents[rng.integers(len(parents), size=POOL)]
        stride = rng.choice(STRIDES, size=(POOL, 1))
        moved = rng.random((POOL, space.dimensions)) < rng.uniform(0.2, 1.0, size=(POOL, 1))
        steps = np.rint(rng.standard_normal(base.shape) * stride * moved).astype(np.int64)
        anywhere = rng.integers(0, space.tops + 1, size=(POOL // 10, space.dimensions))
        pool = np.concatenate([np.clip(base + steps, 0, space.tops), anywhere])
        pool = np.unique(pool, axis=0)
        fresh = [tuple(row) not in seen for row in pool.tolist()]
        unseen: NDArray[np.int64] = pool[np.array(fresh, dtype=bool)]
        hopeful = ~self.problem.hopeless(unseen, self.trials)
        return unseen[hopeful] if hopeful.any() else unseen

    def _chance(self, units: NDArray[np.float64], pending: Sequence[Levels]) -> NDArray[np.float64]:
        """Probability of keeping the limit, ``(M,)``; pending candidates count as just failing."""
        if not self.trials:
            return np.full(len(units), 0.5)
        told = self.problem.space.unit(np.array([t.levels for t in self.trials] + list(pending)))
        target = np.array(
            [scaled_drop(t, self.problem) for t in self.trials] + [0.1] * len(pending)
        )
        prefix = _prefix(len(self.trials))
        if prefix not in self._kernels:
            self._kernels[prefix] = _fit(
                _kernel(told.shape[1]), told[:prefix], target[:prefix], self.seed
            )[0].kernel_
        model, trend = _fit(self._kernels[prefix], told, target, None)
        mean, deviation = model.predict(units, return_std=True)
        mean = mean + _features(units) @ trend
        chance: NDArray[np.float64] = special.ndtr(-mean / np.maximum(deviation, 1e-9))
        return chance


def scaled_drop(trial: Trial, problem: Problem) -> float:
    """The upper bound of the drop, log-scaled around the limit: negative where it is kept."""
    scale = max(problem.max_drop, 1e-4) / 2
    limit = np.arcsinh(problem.max_drop / scale)
    return float(np.arcsinh(min(trial.drop_upper, 1.0) / scale) - limit)


def _features(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns 1, -1, u and u^2 of candidates ``(M, D)``; ``(M, 2 + 2 D)``."""
    ones = np.ones((len(units), 1))
    return np.hstack([ones, -ones, units, units**2])


def _rising_trend(units: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares on :func:`_features` that never fall in any dimension; ``(2 + 2 D,)``.

    It is the mean that the process departs from: far from all trials, pruning more must not look
    as safe as anything else.
    """
    features = _features(units)
    ridge = np.sqrt(1e-3 * len(units)) * np.eye(features.shape[1])
    padded = np.concatenate([target, np.zeros(len(ridge))])
    coefficients: NDArray[np.float64] = optimize.nnls(np.vstack([features, ridge]), padded)[0]
    return coefficients


def _prefix(trials: int) -> int:
    """The largest prefix of ``trials`` trials whose hyper-parameters are fitted."""
    size = 1
    while (larger := max(size + 1, int(size * REFIT))) <= trials:
        size = larger
    return size


def _kernel(dimensions: int) -> Any:
    return ConstantKernel(1.0, (1e-2, 1e3)) * Matern(
        length_scale=np.ones(dimensions), length_scale_bounds=[(0.05, 20.0)] * dimensions, nu=2.5
    ) + WhiteKernel(1e-2, (1e-5, 1e0))


def _fit(
    kernel: Any, units: NDArray[np.float64], target: NDArray[np.float64], seed: int | None
) -> tuple[Any, NDArray[np.float64]]:
    """A process on what the trend leaves of ``target``, and the trend.

    The kernel's hyper-parameters are fitted with random restarts of that seed; None keeps them.
    """
    trend = _rising_trend(units, target)
    model = GaussianProcessRegressor(
        kernel=kernel,
        normalize_y=True,
        optimizer=None if seed is None else "fmin_l_bfgs_b",
        n_restarts_optimizer=1,
        random_state=seed,
    )
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a length scale at its bound is no news for the user
        model.fit(units, target - _features(units) @ trend)
    return model, trend
