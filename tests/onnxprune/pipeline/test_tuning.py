"""Hyper-parameters of steps, found by controllers: the rungs that trials climb, and what is left of them."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.errors import RecipeError, RunError
from onnxprune.pipeline import actions
from onnxprune.pipeline.steps import PackStep
from onnxprune.pipeline.tuning import Rung, _Log, problem_of, with_passes
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.search.problem import Trial
from onnxprune.search.run import CONTROLLERS, make_controller

STRENGTH, RATE = "steps.0.penalty.strength", "steps.2.optimizer.learning_rate"

STEPS: tuple[dict[str, Any], ...] = (
    {"step": "sparsify", "passes": 4, "penalty": {"strength": {"search": [1e-5, 1e-3, "log"]}}},
    {"step": "prune", "gradual": {"passes": 4, "prune_every": 2}},
    {
        "step": "recover",
        "passes": 4,
        "optimizer": {"learning_rate": {"search": [1e-4, 1e-1, "log"]}},
    },
    {"step": "pack"},
    {"step": "verify"},
)


def recipe(**fields: Any) -> Recipe:
    given = {"max_drop": 1.0, "target": "4x", "search.trials": 5, "search.controller": "random"}
    return load_recipe(None, given | fields | {"steps": json.loads(json.dumps(STEPS))})


def available(controller: str) -> bool:
    return controller != "rl" or importlib.util.find_spec("stable_baselines3") is not None


def test_marks_of_steps_become_values() -> None:
    found = recipe()
    assert found.searched == (STRENGTH, RATE)
    strengths = found.search.vary[STRENGTH]
    assert (strengths[0], strengths[-1], len(strengths)) == (1e-5, 1e-3, 9)
    assert np.ptp(np.diff(np.log(np.array(strengths, float)))) < 1e-4
    assert (
        found.steps[0].penalty.strength == 1e-5
    )  # the first value stands in the place of the mark
    whole = load_recipe(
        None,
        {"steps": [{"step": "sparsify", "passes": {"search": [2, 40, "log"]}}]},
    ).search.vary["steps.0.passes"]
    assert all(isinstance(value, int) for value in whole)
    assert whole[0] == 2
    assert whole[-1] == 40
    read = load_recipe(
        None, {"steps": [{"step": "sparsify", "dropout": {"search": [True, False]}}]}
    )
    assert read.search.vary["steps.0.dropout"] == (True, False)


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (
            [{"step": "sparsify", "penalty": {"strength": {"search": [1e-3, 1e-5, "log"]}}}],
            "a range is .low, high, log. with low below high",
        ),
        (
            [{"step": "sparsify", "penalty": {"strngth": {"search": [1e-5, 1e-3]}}}],
            "strngth: there is no such field",
        ),
        (
            [{"step": "sparsify", "penalty": {"strength": {"search": [1e-3]}}}],
            r"a searched field is written \{search",
        ),
        (
            [{"step": "sparsify", "penalty": {"name": {"search": ["l1", "l3"]}}}],
            "input should be 'l_half'",
        ),
        (
            [{"step": "prune", "sparsity": {"search": [0.5, 0.9]}, "method": "magnitude"}],
            "says how small the model gets",
        ),
        ([{"step": "pack", "values": {"search": ["keep", "int8"]}}], "neither changes the model"),
        ([{"step": "encode", "chunk": {"search": [64, -1]}}], "greater than or equal to 0"),
        ([{"step": "calibrate", "samples": {"search": [8, 16]}}], "no step changes the model"),
        (
            [{"step": "sparsify", "passes": {"search": [1, 10**400, "log"]}}],
            "a range is .low, high, log.",
        ),
        (
            [
                {"step": "sparsify", "passes": {"search": [1, 2]}},
                {"step": "calibrate"},
                {"step": "prune"},
            ],
            "needs a sparsity or a target",
        ),
    ],
)
def test_marks_that_make_no_sense_are_refused(steps: list[Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        load_recipe(None, {"steps": steps})


def test_a_mark_that_no_step_would_look_at_is_refused() -> None:
    steps = [{"step": "prune", "sparsity": 0.5, "method": "magnitude"}]
    with pytest.raises(RecipeError, match="mark the field of the prune step itself"):
        load_recipe(None, {"prune.damping": {"search": [0.01, 0.1]}, "steps": steps})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RecipeError, match="nested too deeply"):
        load_recipe(None, {"steps": loop})


def test_a_share_of_the_passes_is_that_of_every_step_that_trains() -> None:
    few = with_passes(recipe(), 0.25)
    assert [few.steps[0].passes, few.steps[1].gradual.passes, few.steps[2].passes] == [1, 1, 1]
    assert with_passes(recipe(), 0.5).steps[0].passes == 2
    assert few.steps[3:] == recipe().steps[3:]


def trial_of(levels: tuple[int, ...], drop: float, *, complete: bool = True) -> Trial:
    return Trial(levels, 1.0, drop, drop, complete=complete)


def test_one_in_so_many_goes_on_from_a_rung(tmp_path: Path) -> None:
    log, rung = _Log(tmp_path / "rungs.jsonl"), Rung(1.0, 1)
    went_on = []
    for number, drop in enumerate([0.5, 0.4, 0.6, 0.45, 0.3, 0.3]):
        log.add((number,), rung, drop, drop)
        went_on.append(log.deserves((number,), rung, 3.0))
    # Of 1, 2 and 3 the best one goes on, of 4 to 6 the best two; equals go on together.
    assert went_on == [True, True, False, True, True, True]
    assert log.later(rung, []) == 0.0
    trials = [trial_of((0,), 0.2), trial_of((1,), 0.2), trial_of((4,), 0.2, complete=False)]
    assert log.later(rung, trials) == pytest.approx(-0.25)  # the median of -0.3 and -0.2
    again = _Log(tmp_path / "rungs.jsonl")
    assert again.of((4,), rung) == (0.3, 0.3)
    with (tmp_path / "rungs.jsonl").open("a") as file:
        file.write('[[9], "1/1", 0.')  # torn by a kill
    assert _Log(tmp_path / "rungs.jsonl").of((9,), rung) is None
    assert (tmp_path / "rungs.jsonl").read_text().endswith("\n")


@pytest.mark.parametrize("name", CONTROLLERS)
def test_every_controller_finds_better_values_than_the_first_ones(name: str) -> None:
    """On a law with one valley, without training: drops rise with the distance from it."""
    if not available(name):
        pytest.skip("stable-baselines3 is not installed")
    problem = problem_of(recipe(max_drop=0.01))
    controller = make_controller(name, problem, 0)
    valley = np.array([6, 3])
    for _ in range(25):
        [levels] = controller.ask()
        assert all(0 <= level < 9 for level in levels)
        distance = float(np.abs(np.array(levels) - valley).sum())
        controller.tell(trial_of(levels, 0.01 * distance))
    tried = [trial.levels for trial in controller.trials]
    assert len(set(tried)) == 25
    best = problem.best(controller.trials)
    assert best is not None
    assert best.drop <= 0.02
    again = make_controller(name, problem, 0)
    for trial in controller.trials[:10]:
        again.tell(trial)
    assert again.ask() == [tried[10]]


def test_trials_share_their_steps_and_the_run_takes_the_best_ones(
    mlp: Path, mlp_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    act = actions.act

    def counted(step: Any, *arguments: Any) -> Any:
        done.append(step.step)
        return act(step, *arguments)

    monkeypatch.setattr(actions, "act", counted)
    settings = recipe(**{"search.trials": 4, "search.reduction": 1})
    alone = {"vary": {RATE: settings.search.vary[RATE]}, "fidelity": None}
    fields = settings.search.model_copy(update=alone)
    settings = settings.model_copy(update={"search": fields})
    run = tmp_path / "run"
    report = api.compress(mlp, mlp_data, run, settings)
    assert done.count("sparsify") == 1
    assert done.count("prune") == 1
    assert done.count("recover") == 4
    assert report.search is not None
    assert report.steps is not None
    drops = [
        json.loads(line)["drop"] for line in (run / "journal.jsonl").read_text().splitlines()[1:]
    ]
    assert len(drops) == 4
    assert report.search.best[0].drop == min(drops)
    assert [step.done for step in report.steps] == [*["in_a_trial"] * 3, "now", "now"]
    found = load_recipe(run / "found.yaml", {})
    assert found.steps[2].optimizer.learning_rate == report.search.chosen[RATE]
    assert not found.searched
    assert load_recipe(run / "recipe.yaml", {}).searched == (RATE,)
    assert not (run / "trials").exists()
    # What comes after the model may change, and nothing is searched again.
    packed = settings.model_copy(
        update={"steps": (*settings.steps[:3], PackStep(step="pack", values="float16"))}
    )
    report = api.compress(mlp, mlp_data, run, packed, resume=True)
    assert done.count("recover") == 4
    assert [step.done for step in report.steps or ()] == [*["before"] * 3, "now"]
    # The recipe that was found gives the same model.
    api.compress(mlp, mlp_data, tmp_path / "again", found)
    assert (tmp_path / "again" / "model.onnx").read_bytes() == (run / "model.onnx").read_bytes()


def test_a_stopped_trial_costs_less_than_a_whole_one(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    settings = recipe(**{"search.trials": 9, "search.reduction": 100.0})
    report = api.compress(mlp, mlp_data, tmp_path / "run", settings)
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()[1:]
    complete = [json.loads(line)["complete"] for line in lines]
    rungs = [
        json.loads(line)[1] for line in (tmp_path / "run" / "rungs.jsonl").read_text().splitlines()
    ]
    assert complete[0]
    assert not all(complete)
    assert rungs.count("0.25/2") == 9
    assert rungs.count("1/2") == sum(complete)
    assert report.search is not None
    assert len(report.search.best) <= sum(complete)


def test_a_trial_that_diverges_is_told_so_and_the_others_go_on(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    steps = json.loads(json.dumps(STEPS))
    steps[0]["penalty"]["strength"] = 1e-4
    steps[2]["optimizer"]["learning_rate"] = {"search": [1e-3, 1e6, 1e7, 1e8]}
    fields = {"max_drop": 1.0, "target": "4x", "search.trials": 4, "search.controller": "random"}
    settings = load_recipe(None, fields | {"steps": steps})
    report = api.compress(mlp, mlp_data, tmp_path / "run", settings)
    assert report.search is not None
    assert report.search.chosen[RATE] == 1e-3
    assert any("3 of 4 trials diverged" in warning for warning in report.warnings)
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()[1:]
    assert sorted(json.loads(line)["complete"] for line in lines) == [False, False, False, True]


@pytest.mark.parametrize("levels", [[99, 0], [-1, 0], [0], [], [1e999, 0]])
def test_a_journal_with_other_trials_is_refused(
    mlp: Path, mlp_data: Path, tmp_path: Path, levels: list[float]
) -> None:
    run, settings = tmp_path / "run", recipe(**{"search.trials": 1})
    api.compress(mlp, mlp_data, run, settings)
    journal = run / "journal.jsonl"
    header, trial = journal.read_text().splitlines()
    changed = json.dumps(json.loads(trial) | {"levels": levels})
    journal.write_text(f"{header}\n{changed}\n")
    with pytest.raises(RunError, match="is damaged"):
        api.compress(mlp, mlp_data, run, settings, resume=True)
    journal.write_text(f"{header}\n{trial}\n")
    (run / "rungs.jsonl").write_text('[[1e999, 0], "1/1", 0, 0]\n')
    with pytest.raises(RunError, match="is damaged"):
        api.compress(mlp, mlp_data, run, settings, resume=True)


def test_workers_are_not_ignored_in_silence(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"leave search\.workers at 1"):
        api.compress(mlp, mlp_data, tmp_path / "run", recipe(**{"search.workers": 2}))


def test_a_dry_run_tells_what_tuning_would_take(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(), dry_run=True)
    assert report.expected is not None
    first = report.expected[0]
    assert first.step == "tune"
    assert first.does == "5 trials of random over 2 fields"
    assert first.seconds > report.expected[1].seconds
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("trials", [1, 3])
def test_killed_while_tuning_and_resumed_it_finds_the_same(
    mlp: Path, mlp_data: Path, tmp_path: Path, trials: int, start: Callable[..., subprocess.Popen]
) -> None:
    settings = recipe()
    api.compress(mlp, mlp_data, tmp_path / "whole", settings)
    run = tmp_path / "killed"
    process = start(settings, run)
    journal, deadline = run / "journal.jsonl", time.monotonic() + 120
    while not journal.exists() or len(journal.read_text().splitlines()) <= trials:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(0.2)  # into the next trial
    process.send_signal(signal.SIGKILL)
    process.wait()
    api.compress(mlp, mlp_data, run, settings, resume=True)
    for name in ("model.onnx", "model.packed.onnx", "journal.jsonl", "rungs.jsonl", "found.yaml"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
