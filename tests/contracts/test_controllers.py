"""The contract of all controllers: deterministic, resumable, honest about what they have seen."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxprune.search.controller import Controller
from onnxprune.search.problem import OBJECTIVES, Objective, Problem, Trial, front
from onnxprune.search.run import CONTROLLERS, make_controller
from onnxprune.search.space import Choice, Levels, Space, Variable, ladder

NAMES = CONTROLLERS
MAX_DROP = 0.01


def variable(name: str, keeps: tuple[int, ...]) -> Variable:
    return Variable(name, {name: keeps}, tuple(float(keep) for keep in keeps))


def make_space(elements: tuple[int, ...] = (400, 3000, 900)) -> Space:
    return Space(tuple(variable(f"w{i}", ladder(n)[0]) for i, n in enumerate(elements)))


def make_problem(starts: tuple[Levels, ...] = (), objective: Objective = "cost") -> Problem:
    space = make_space()
    budget = space.cost(space.dense) / 4 if objective == "drop" else None
    return Problem(space, MAX_DROP, starts, objective, budget)


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
    space = Space((variable("a", (4, 2)), variable("b", (3, 1))))
    controller = make_controller(name, Problem(space, MAX_DROP), seed=0)
    seen = set()
    for _ in range(10):
        for levels in controller.ask():
            seen.add(levels)
            controller.tell(Trial(levels, space.cost(levels), 0.0, 0.0))
    assert seen == set(itertools.product((0, 1), repeat=2))
    assert controller.ask() == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "random"])
def test_beats_random_search_on_a_known_law(name: str) -> None:
    costs = {}
    for rival in (name, "random"):
        best = []
        for seed in range(3):
            controller = make_controller(rival, make_problem(), seed)
            run(controller, 40)
            trial = controller.problem.best(controller.trials)
            best.append(trial.cost if trial else float(sum((400, 3000, 900))))
        costs[rival] = float(np.median(best))
    assert costs[name] < costs["random"]


def make_problem_with_choices(objective: Objective) -> Problem:
    """Four variants; the last one's levels cost a fifth more, and each weight tolerates more of them."""
    rungs = [ladder(n)[0] for n in (400, 3000, 900)]
    cheap = tuple(variable(f"w{i}", keeps) for i, keeps in enumerate(rungs))
    dear = tuple(Variable(v.name, v.keeps, tuple(1.2 * cost for cost in v.costs)) for v in cheap)
    choices = (Choice("prune.method", ("wanda", "obs")), Choice("prune.damping", (0.1, 0.01)))
    space = Space(cheap, 0.0, choices, (cheap, cheap, dear))
    budget = space.cost(space.dense) / 4 if objective == "drop" else None
    return Problem(space, MAX_DROP, (), objective, budget)


def judge_with_choices(problem: Problem, levels: Levels) -> Trial:
    method, damping, *rest = levels
    bonus = 8 * method * damping
    drop = judge(make_problem(), tuple(max(0, level - bonus) for level in rest)).drop
    return Trial(levels, problem.space.cost(levels), drop, drop + 0.001)


@pytest.mark.parametrize("objective", ["cost", "drop"])
@pytest.mark.parametrize("name", NAMES)
def test_hyper_parameters_are_decided_too(name: str, objective: Objective) -> None:
    problem = make_problem_with_choices(objective)
    controller = make_controller(name, problem, seed=0)
    for _ in range(60):
        [levels] = controller.ask()
        assert len(levels) == problem.space.dimensions == 5
        controller.tell(judge_with_choices(problem, levels))
    trials = controller.trials
    assert [{trial.levels[column] for trial in trials} for column in (0, 1)] == [{0, 1}, {0, 1}]
    if objective == "drop":
        assert problem.budget is not None
        assert all(trial.cost <= problem.budget for trial in trials)
    best = problem.best(trials)
    assert best is not None
    if name != "random":
        assert problem.space.values(best.levels) == {"prune.method": "obs", "prune.damping": 0.01}


def test_variants_have_costs_of_their_own() -> None:
    space = make_problem_with_choices("cost").space
    levels = np.array([[0, 0, 4, 5, 6], [1, 1, 4, 5, 6]])
    cheap, dear = space.cost_many(levels)
    assert dear == pytest.approx(1.2 * cheap)
    assert space.least_cost == space.cost((0, 0, *space.tops[2:].tolist()))
    shifted = space.within_many(levels.astype(float), np.full(2, 500.0))
    assert shifted[:, :2].tolist() == [[0, 0], [1, 1]]
    assert (space.cost_many(shifted) <= 500).all()
    assert (space.cost_many(shifted) > 400).all()


@pytest.mark.parametrize("name", NAMES)
def test_least_drop_at_a_budget(name: str) -> None:
    controller = make_controller(name, make_problem(objective="drop"), seed=0)
    problem = controller.problem
    run(controller, 40)
    assert problem.budget is not None
    assert all(trial.cost <= problem.budget for trial in controller.trials)
    best = problem.best(controller.trials)
    assert best is not None
    common = judge(problem, problem.space.within(problem.space.dense, problem.budget))
    assert best.drop < common.drop


@pytest.mark.parametrize("name", NAMES)
def test_a_front_is_spread_over_the_costs(name: str) -> None:
    controller = make_controller(name, make_problem(objective="front"), seed=0)
    space = controller.problem.space
    run(controller, 40)
    best = front(controller.trials)
    assert len(best) >= 6
    assert all(a.cost < b.cost and a.drop > b.drop for a, b in itertools.pairwise(best))
    assert best[0].cost < space.cost(space.dense) / 10
    assert best[-1].cost > space.cost(space.dense) / 3


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_race_has_to_beat_what_is_known(objective: Objective) -> None:
    problem = make_problem(objective=objective)
    known = [
        Trial((9, 9, 9), 1000.0, 0.02, 0.03),
        Trial((8, 9, 9), 1000.0, 0.001, 0.002, complete=False),
    ]
    limit = problem.must_beat(1075.0, known)
    assert limit == (MAX_DROP if objective == "cost" else 0.02)
    assert problem.must_beat(900.0, []) == (MAX_DROP if objective == "cost" else np.inf)


def test_shifting_to_a_budget_fills_it_and_keeps_proportions() -> None:
    space = make_space()
    dense = space.cost(space.dense)
    for share in (0.9, 0.5, 0.2, 0.05):
        levels = space.within((0.0, 8.0, 20.0), dense * share)
        assert dense * share * 0.9 < space.cost(levels) <= dense * share
        assert levels[0] <= levels[1] <= levels[2]
    assert space.within((0.0, 0.0, 0.0), dense) == space.dense
    assert space.within((0.0, 0.0, 0.0), 0.0) == tuple(space.tops.tolist())


def test_weights_of_one_variable_share_their_density() -> None:
    large, small = ladder(4096, 16)
    assert len(large) == len(small)
    assert all(abs(a / 4096 - b / 16) <= 1 / 16 for a, b in zip(large, small, strict=True))


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
        levels = ladder(elements)[0]
        assert levels[0] == elements
        assert levels[-1] >= 1
        assert all(a > b for a, b in itertools.pairwise(levels))
        if elements > 10_000:
            assert levels[-1] == pytest.approx(elements / 256, rel=0.01)
            ratios = [b / a for a, b in itertools.pairwise(levels)]
            assert max(ratios) < 0.85
