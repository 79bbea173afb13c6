"""Pruning as an environment: valid to gymnasium, honest to its budget, and true to AMC."""

from __future__ import annotations

import itertools

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import onnxprune
from onnxprune.search.problem import Problem, Trial
from onnxprune.search.rewards import REWARD_NAMES, reward_by_name
from onnxprune.search.space import STEPS_PER_HALVING, Levels, Space, Variable, ladder
from onnxprune.search.walk import SCALES, Walk

SIZES = (400, 3000, 900)


def make_problem(budget: float | None = None) -> Problem:
    variables = tuple(
        Variable(f"w{i}", {f"w{i}": (rungs := ladder(size)[0])}, tuple(map(float, rungs)))
        for i, size in enumerate(SIZES)
    )
    features = tuple((i / 2, 0.5) for i in range(len(SIZES)))
    objective = "cost" if budget is None else "drop"
    return Problem(Space(variables, 10.0), 0.01, (), objective, budget, features)


def evaluate_with(problem: Problem):
    def evaluate(levels: Levels) -> Trial:
        drop = sum(levels) / 1000
        return Trial(levels, problem.space.cost(levels), drop, drop + 0.001)

    return evaluate


def make_env(budget: float | None = None, **options) -> gymnasium.Env:
    problem = make_problem(budget)
    return onnxprune.PruningEnv(problem, evaluate_with(problem), **options)


def play(env: gymnasium.Env, actions) -> tuple[float, dict]:
    env.reset(seed=0)
    for position, action in enumerate(actions):
        seen, reward, ended, truncated, info = env.step(np.array([action], np.float32))
        assert seen in env.observation_space
        assert not truncated
        assert ended == (position == len(actions) - 1)
        assert ended or reward == 0
    return reward, info


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("budget", [None, 1000.0])
def test_gymnasium_accepts_it(scale: str, budget: float | None) -> None:
    check_env(make_env(budget, scale=scale, base=(4, 9, 2)), skip_render_check=True)


def test_an_action_is_a_sparsity() -> None:
    problem = make_problem()
    _, info = play(make_env(), (0.5, 0.75, 0.0))
    keep = problem.space.keep(info["trial"].levels)
    assert keep == {"w0": 200, "w1": 750, "w2": 900}
    _, info = play(make_env(), (1.0, 1.0, 1.0))
    assert info["trial"].levels == tuple(problem.space.tops)


def test_a_walk_without_pruning_keeps_only_the_budget_that_is_asked() -> None:
    for budget in (200.0, 1000.0, 3000.0):
        _, info = play(make_env(budget), (0.0, 0.0, 0.0))
        cost = info["trial"].cost
        assert 0.85 * budget < cost <= budget
    env = make_env(1000.0)
    env.reset(options={"budget": 4310.0})
    for _ in SIZES:
        *_, info = env.step(np.zeros(1, np.float32))
    assert info["trial"].levels == (0, 0, 0)


def test_the_clamp_acts_no_earlier_than_it_must() -> None:
    env = make_env(1000.0)
    env.reset()
    *_, first = env.step(np.zeros(1, np.float32))
    assert first["level"] == 0
    *_, second = env.step(np.zeros(1, np.float32))
    keeps = ladder(3000)[0]
    left = 1000 - 10 - 400 - ladder(900)[0][-1]
    assert keeps[second["level"]] <= left < keeps[second["level"] - 1]
    assert second["action"] == pytest.approx(1 - keeps[second["level"]] / 3000, abs=0.001)


def test_observations_tell_the_budget_and_what_was_chosen() -> None:
    env = make_env(1000.0)
    first, _ = env.reset()
    other, _ = env.reset(options={"budget": 500.0})
    assert not np.array_equal(first, other)
    env.reset()
    low = env.step(np.array([0.1], np.float32))[0]
    env.reset()
    high = env.step(np.array([0.9], np.float32))[0]
    assert not np.array_equal(low, high)


@pytest.mark.parametrize("scale", SCALES)
def test_actions_and_levels_are_inverse(scale: str) -> None:
    levels = np.arange(14.0, 24.0)
    episodes = Walk(make_problem(), scale, (16, 20, 18)).begin(np.full(len(levels), np.inf))
    for _ in SIZES:
        back = episodes.levels_of(episodes.actions_of(levels))
        np.testing.assert_allclose(back, levels, atol=1e-6)
        episodes.decide(levels)


def test_corrections_start_from_the_plan_at_the_budget() -> None:
    problem = make_problem(1000.0)
    base = (5, 20, 12)
    env = onnxprune.PruningEnv(problem, evaluate_with(problem), scale="correction", base=base)
    assert play(env, (0.5, 0.5, 0.5))[1]["trial"].levels == problem.space.within(base, 1000.0)
    env = onnxprune.PruningEnv(
        make_problem(), evaluate_with(problem), scale="correction", base=base
    )
    assert play(env, (0.5, 0.5, 0.5))[1]["trial"].levels == base
    assert play(env, (0.5, 0.75, 0.25))[1]["trial"].levels == (
        5,
        20 + STEPS_PER_HALVING,
        12 - STEPS_PER_HALVING,
    )


def test_whole_episodes_are_what_the_environment_shows() -> None:
    env = make_env(1000.0)
    shown, done = [env.reset()[0]], []
    for action in (0.2, 0.9, 0.4):
        seen, *_, info = env.step(np.array([action], np.float32))
        shown.append(seen)
        done.append(info["action"])
    seen, actions = env.walk.follow(np.array([info["trial"].levels]), np.array([1000.0]))
    np.testing.assert_allclose(seen[0], shown[:-1], atol=1e-6)
    np.testing.assert_allclose(actions[0], done, atol=1e-6)


@pytest.mark.parametrize("name", REWARD_NAMES)
def test_less_drop_at_the_same_cost_earns_more(name: str) -> None:
    problem = make_problem()
    reward = reward_by_name(name)
    drops = (0.0, 0.005, 0.02, 0.3)
    earned = [reward(Trial((1, 1, 1), 500.0, drop, drop), problem) for drop in drops]
    assert all(a >= b for a, b in itertools.pairwise(earned))
    assert earned[0] > earned[-1] or name == "saving"


def test_savings_count_only_while_the_limit_is_kept() -> None:
    problem = make_problem()
    reward = reward_by_name("saving")
    kept = [reward(Trial((0, 0, 0), cost, 0.0, 0.01), problem) for cost in (4310.0, 400.0)]
    assert kept == [0.0, pytest.approx(1 - 400 / 4310)]
    assert reward(Trial((9, 9, 9), 10.0, 0.02, 0.011), problem) < 0


def test_amc_rewards_are_the_papers() -> None:
    problem = make_problem()
    trial = Trial((1, 1, 1), 500.0, 0.25, 0.3)
    assert reward_by_name("error")(trial, problem) == -0.25
    assert reward_by_name("error_log_cost")(trial, problem) == pytest.approx(-0.25 * np.log(500))
    with pytest.raises(ValueError, match="there is no reward 'best'; choose one of error"):
        reward_by_name("best")
