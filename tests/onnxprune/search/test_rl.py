"""The agent behind the controller ``rl``: it learns, and leaves global random states alone."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from scipy import stats

from onnxprune import PruningEnv, RecipeError
from onnxprune.search.agent import AGENTS, Agent
from onnxprune.search.problem import Problem, Trial
from onnxprune.search.rl import RlController
from onnxprune.search.run import make_controller
from onnxprune.search.space import Levels, Space, Variable, ladder
from onnxprune.search.walk import SCALES

SIZES = (400, 3000, 900, 5000)
TOLERANCE = np.array([5.0, 20.0, 11.0, 15.0])


def make_problem() -> Problem:
    variables = tuple(
        Variable(f"w{i}", {f"w{i}": (rungs := ladder(size)[0])}, tuple(map(float, rungs)))
        for i, size in enumerate(SIZES)
    )
    return Problem(Space(variables), 0.01)


def judge(problem: Problem, levels: Levels) -> Trial:
    drop = float(0.003 * np.exp((np.array(levels) - TOLERANCE) / 2).sum())
    return Trial(levels, problem.space.cost(levels), drop, drop + 0.001)


def env_of(problem: Problem, **options) -> PruningEnv:
    return PruningEnv(problem, lambda levels: judge(problem, levels), reward="margin", **options)


def run(controller: RlController, trials: int) -> list[Levels]:
    for _ in range(trials):
        [levels] = controller.ask()
        controller.tell(judge(controller.problem, levels))
    return [trial.levels for trial in controller.trials]


def taught(kind: str, reward_of, episodes: int = 60) -> tuple[Agent, PruningEnv]:
    """An agent that has seen random plans and what they earn."""
    problem = make_problem()
    env = env_of(problem, scale="ladder")
    agent = Agent(kind, env, seed=0)
    rng = np.random.default_rng(0)
    levels = rng.integers(0, problem.space.tops + 1, size=(episodes, len(SIZES)))
    seen, actions = env.walk.follow(levels, np.full(episodes, np.inf))
    agent.remember(seen, actions, reward_of(actions))
    for seed in range(15):
        agent.train(20, seed)
    return agent, env


@pytest.mark.parametrize("kind", AGENTS)
def test_actor_and_critic_learn_what_earns(kind: str) -> None:
    wanted = np.array([0.2, 0.8, 0.5, 0.7])
    agent, env = taught(kind, lambda actions: -4 * ((actions - wanted) ** 2).sum(axis=1))
    episodes = env.walk.begin(np.array([np.inf]))
    for _ in SIZES:
        episodes.decide(episodes.levels_of(agent.act(episodes.observe())))
    random = np.random.default_rng(1).random((1000, len(SIZES)))
    assert ((episodes.actions - wanted) ** 2).sum() < np.mean(
        ((random - wanted) ** 2).sum(axis=1)
    ) / 2
    plans = np.random.default_rng(2).integers(0, env.problem.space.tops + 1, size=(100, 4))
    seen, actions = env.walk.follow(plans, np.full(100, np.inf))
    values = agent.value(seen[:, -1], actions[:, -1].astype(np.float64))
    assert stats.spearmanr(values, -((actions - wanted) ** 2).sum(axis=1)).statistic > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_and_scale_searches(agent: str, scale: str) -> None:
    controller = RlController(make_problem(), 0, agent=agent, scale=scale)
    asked = run(controller, 16)
    assert len(set(asked)) == 16
    best = controller.problem.best(controller.trials)
    assert best is not None
    assert best.cost < sum(SIZES) / 3


def test_global_random_states_neither_matter_nor_change() -> None:
    np.random.seed(1)  # noqa: NPY002 - what is tested
    torch.manual_seed(1)
    first = run(RlController(make_problem(), 0), 14)
    np.random.seed(2)  # noqa: NPY002
    torch.manual_seed(2)
    torch_before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    threads = torch.get_num_threads()
    assert run(RlController(make_problem(), 0), 14) == first
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert torch.get_num_threads() == threads


def test_a_missing_extra_is_named(monkeypatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "stable_baselines3" else real(name, *rest),
    )
    with pytest.raises(RecipeError, match=r"needs stable_baselines3; .* \"onnxprune\[rl\]\""):
        make_controller("rl", make_problem(), 0)
