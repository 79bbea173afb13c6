"""What a search ends with: objectives, finishing, and honesty about the held-out part."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxprune import api
from onnxprune.errors import RecipeError
from onnxprune.recipe import load_recipe
from onnxprune.search.finish import WORTH, next_shift


def searched(mlp: Path, data: Path, folder: Path, **fields: object) -> dict:
    recipe = load_recipe(None, {"max_drop": 0.05, "search.trials": 20, **fields})
    api.search(mlp, data, folder, recipe)
    return json.loads((folder / "report.json").read_text())


def test_least_drop_within_a_target(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    report = searched(mlp, mlp_data, tmp_path / "run", target="4x", **{"search.objective": "drop"})
    assert report["totals"]["compression_rate"] >= 4
    assert report["totals"]["compression_rate"] < 5
    assert report["target"]["met"]
    assert report["search"]["objective"] == "drop"


def test_least_drop_without_a_target_is_refused(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"objective drop needs a target"):
        searched(mlp, mlp_data, tmp_path / "run", **{"search.objective": "drop"})


def test_a_front_holds_plans_of_many_sizes(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    report = searched(mlp, mlp_data, tmp_path / "run", **{"search.objective": "front"})
    shown = report["search"]["best"]
    assert len(shown) >= 3
    costs = [trial["cost"] for trial in shown]
    drops = [trial["drop"] for trial in shown]
    assert costs == sorted(costs)
    assert drops == sorted(drops, reverse=True)
    assert costs[-1] > 2 * costs[0]


@pytest.mark.parametrize("controller", ["bayes", "random"])
def test_hyper_parameters_are_found_with_the_plan(
    mlp: Path, mlp_data: Path, tmp_path: Path, controller: str
) -> None:
    vary = {"prune.method": ["magnitude", "obs"], "prune.pattern": ["unstructured", "2:4"]}
    fields = {"search.vary": vary, "search.trials": 40, "search.controller": controller}
    report = searched(mlp, mlp_data, tmp_path / "run", **fields)
    chosen = report["search"]["chosen"]
    assert set(chosen) == set(vary)
    assert all(chosen[name] in values for name, values in vary.items())
    assert report["methods"]["saliency"] == chosen["prune.method"]
    patterns = {weight["pattern"] for weight in report["weights"]}
    assert patterns == {chosen["prune.pattern"]}
    tried = {tuple(trial["chosen"].values()) for trial in report["search"]["best"]}
    assert tried
    assert not (tmp_path / "run" / "levels").exists()


def test_finishing_tries_are_in_the_journal_and_counted(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    report = searched(mlp, mlp_data, tmp_path / "run", **{"search.finish": 3})
    journal = (tmp_path / "run" / "journal.jsonl").read_text()
    lines = [json.loads(line) for line in journal.splitlines()]
    finishes = [line for line in lines if "finish" in line]
    assert 2 <= len(finishes) <= 3
    assert finishes[0]["shift"] == 0
    assert report["search"]["candidates"] == report["search"]["trials"] + len(finishes)
    assert (
        "finish" not in searched(mlp, mlp_data, tmp_path / "none", **{"search.finish": 0})["search"]
    )


@pytest.mark.parametrize("edge", [-0.1, -0.02, 0.1, 0.9])
def test_shifts_close_in_on_the_sparsest_that_keeps_the_limit(edge: float) -> None:
    low: float | None = None
    high: float | None = None
    shift: float | None = 0.0
    for _ in range(10):
        assert shift is not None
        low, high = (shift, high) if shift <= edge else (low, shift)
        shift = next_shift(low, high)
    assert low is not None
    assert high is not None
    assert low <= edge < high
    assert high - low < 0.05


def test_shifts_end_where_a_finish_would_not_be_worth_it() -> None:
    mildest = next_shift(None, 0.0)
    assert mildest is not None
    assert 2.0**-mildest <= WORTH
    assert next_shift(None, mildest) is None


def test_a_plan_that_breaks_the_limit_on_held_out_samples_says_so(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    """With next to no confidence asked for, the best of many trials is a lucky one."""
    fields = {"search.confidence": 0.5, "search.finish": 0, "search.trials": 60, "max_drop": 0.02}
    for seed in range(12):
        report = searched(mlp, mlp_data, tmp_path / str(seed), seed=seed, **fields)
        if not report["quality"]["target_met"]:
            break
    else:
        pytest.fail("no seed broke the limit")
    instead = report["search"].get("instead")
    if instead is not None:
        assert instead["held_out_drop"] <= 0.02
        assert 1 <= instead["looked_at"] <= 10
        assert any("breaks the limit on held-out samples" in text for text in report["warnings"])
        assert set(instead["sparsity"]) == {"fc0.weight", "fc1.weight"}
    command = [
        sys.executable, "-m", "onnxprune", "search", str(mlp), "--data", str(mlp_data),
        "-o", str(tmp_path / "cli"), "--trials", "60", "--max-drop", "0.02", "--seed", str(seed),
        "--set", "search.confidence=0.5", "--set", "search.finish=0",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, "done, but the limit was not met"


def test_show_prints_the_front(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    searched(mlp, mlp_data, tmp_path / "run")
    command = [sys.executable, "-m", "onnxprune", "search", "--show"]
    shown = subprocess.run(
        [*command, str(tmp_path / "run")], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert "of 20 trials are beaten by no other" in shown.stdout
    missing = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert missing.returncode == 2
    assert "holds no journal.jsonl" in missing.stderr
    assert missing.stderr.count("\n") == 1


def test_minutes_end_a_search(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    report = searched(
        mlp, mlp_data, tmp_path / "run", **{"search.trials": 1_000_000, "search.minutes": 0.02}
    )
    assert 1 <= report["search"]["trials"] < 100_000
    assert np.isfinite(report["quality"]["drop"])
