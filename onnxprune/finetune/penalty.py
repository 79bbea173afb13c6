"""Penalties that make weights small or zero: L½ and its neighbours.

Each penalty R has three faces: its value, the gradient of a smoothed form (bounded near zero, so
that plain gradient descent can use it), and its proximal map, which sets weights exactly to zero:

    prox(x, kappa) = argmin over h of  (h - x)^2 / 2 + kappa R(h)

Notations: ``x`` are weights of any shape, float; ``kappa`` is a number or a tensor that broadcasts
to them. With SGD a proximal step at learning rate ``lr`` and strength ``s`` takes ``kappa = lr s``.
Adam moves each weight in a metric of its own, ``D = sqrt(v) + epsilon``; the proximal step in that
metric, argmin D (h - x)^2 / 2 + lr s R(h), takes ``kappa = lr s / D``: see :func:`kappa_in_metric`.

Sources: the half-thresholding map is that of Xu, Chang, Xu and Zhang (2012), "L1/2 regularization:
a thresholding representation theory and a fast solver", IEEE TNNLS 23; the smoothed L½ is the
modified penalty of Wu, Fan, Zurada, Wang, Yang and Liu (2014), "Batch gradient method with
smoothing L1/2 regularization for training of feedforward neural networks", Neural Networks 50.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

Kappa = Any
"""A number, or a tensor that broadcasts to the weights."""

NAMES = ("l_half", "l1", "l2", "group_l_half", "group_l1", "none")


@dataclass(frozen=True)
class Penalty(abc.ABC):
    """The contract of all penalties.

    Attributes:
        smoothing: where the smoothed form leaves the penalty itself, in units of the weights.
    """

    smoothing: float = 1e-3
    name: ClassVar[str]

    @abc.abstractmethod
    def value(self, x: Tensor) -> Tensor:
        """R of all weights together, smoothed, a scalar."""

    @abc.abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """The gradient of :meth:`value`, of the shape of ``x``."""

    @abc.abstractmethod
    def prox(self, x: Tensor, kappa: Kappa) -> Tensor:
        """The proximal map, of the shape of ``x``."""

    @abc.abstractmethod
    def threshold(self, kappa: float) -> float:
        """The largest magnitude (of a weight, or of a group) that :meth:`prox` sets to zero."""

    @abc.abstractmethod
    def kappa_of(self, threshold: float) -> float:
        """The inverse of :meth:`threshold`."""

    def kappa_for(self, magnitudes: Tensor, keep: int) -> float:
        """The kappa whose proximal map leaves ``keep`` nonzeros: the closed rule for k survivors.

        Args:
            magnitudes: absolute values (or group norms), any shape, at least ``keep`` of them.
            keep: how many stay; fewer do where magnitudes tie at the edge.
        """
        flat = magnitudes.detach().reshape(-1)
        if keep >= flat.numel():
            return 0.0
        edge = float(flat.kthvalue(flat.numel() - keep).values)
        kappa = self.kappa_of(edge)
        # Rounding, in the weights' own dtype, must not let the edge itself survive.
        while float(torch.tensor(self.threshold(kappa), dtype=flat.dtype)) < edge:
            kappa *= 1 + 2**-24
        return kappa


@final
@dataclass(frozen=True)
class LHalf(Penalty):
    """Sum of sqrt(|w|), the L½ quasi-norm.

    Its gradient diverges at zero. The smoothed form replaces |w| below ``a = smoothing`` by
    f(w) = -w^4 / (8 a^3) + 3 w^2 / (4 a) + 3 a / 8, twice continuously differentiable at a, so the
    gradient f'(w) / (2 sqrt(f(w))) is bounded and 0 at 0 (Wu et al. 2014).
    """

    name: ClassVar[str] = "l_half"

    def value(self, x: Tensor) -> Tensor:
        """Sum of sqrt(f(w))."""
        return self._smooth_abs(x).sqrt().sum()

    def gradient(self, x: Tensor) -> Tensor:
        """f'(w) / (2 sqrt(f(w)))."""
        near = (x / self.smoothing).clamp(-1, 1)  # w / a inside, the sign outside
        slope = near * (1.5 - 0.5 * near.square())
        return slope / (2 * self._smooth_abs(x).sqrt())

    def _smooth_abs(self, x: Tensor) -> Tensor:
        """f(w): the polynomial up to a, where it is a, and the distance beyond a on top."""
        a = self.smoothing
        square = (x / a).clamp(-1, 1).square()
        inside = a * (0.375 + square * (0.75 - 0.125 * square))
        return inside + (x.abs() - a).clamp_min(0)

    def prox(self, x: Tensor, kappa: Kappa) -> Tensor:
        """Half-thresholding, in closed form."""
        limit = torch.as_tensor(1.5 * kappa ** (2 / 3), dtype=x.dtype, device=x.device)
        kappa = torch.as_tensor(kappa, dtype=x.dtype, device=x.device)
        size = x.abs()
        kept = size > limit
        # Where nothing is kept the angle has no meaning; any valid one will do.
        angle = torch.acos(
            torch.where(kept, kappa / 4 * (size.clamp_min(1e-30) / 3) ** -1.5, 0.0).clamp(-1, 1)
        )
        shrunk = 2 / 3 * x * (1 + torch.cos(2 * math.pi / 3 - 2 / 3 * angle))
        return torch.where(kept, shrunk, torch.zeros_like(x))

    def threshold(self, kappa: float) -> float:
        """1.5 kappa^(2/3)."""
        return 1.5 * kappa ** (2 / 3)

    def kappa_of(self, threshold: float) -> float:
        """(threshold / 1.5)^(3/2)."""
        return (threshold / 1.5) ** 1.5


