"""The contract of all controllers: deterministic, resumable, honest about what they have seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.search.controller import Controller, Problem, Trial
from onnxprune.search.run import make_controller
from onnxprune.search.space import Levels, Space, ladder

NAMES = ("bayes", "random")
MAX_DROP = 0.01


def make_space(elements: tuple[int, ...] = (400, 3000, 900)) -> Space:
    keeps = tuple(ladder(count) for count in elements)
    costs = tuple(tuple(float(keep) for keep in levels) for levels in keeps)
    return Space(tuple(f"w{i}" for i in range(len(elements))), keeps, costs)


def make_problem(starts: tuple[Levels, ...] = ()) -> Problem:
    return Problem(make_space(), MAX_DROP, starts)


def judge(problem: Problem, levels: Levels) -> Trial:
    """A known law: each weight has its own tolerance, losses add up and grow steeply."""
    tolerance = (10.0, 40.0, 22.0)
    drop = sum(
        0.004 * np.exp((level - limit) / 3) for level, limit in zip(levels, tolerance, strict=True)
    )
    return Trial(levels, problem.space.cost(levels), float(drop), float(drop) + 0.001)


def run(controller: Controller, trials: int) -> list[Levels]:
    asked = []
    for _ in range(trials):
        [levels] = controller.ask()
        asked.append(levels)
        controller.tell(judge(controller.problem, levels))
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_same_candidates(name: str) -> None:
    first = run(make_controller(name, make_problem(), seed=3), 12)
    assert first == run(make_controller(name, make_problem(), seed=3), 12)
    assert first != run(make_controller(name, make_problem(), seed=4), 12)


@pytest.mark.parametrize("name", NAMES)
def test_told_history_is_all_the_state_there_is(name: str) -> None:
    whole = make_controller(name, make_problem(), seed=0)
    run(whole, 15)
    resumed = make_controller(name, make_problem(), seed=0)
    for trial in whole.trials[:9]:
        resumed.tell(trial)
    assert run(resumed, 6) == [trial.levels for trial in whole.trials[9:]]


@pytest.mark.parametrize("name", NAMES)
def test_candidates_are_valid_and_never_repeat(name: str) -> None:
    controller = make_controller(name, make_problem(), seed=1)
    asked = run(controller, 20)
    assert len(set(asked)) == len(asked)
    tops = controller.problem.space.tops
    for levels in asked:
        assert len(levels) == len(tops)
        assert all(0 <= level <= top for level, top in zip(levels, tops, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_holds_different_candidates(name: str) -> None:
    controller = make_controller(name, make_problem(), seed=1)
    run(controller, 4)
    batch = controller.ask(5)
    assert len(set(batch)) == 5
    assert not set(batch) & {trial.levels for trial in controller.trials}


@pytest.mark.parametrize("name", NAMES)
def test_starts_come_first_and_in_order(name: str) -> None:
    starts = ((1, 2, 3), (4, 5, 6))
    controller = make_controller(name, make_problem(starts), seed=0)
    assert run(controller, 3)[:2] == list(starts)
    assert make_controller(name, make_problem(starts), seed=0).ask(2) == list(starts)


@pytest.mark.parametrize("name", NAMES)
def test_a_small_space_is_exhausted_without_end_or_repeat(name: str) -> None:
    keeps = ((4, 2), (3, 1))
    space = Space(("a", "b"), keeps, tuple(tuple(map(float, k)) for k in keeps))
    controller = make_controller(name, Problem(space, MAX_DROP), seed=0)
    seen = set()
    for _ in range(10):
        for levels in controller.ask():
            seen.add(levels)
            controller.tell(Trial(levels, space.cost(levels), 0.0, 0.0))
    assert seen == set(itertools.product((0, 1), repeat=2))
    assert controller.ask() == []


def test_bayes_beats_random_search_on_a_known_law() -> None:
    costs = {}
    for name in NAMES:
        best = []
        for seed in range(3):
            controller = make_controller(name, make_problem(), seed)
            run(controller, 40)
            trial = controller.problem.best(controller.trials)
            best.append(trial.cost if trial else float(sum((400, 3000, 900))))
        costs[name] = float(np.median(best))
    assert costs["bayes"] < 0.8 * costs["random"]


def test_best_is_the_cheapest_that_keeps_the_limit() -> None:
    problem = make_problem()
    trials = [
        Trial((0, 0, 0), 100, 0.0, 0.001),
        Trial((1, 0, 0), 50, 0.005, 0.011),
        Trial((2, 0, 0), 60, 0.004, 0.01),
        Trial((3, 0, 0), 60, 0.001, 0.002),
    ]
    assert problem.best(trials) is trials[2]
    assert problem.best(trials[1:2]) is None


def test_ladder_falls_from_all_to_few() -> None:
    for elements in (1, 2, 10, 500, 400_000):
        levels = ladder(elements)
        assert levels[0] == elements
        assert levels[-1] >= 1
        assert all(a > b for a, b in itertools.pairwise(levels))
        if elements > 10_000:
            assert levels[-1] == pytest.approx(elements / 1024, rel=0.01)
            ratios = [b / a for a, b in itertools.pairwise(levels)]
            assert max(ratios) < 0.93
