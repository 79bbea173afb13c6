"""Models of the drop over candidates: scikit-optimize's Gaussian process and its forest.

Both depart from a trend that rises with the level of every variable: far from all trials, pruning
more must not look as safe as anything else. Choices follow no trend; to the models their values lie in a
row, which is right for numbers in order and harmless for a few names.

Notations
---------
M  candidates to predict, T  trials, D  decisions, C  choices among them (the first columns); units are
levels scaled to 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np
from scipy import optimize
from skopt.learning import ExtraTreesRegressor, GaussianProcessRegressor
from skopt.learning.gaussian_process.kernels import ConstantKernel, Matern, Sum, WhiteKernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

REFIT = 1.2
"""The process's hyper-parameters are fitted again when there are so many times the trials ..."""
LAST_FIT = 200
"""... and not any more past so many: a fit costs the cube of their number."""

TREES = 100


class Surrogate(Protocol):
    """Predicts the drop."""

    def predict(
        self,
        units: NDArray[np.float64],
        target: NDArray[np.float64],
        at: NDArray[np.float64],
        *,
        told: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the drop, each ``(M,)``.

        Args:
            units: what was tried, ``(T, D)``.
            target: what came of it, ``(T,)``.
            at: where to predict, ``(M, D)``.
            told: how many of the T are trials; those after them are pending, their targets assumed.
        """


@final
class Process:
    """A Gaussian process (Matern 5/2, one length scale a variable).

    Its hyper-parameters are those that fit a prefix of the trials best; the prefix grows in steps of
    :data:`REFIT` up to :data:`LAST_FIT` trials. So they still follow from the trials alone.

    Args:
        seed: of the restarts of the fit.
        choices: C.
    """

    def __init__(self, seed: int, choices: int = 0) -> None:
        self._seed = seed
        self._choices = choices
        self._kernels: dict[int, Any] = {}

    def predict(
        self,
        units: NDArray[np.float64],
        target: NDArray[np.float64],
        at: NDArray[np.float64],
        *,
        told: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See :class:`Surrogate`."""
        prefix = _prefix(min(told, LAST_FIT))
        if prefix not in self._kernels:
            first = units[:prefix]
            left = target[:prefix] - _Trend(first, target[:prefix], self._choices).at(first)
            kernel = _kernel(units.shape[1])
            self._kernels[prefix] = self._fit(kernel, first, left, search=True).kernel_
        trend = _Trend(units, target, self._choices)
        model = self._fit(self._kernels[prefix], units, target - trend.at(units), search=False)
        mean, deviation = model.predict(at, return_std=True)
        return mean + trend.at(at), deviation

    def _fit(
        self,
        kernel: Any,
        units: NDArray[np.float64],
        left: NDArray[np.float64],
        *,
        search: bool,
    ) -> Any:
        """The process of what a trend leaves of the targets."""
        model = GaussianProcessRegressor(
            kernel=kernel,
            normalize_y=True,
            optimizer=_searched if search else None,
            n_restarts_optimizer=1,
            random_state=self._seed,
        )
        model.fit(units, left)
        return model


@final
class Forest:
    """Extremely randomised trees: for more variables than a process can tell apart.

    Args:
        seed: of the trees.
        choices: C.
    """

    def __init__(self, seed: int, choices: int = 0) -> None:
        self._seed = seed
        self._choices = choices

    def predict(
        self,
        units: NDArray[np.float64],
        target: NDArray[np.float64],
        at: NDArray[np.float64],
        *,
        told: int,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """See :class:`Surrogate`."""
        del told
        trend = _Trend(units, target, self._choices)
        model = ExtraTreesRegressor(TREES, min_samples_leaf=2, random_state=self._seed)
        model.fit(units, target - trend.at(units))
        mean, deviation = model.predict(at, return_std=True)
        return mean + trend.at(at), deviation


class _Trend:
    """The trend of targets in all decisions but the first ``choices``."""

    def __init__(
        self, units: NDArray[np.float64], target: NDArray[np.float64], choices: int
    ) -> None:
        self._choices = choices
        self._coefficients = rising_trend(units[:, choices:], target)

    def at(self, units: NDArray[np.float64]) -> NDArray[np.float64]:
        """Its values at candidates ``(M, D)``; ``(M,)``."""
        values: NDArray[np.float64] = features(units[:, self._choices :]) @ self._coefficients
        return values


def features(units: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns 1, -1, u and u^2 of candidates ``(M, D)``; ``(M, 2 + 2 D)``."""
    ones = np.ones((len(units), 1))
    return np.hstack([ones, -ones, units, units**2])


def rising_trend(units: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares on :func:`features` that never fall in any dimension; ``(2 + 2 D,)``."""
    columns = features(units)
    ridge = np.sqrt(1e-3 * len(units)) * np.eye(columns.shape[1])
    padded = np.concatenate([target, np.zeros(len(ridge))])
    coefficients: NDArray[np.float64] = optimize.nnls(np.vstack([columns, ridge]), padded)[0]
    return coefficients


def _prefix(trials: int) -> int:
    """The largest prefix of ``trials`` trials whose hyper-parameters are fitted."""
    size = 1
    while (larger := max(size + 1, int(size * REFIT))) <= trials:
        size = larger
    return size


class _QuietSum(Sum):  # type: ignore[misc]
    """A sum of kernels that does not warn of a length scale at its bound, which is no news for the user.

    To filter warnings instead would change the filters of the whole process, other threads' too.
    """

    def _check_bounds_params(self) -> None:
        """Nothing: called after each fit."""


def _searched(
    loss: Any, start: NDArray[np.float64], bounds: Any
) -> tuple[NDArray[np.float64], float]:
    """Hyper-parameters of least loss, as scikit-learn's own search finds them; where it stops is good enough."""
    found = optimize.minimize(loss, start, method="L-BFGS-B", jac=True, bounds=bounds)
    return found.x, found.fun


def _kernel(dimensions: int) -> Any:
    scales = Matern(
        length_scale=np.ones(dimensions), length_scale_bounds=[(0.05, 20.0)] * dimensions, nu=2.5
    )
    return _QuietSum(ConstantKernel(1.0, (1e-2, 1e3)) * scales, WhiteKernel(1e-2, (1e-5, 1e0)))
