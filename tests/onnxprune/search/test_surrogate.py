"""The surrogate models: what the contract suite of controllers does not see of them."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from onnxprune.search.surrogate import Process


def test_a_scale_at_its_bound_is_no_warning_and_filters_stay() -> None:
    """Warnings are errors here; other threads must see theirs all the while."""
    rng = np.random.default_rng(0)
    units = rng.uniform(size=(24, 2))
    target = np.sin(40 * units[:, 0])  # far shorter than the least length scale

    def predict(seed: int) -> float:
        mean, _ = Process(seed).predict(units, target, units, told=len(units))
        return float(np.abs(mean - target).max())

    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(predict, [0, 0, 0, 0]))
    assert warnings.filters == filters
    assert len(set(together)) == 1
    plain = GaussianProcessRegressor(RBF(1.0, (0.9, 1.1)))  # the same library does warn otherwise
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain.fit(units, target)
    assert any(issubclass(w.category, ConvergenceWarning) for w in caught)