@final
@dataclass(frozen=True)
class L1(Penalty):
    """Sum of |w|; smoothed as sqrt(w^2 + a^2) - a with ``a = smoothing``."""

    name: ClassVar[str] = "l1"

    def value(self, x: Tensor) -> Tensor:
        """Sum of sqrt(w^2 + a^2) - a."""
        return ((x**2 + self.smoothing**2).sqrt() - self.smoothing).sum()

    def gradient(self, x: Tensor) -> Tensor:
        """W / sqrt(w^2 + a^2)."""
        return x / (x**2 + self.smoothing**2).sqrt()

    def prox(self, x: Tensor, kappa: Kappa) -> Tensor:
        """Soft thresholding."""
        return x.sign() * (x.abs() - kappa).clamp_min(0)

    def threshold(self, kappa: float) -> float:
        """Kappa itself."""
        return kappa

    def kappa_of(self, threshold: float) -> float:
        """The threshold itself."""
        return threshold


@final
@dataclass(frozen=True)
class L2(Penalty):
    """Sum of w^2 / 2, weight decay; its proximal map shrinks and sets nothing to zero."""

    name: ClassVar[str] = "l2"

    def value(self, x: Tensor) -> Tensor:
        """Half the sum of squares."""
        return (x**2).sum() / 2

    def gradient(self, x: Tensor) -> Tensor:
        """The weights themselves."""
        return x

    def prox(self, x: Tensor, kappa: Kappa) -> Tensor:
        """W / (1 + kappa)."""
        return x / (1 + kappa)

    def threshold(self, kappa: float) -> float:
        """0: only zero itself stays zero."""
        del kappa
        return 0.0

    def kappa_of(self, threshold: float) -> float:
        """No kappa sets a weight to zero: raises :class:`RecipeError`."""
        del threshold
        msg = "l2 sets no weight to zero, so no strength leaves a given number; use l_half or l1"
        raise RecipeError(msg)


@final
@dataclass(frozen=True)
class Group(Penalty):
    """Another penalty of the norms of groups: all weights at one index of ``axis`` live or die together.

    Attributes:
        inner: the penalty of the norms.
        axis: of a weight as the model stores it; 0 is the filters of a convolution.
    """

    inner: Penalty = LHalf()
    axis: int = 0
    name: ClassVar[str] = "group"

    def norms(self, x: Tensor) -> Tensor:
        """The Euclidean norm of each group, in a shape that broadcasts to ``x``."""
        others = [axis for axis in range(x.ndim) if axis != self.axis % max(x.ndim, 1)]
        return x.square().sum(others, keepdim=True).sqrt() if others else x.abs()

    def value(self, x: Tensor) -> Tensor:
        """The inner penalty of all norms."""
        return self.inner.value(self.norms(x))

    def gradient(self, x: Tensor) -> Tensor:
        """The inner gradient of the norm, along the group."""
        norms = self.norms(x)
        return self.inner.gradient(norms) * x / norms.clamp_min(1e-30)

    def prox(self, x: Tensor, kappa: Kappa) -> Tensor:
        """Scales each group as the inner map scales its norm."""
        norms = self.norms(x)
        if isinstance(kappa, torch.Tensor) and kappa.ndim:  # one metric for a group: its mean
            others = [axis for axis in range(x.ndim) if axis != self.axis % x.ndim]
            kappa = kappa.expand(x.shape).mean(others, keepdim=True) if others else kappa
        return x * (self.inner.prox(norms, kappa) / norms.clamp_min(1e-30))

    def threshold(self, kappa: float) -> float:
        """Of the norms: the inner one."""
        return self.inner.threshold(kappa)

    def kappa_of(self, threshold: float) -> float:
        """Of the norms: the inner one."""
        return self.inner.kappa_of(threshold)


def make_penalty(name: str, smoothing: float = 1e-3) -> Penalty | None:
    """A penalty by name; None for ``none``.

    Raises:
        RecipeError: for an unknown name.
    """
    made: dict[str, Penalty | None] = {
        "l_half": LHalf(smoothing),
        "l1": L1(smoothing),
        "l2": L2(smoothing),
        "group_l_half": Group(smoothing, LHalf(smoothing)),
        "group_l1": Group(smoothing, L1(smoothing)),
        "none": None,
    }
    if name not in made:
        msg = f"unknown penalty '{name}'; known are {', '.join(NAMES)}"
        raise RecipeError(msg)
    return made[name]


def kappa_in_metric(
    optimizer: torch.optim.Optimizer, parameter: torch.nn.Parameter, strength: float
) -> Kappa:
    """The kappa of a proximal step after ``optimizer.step()``, in the optimizer's own metric.

    SGD: ``lr * strength``. Adam and AdamW: ``lr * strength / (sqrt(v) + epsilon)`` for each weight,
    v the bias-corrected second moment; 0 for a weight that has not moved yet.

    Raises:
        RecipeError: for another optimizer.
    """
    group = next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
    step = float(group["lr"]) * strength
    if isinstance(optimizer, torch.optim.SGD):
        return step
    if not isinstance(optimizer, torch.optim.Adam):
        msg = f"no proximal step is known for {type(optimizer).__name__}; use SGD or Adam"
        raise RecipeError(msg)
    state = optimizer.state.get(parameter, {})
    if "exp_avg_sq" not in state:
        return 0.0
    correction = 1 - group["betas"][1] ** float(state["step"])
    metric = (state["exp_avg_sq"] / correction).sqrt() + group["eps"]
    return step / metric
