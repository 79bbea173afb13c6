"""The main job end to end on a small model: all deliverables, resumable, repeatable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from onnxprune import api
from onnxprune.errors import OutputError, RunError
from onnxprune.recipe import Recipe, load_recipe

DELIVERABLES = {
    "model.onnx",
    "model.packed.onnx",
    "weights.swb",
    "plan.json",
    "recipe.yaml",
    "journal.jsonl",
    "report.json",
    "report.html",
}
REPEATABLE = DELIVERABLES - {"report.json", "report.html"}


def recipe(trials: int = 25, **extra: object) -> Recipe:
    return load_recipe(None, {"max_drop": 0.05, "search.trials": trials, **extra})


def untimed(folder: Path) -> dict:
    report = json.loads((folder / "report.json").read_text())
    del report["timings_s"]
    return report


@pytest.fixture
def finished(mlp: Path, mlp_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    api.compress(mlp, mlp_data, folder, recipe())
    return folder


def test_a_run_folder_holds_everything_and_it_agrees(
    finished: Path, mlp: Path, tmp_path: Path
) -> None:
    assert {p.name for p in finished.iterdir()} == DELIVERABLES
    report = untimed(finished)
    assert report["verification"]["passed"]
    assert all(report["verification"]["checks"].values())
    assert report["quality"]["target_met"]
    pruned = onnx.load(finished / "model.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in pruned.graph.initializer}
    plan = json.loads((finished / "plan.json").read_text())["sparsity"]
    for weight in report["weights"]:
        array = arrays[weight["name"]]
        assert weight["nonzeros"] == np.count_nonzero(array)
        assert weight["sparsity"] == pytest.approx(plan[weight["name"]])
    assert report["totals"]["nonzeros"] == sum(w["nonzeros"] for w in report["weights"])
    assert report["totals"]["packed_bytes"] == (finished / "model.packed.onnx").stat().st_size
    assert report["totals"]["blob_bytes"] == (finished / "weights.swb").stat().st_size
    api.decode(finished / "weights.swb", tmp_path / "weights.npz")
    with np.load(tmp_path / "weights.npz") as decoded:
        for name in decoded.files:
            assert decoded[name].tobytes() == arrays[name].tobytes()
    x = np.random.default_rng(5).standard_normal((9, 12)).astype(np.float32)
    outputs = [
        ort.InferenceSession(finished / name).run(None, {"x": x})[0]
        for name in ("model.onnx", "model.packed.onnx")
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes()


def test_the_held_out_drop_is_measured_on_samples_that_nothing_else_saw(
    finished: Path, mlp: Path, mlp_data: Path
) -> None:
    from onnxprune.study import open_study

    report = untimed(finished)
    study = open_study(mlp, mlp_data, recipe())
    assert report["quality"]["samples"] == len(study.held_out)
    x, labels = study.held_out.inputs["x"], study.held_out.labels
    right = [
        ort.InferenceSession(path).run(None, {"x": x})[0].argmax(axis=1) == labels
        for path in (mlp, finished / "model.onnx")
    ]
    assert report["quality"]["baseline"] == pytest.approx(right[0].mean())
    assert report["quality"]["compressed"] == pytest.approx(right[1].mean())
    seen = {row.tobytes() for part in (study.search, study.calibration) for row in part.inputs["x"]}
    assert not seen & {row.tobytes() for row in x}


@pytest.mark.parametrize("method", ["magnitude", "obs"])
def test_trials_lose_what_the_models_they_stand_for_lose(
    models_folder: Path, tmp_path: Path, method: str
) -> None:
    # On convolutions: onnxruntime rearranges their weights when it loads a model, so a trial that
    # swapped weights after loading would measure the dense model.
    from onnxprune.evaluate import Evaluator
    from onnxprune.model_io import load_model, save_model
    from onnxprune.runtime import Session
    from onnxprune.search.find import constants_of
    from onnxprune.search.opening import open_search
    from onnxprune.study import open_study
    from passes.assign import AssignConstantsPass

    model, data = models_folder / "lenet5.onnx", models_folder / "lenet5-data.npz"
    settings = recipe(**{"prune.method": method})
    study = open_study(model, data, settings)
    search = open_search(study, settings, tmp_path / "levels", lambda *_: None)
    levels = (12, 14, 16, 3)
    trial = search.tester(levels, np.inf)
    plan, constants = constants_of(search, levels)
    written = load_model(model)
    AssignConstantsPass(constants)(written)
    save_model(written, tmp_path / "pruned.onnx")
    arrays = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "pruned.onnx").graph.initializer
    }
    assert {name: np.count_nonzero(arrays[name]) for name in plan.keep} == plan.keep
    scores = Evaluator(Session(model), study.search).scores(Session(tmp_path / "pruned.onnx"))
    assert trial.drop == pytest.approx(study.evaluator.baseline.mean() - scores.mean(), abs=1e-12)
    assert trial.drop > 0.001
    assert trial.complete
    assert trial.samples == len(study.search)


def test_the_same_recipe_gives_the_same_bytes(
    finished: Path, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    api.compress(mlp, mlp_data, again, load_recipe(finished / "recipe.yaml", {}))
    for name in REPEATABLE:
        assert (again / name).read_bytes() == (finished / name).read_bytes(), name
    assert untimed(again) == untimed(finished)


def test_the_resolved_recipe_repeats_a_run_of_the_command_line_byte_for_byte(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    """Whatever the first run was told by options, its recipe.yaml says all of it."""
    (tmp_path / "first.yaml").write_text(
        "rules:\n- {match: /fc1/*, pattern: 2:4}\nsearch: {trials: 40}\n"
    )
    told = (
        *("--recipe", "first.yaml", "--max-drop", "0.2", "--target", "1500B:blob", "--seed", "7"),
        *("--trials", "14", "--controller", "bayes", "--encoding", "bitmask", "--metric", "top1"),
        *("--memory", "sram-rp2040", "--set", "data.search=0.4", "--set", "search.confidence=0.9"),
    )
    runs = [tmp_path / "run", tmp_path / "elsewhere" / "run"]
    runs[1].parent.mkdir()
    for run, options, seed in (
        (runs[0], told, "1"),
        (runs[1], ("--recipe", "../run/recipe.yaml"), "2"),
    ):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "onnxprune",
                "compress",
                mlp,
                "--data",
                mlp_data,
                "-o",
                run,
                *options,
            ],
            cwd=run.parent,
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=False,
        )
    for name in REPEATABLE:
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name
    assert untimed(runs[0]) == untimed(runs[1])
    resolved = (runs[0] / "recipe.yaml").read_text()
    for said in ("pattern: '2:4'", "trials: 14", "seed: 7", "target: 1500B:blob", "search: 0.4"):
        assert said in resolved


def test_the_page_needs_no_network(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    for word in ("http://", "https://", "src=", "@import", "url(", "fetch("):
        assert word not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert page.count("<svg") >= 3


def test_a_finished_folder_is_not_overwritten(finished: Path, mlp: Path, mlp_data: Path) -> None:
    with pytest.raises(RunError, match="add --resume"):
        api.compress(mlp, mlp_data, finished, recipe())


def test_more_trials_continue_a_run_but_another_limit_is_refused(
    finished: Path, mlp: Path, mlp_data: Path
) -> None:
    lines = (finished / "journal.jsonl").read_text().splitlines()
    api.compress(mlp, mlp_data, finished, recipe(30), resume=True)
    longer = (finished / "journal.jsonl").read_text().splitlines()
    assert longer[: len(lines)] == lines
    assert sum(line.startswith('{"trial"') for line in longer) == 30
    with pytest.raises(RunError, match=r"recipe\.max_drop changed"):
        api.compress(mlp, mlp_data, finished, recipe(30, max_drop=0.06), resume=True)


def test_a_run_killed_half_way_resumes_to_the_same_result(
    finished: Path, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    command = [
        sys.executable, "-m", "onnxprune", "compress", str(mlp), "--data", str(mlp_data),
        "-o", str(killed), "--max-drop", "0.05", "--trials", "25",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = killed / "journal.jsonl"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 8):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert journal.read_bytes().count(b"\n") < 26
    assert not (killed / "report.json").exists()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in REPEATABLE:
        assert (killed / name).read_bytes() == (finished / name).read_bytes(), name
    assert untimed(killed) == untimed(finished)


def test_ctrl_c_leaves_a_folder_that_can_be_resumed(models_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [
        sys.executable, "-m", "onnxprune", "compress", str(models_folder / "lenet300.onnx"),
        "--data", str(models_folder / "lenet300-data.npz"), "-o", str(folder),
        "--trials", "5000", "--controller", "random", "--set", "prune.method=magnitude",
    ]  # fmt: skip
    # A shell without job control starts what it puts in the background with Ctrl-C ignored.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    try:
        journal = folder / "journal.jsonl"
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 3):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == f"onnxprune: interrupted; continue '{folder}' with --resume\n"
    fields = {"search.trials": 5, "search.controller": "random", "prune.method": "magnitude"}
    report = api.compress(
        models_folder / "lenet300.onnx",
        models_folder / "lenet300-data.npz",
        folder,
        load_recipe(None, fields),
        resume=True,
    )
    assert report.verification is not None


@pytest.mark.parametrize(
    ("target", "unit", "met"),
    [
        ("1.1x", "elements", True),
        ("1000x", "elements", False),
        ("1MB", "packed_bytes", True),
        ("1B:blob", "blob_bytes", False),
        ("1000000cycles", "cycles", True),
    ],
)
def test_targets_decide_success(
    mlp: Path, mlp_data: Path, tmp_path: Path, target: str, unit: str, met: bool
) -> None:
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(14, target=target, max_drop=0.3))
    assert report.target is not None
    assert (report.target.unit, report.target.met) == (unit, met)
    assert report.succeeded == (met and report.quality.target_met)


def test_the_recipe_says_how_weights_are_stored_and_fetched(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    """What ``compress`` reports is what ``estimate`` says of its blob on the same hardware."""
    settings = {
        "encode.encoding": "auto-cycles",
        "encode.chunk": 64,
        "encode.align": 16,
        "encode.decoder": ["bitmask", "rice", "csr"],
        "estimate.memory": "lpddr4-2400",
        "estimate.decoder_lanes": 4,
        "estimate.decoder_width": 2,
        "estimate.compute_lanes": 8,
        "estimate.clock_ratio": 0.5,
        "estimate.buffers": 1,
        "estimate.buffer_bytes": 256,
    }
    folder = tmp_path / "run"
    report = api.compress(
        mlp, mlp_data, folder, recipe(14, target="1000000cycles", **settings, max_drop=0.3)
    )
    again = api.estimate(
        folder / "weights.swb",
        memory="lpddr4-2400",
        decoder_lanes=[4],
        decoder_width=2,
        compute_lanes=8,
        clock_ratio=0.5,
        buffers=1,
        buffer_bytes=256,
    )
    assert {w.encoding for w in report.weights} <= {"bitmask", "rice", "csr"}
    for weight, other in zip(report.weights, again.weights, strict=True):
        assert (weight.fetch, weight.dense_fetch) == (other.fetch, other.dense_fetch)
        assert weight.fetch.decode_cycles > 0
        assert weight.fetch.compute_cycles > 0
    assert report.totals.fetch_cycles == again.totals.fetch_cycles == report.target.reached
    assert report.hardware == {
        "decoder_lanes": 4,
        "decoder_width": 2,
        "encodings": ("bitmask", "rice", "csr"),
        "compute_lanes": 8,
        "clock_ratio": 0.5,
        "buffers": 1,
        "buffer_bytes": 256,
    }
    assert report.methods["encoding"] == (
        "auto-cycles, chunks of 64 weights, aligned to 16 bytes, of those that the decoder knows "
        "(bitmask, rice, csr)"
    )


def test_the_search_counts_the_cycles_of_the_hardware_it_is_given(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    """The same weights in the same encoding cost more where one lane decodes them all."""
    costs = {}
    for lanes in (1, 64):
        settings = {"encode.encoding": "csr", "encode.chunk": 64, "estimate.decoder_lanes": lanes}
        report = api.compress(
            mlp,
            mlp_data,
            tmp_path / str(lanes),
            recipe(14, target="1cycles", max_drop=0.3, **settings),
        )
        assert report.search.unit == "cycles"
        costs[lanes] = [trial.cost for trial in report.search.best]
    assert min(costs[1]) > min(costs[64])


def test_when_nothing_keeps_the_limit_everything_stays(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(3, max_drop=0.0))
    assert report.totals.compression_rate == 1
    assert "no candidate kept the limit" in report.warnings[0]


def test_search_writes_all_but_the_packed_model_and_the_blob(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    report = api.search(mlp, mlp_data, tmp_path / "run", recipe(12))
    assert {p.name for p in (tmp_path / "run").iterdir()} == DELIVERABLES - {
        "model.packed.onnx",
        "weights.swb",
    }
    assert report.search.trials == 12


def test_a_folder_without_permission(
    mlp: Path, mlp_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere, so the system's answer is set by hand.
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="no permission"):
        api.compress(mlp, mlp_data, tmp_path / "run", recipe(3))
    assert not (tmp_path / "run").exists()
