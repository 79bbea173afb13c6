"""Penalties against brute force, finite differences and their own rules."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import RecipeError
from onnxprune.finetune.penalty import (
    L1,
    L2,
    Group,
    LHalf,
    kappa_in_metric,
    make_penalty,
)

PLAIN = {"l_half": lambda h: np.sqrt(np.abs(h)), "l1": np.abs, "l2": lambda h: h**2 / 2}


def brute_force(x: float, kappa: float, penalty) -> float:
    """The best value that (h - x)^2 / 2 + kappa R(h) takes on a fine grid that holds 0."""
    grid = np.append(np.linspace(-abs(x) * 1.01, abs(x) * 1.01, 200_001), 0.0)
    return float(((grid - x) ** 2 / 2 + kappa * penalty(grid)).min())


@settings(max_examples=150, deadline=None)
@given(
    x=st.floats(-10, 10, allow_nan=False, allow_subnormal=False),
    kappa=st.floats(1e-4, 20),
    name=st.sampled_from(sorted(PLAIN)),
)
def test_the_proximal_map_reaches_the_minimum(x: float, kappa: float, name: str) -> None:
    penalty = make_penalty(name)
    h = float(penalty.prox(torch.tensor([x], dtype=torch.float64), kappa))
    reached = (h - x) ** 2 / 2 + kappa * float(PLAIN[name](np.float64(h)))
    assert reached <= brute_force(x, kappa, PLAIN[name]) + 1e-9 * max(1.0, x * x)


@given(kappa=st.floats(1e-4, 20))
@settings(max_examples=50, deadline=None)
def test_half_thresholding_jumps_from_zero_to_kappa_to_the_two_thirds(kappa: float) -> None:
    edge = 1.5 * kappa ** (2 / 3)
    below, above = torch.tensor([edge * (1 - 1e-9), edge * (1 + 1e-9)], dtype=torch.float64)
    assert float(LHalf().prox(below, kappa)) == 0.0
    assert float(LHalf().prox(above, kappa)) == pytest.approx(kappa ** (2 / 3), rel=1e-3)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), keep=st.integers(0, 60), name=st.sampled_from(["l_half", "l1"]))
def test_the_closed_rule_leaves_exactly_k(seed: int, keep: int, name: str) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).standard_normal(57)).float()
    penalty = make_penalty(name)
    survivors = penalty.prox(x, penalty.kappa_for(x.abs(), keep))
    assert int((survivors != 0).sum()) == min(keep, 57)


@pytest.mark.parametrize("penalty", [LHalf(0.1), L1(0.1), L2(), Group(0.1, LHalf(0.1), 1)])
def test_the_gradient_is_that_of_the_value(penalty) -> None:
    x = torch.linspace(-0.5, 0.5, 60, dtype=torch.float64).reshape(6, 10) + 0.003
    point = x.clone().requires_grad_()
    penalty.value(point).backward()
    torch.testing.assert_close(penalty.gradient(x), point.grad)


def test_the_smoothed_gradient_is_bounded_and_meets_the_plain_one() -> None:
    penalty = LHalf(1e-3)
    x = torch.linspace(-0.01, 0.01, 20_001, dtype=torch.float64)
    gradient = penalty.gradient(x)
    assert float(gradient.abs().max()) < 0.75 / math.sqrt(1e-3)
    assert float(penalty.gradient(torch.zeros(1))) == 0.0
    outside = x.abs() >= 1e-3
    plain = x.sign() / (2 * x.abs().sqrt())
    torch.testing.assert_close(gradient[outside], plain[outside])
    # Twice continuously differentiable at the seam: the slope of the gradient does not jump.
    step = 1e-7
    around = torch.tensor([1e-3 - 2 * step, 1e-3 - step, 1e-3 + step, 1e-3 + 2 * step]).double()
    g = penalty.gradient(around)
    assert float((g[1] - g[0]) / step) == pytest.approx(float((g[3] - g[2]) / step), rel=0.02)


def test_groups_live_or_die_together() -> None:
    x = torch.tensor([[0.1, 0.1], [2.0, 0.001]])
    y = Group(1e-3, LHalf(), 0).prox(x, 0.2)
    assert y[0].tolist() == [0.0, 0.0]
    assert bool((y[1] != 0).all())
    assert float(y[1, 0] / y[1, 1]) == pytest.approx(2000, rel=1e-4)


def test_l2_has_no_strength_for_a_number_of_survivors() -> None:
    with pytest.raises(RecipeError, match="sets no weight to zero"):
        L2().kappa_for(torch.ones(4), 2)
    with pytest.raises(RecipeError, match="unknown penalty 'l3'"):
        make_penalty("l3")
    assert make_penalty("none") is None


def test_the_step_is_in_the_optimizers_metric() -> None:
    """For Adam: the proximal point minimises D (h - x)^2 / 2 + lr s R(h), D = sqrt(v) + epsilon."""
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    adam = torch.optim.Adam([weight], lr=0.01)
    (weight * torch.tensor([1.0, 100.0])).sum().backward()
    adam.step()
    kappa = kappa_in_metric(adam, weight, 2.0)
    torch.testing.assert_close(kappa, 0.01 * 2.0 / (torch.tensor([1.0, 100.0]) + 1e-8))
    sgd = torch.optim.SGD([weight], lr=0.01)
    assert kappa_in_metric(sgd, weight, 2.0) == 0.02
    with pytest.raises(RecipeError, match="Adagrad"):
        kappa_in_metric(torch.optim.Adagrad([weight]), weight, 1.0)
