"""What an episode earns: AMC's rewards, and those that fit a limit on the drop.

Sources: He et al. 2018, "AMC: AutoML for Model Compression and Acceleration on Mobile Devices" (``error``
and ``error_log_cost``, there of the error where we have the drop, which differs by a constant; AMC's
cost is FLOPs, ours is that of the space).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

if TYPE_CHECKING:
    from onnxprune.search.problem import Problem, Trial

RewardName = Literal["error", "error_log_cost", "saving", "margin"]
REWARD_NAMES: tuple[RewardName, ...] = get_args(RewardName)

Reward = Callable[["Trial", "Problem"], float]


def error(trial: Trial, problem: Problem) -> float:
    """Minus the drop: for a walk that a budget bounds."""
    del problem
    return -trial.drop


def error_log_cost(trial: Trial, problem: Problem) -> float:
    """Minus the drop times the logarithm of the cost: accuracy first, cost where it is free."""
    del problem
    return -trial.drop * float(np.log(max(trial.cost, np.e)))


def saving(trial: Trial, problem: Problem) -> float:
    """The share of the dense cost that is saved, while the limit is kept; else below zero.

    A plan that breaks the limit earns minus its :meth:`Problem.scaled_drop`, or at the limit zero; one
    that breaks a budget likewise earns minus the logarithm of what it costs too much.
    """
    dense = problem.space.cost(problem.space.dense)
    if problem.feasible(trial):
        return 1 - trial.cost / dense
    excess = problem.scaled_drop(trial)
    if problem.objective != "cost" and problem.budget is not None:
        excess = float(np.log(trial.cost / problem.budget))
    return -max(excess, 0.0)


def margin(trial: Trial, problem: Problem) -> float:
    """How far the mean drop stays below the limit, log-scaled: for walks whose cost is given.

    It tells plans apart whose drops are far above the limit as well as those near it, and does not
    depend on how many samples were looked at, as the upper bound does.
    """
    return -problem.scaled(trial.drop)


_REWARDS: dict[RewardName, Reward] = {
    "error": error,
    "error_log_cost": error_log_cost,
    "saving": saving,
    "margin": margin,
}


def reward_by_name(name: RewardName) -> Reward:
    """One of :data:`REWARD_NAMES`.

    Raises:
        ValueError: when there is none of that name.
    """
    if name not in _REWARDS:
        msg = f"there is no reward {name!r}; choose one of {', '.join(REWARD_NAMES)}"
        raise ValueError(msg)
    return _REWARDS[name]
