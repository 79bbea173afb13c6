"""A recipe's steps end to end: done once, in their order, the same after any interruption."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.errors import RecipeError, RunError
from onnxprune.recipe import Recipe, load_recipe
from passes.pack import MIN_OPSET

FILES = ("model.onnx", "model.packed.onnx", "weights.swb", "recipe.yaml")

ONE_SHOT: tuple[dict[str, Any], ...] = (
    {"step": "calibrate", "samples": 60},
    {"step": "prune", "sparsity": 0.5},
    {"step": "encode"},
    {"step": "pack"},
    {"step": "estimate"},
    {"step": "verify"},
)

TRAINED: tuple[dict[str, Any], ...] = (
    {"step": "sparsify", "passes": 3, "penalty": {"strength": 1e-3}, "checkpoint_every": 1},
    {"step": "prune", "gradual": {"passes": 3, "prune_every": 2, "checkpoint_every": 1}},
    {"step": "recover", "passes": 3, "checkpoint_every": 1},
    {"step": "calibrate", "samples": 50},
    {"step": "prune", "sparsity": 0.8},
    {"step": "encode"},
    {"step": "pack"},
    {"step": "verify"},
)


def recipe(steps: tuple[dict[str, Any], ...], **fields: Any) -> Recipe:
    return load_recipe(None, {"max_drop": 1.0, **fields, "steps": list(steps)})


def done_before(run: Path) -> list[bool]:
    report = json.loads((run / "report.json").read_text())
    return [step["done"] == "before" for step in report["steps"]]


@pytest.fixture
def one_shot(mlp: Path, mlp_data: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    api.compress(mlp, mlp_data, run, recipe(ONE_SHOT))
    return run


def test_what_is_delivered_is_what_the_last_steps_made(one_shot: Path, mlp: Path) -> None:
    report = json.loads((one_shot / "report.json").read_text())
    pruned = onnx.load(one_shot / "model.onnx")
    arrays = {t.name: numpy_helper.to_array(t) for t in pruned.graph.initializer}
    left = sum(int(np.count_nonzero(arrays[w["name"]])) for w in report["weights"])
    assert left == report["totals"]["nonzeros"]
    assert report["totals"]["sparsity"] == pytest.approx(0.5, abs=0.01)
    assert report["verification"]["checks"] == {
        "blob_equals_initializers": True,
        "packed_outputs_equal_pruned": True,
        "packed_folds_wholly": True,
    }
    assert report["totals"]["fetch_cycles"] < report["totals"]["dense_fetch_cycles"]
    assert [step["step"] for step in report["steps"]][:2] == ["01-calibrate", "02-prune"]
    x = np.random.default_rng(5).standard_normal((9, 12)).astype(np.float32)
    outputs = [
        ort.InferenceSession(one_shot / name).run(None, {"x": x})[0]
        for name in ("model.onnx", "model.packed.onnx")
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes()
    assert "kept from an earlier run" not in (one_shot / "report.html").read_text()


def test_it_is_the_model_that_the_command_of_each_step_makes(
    one_shot: Path, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    from onnxprune.study import open_study

    rows = json.loads((one_shot / "steps" / "01-calibrate" / "step.json").read_text())["facts"]
    study = open_study(mlp, mlp_data, recipe(ONE_SHOT))
    samples = study.calibration.take(np.array(rows["rows"]))
    assert len(samples) == min(60, len(study.calibration))
    api.prune(mlp, tmp_path / "own.onnx", sparsity=0.5, data=dict(samples.inputs), method="obs")
    assert (tmp_path / "own.onnx").read_bytes() == (one_shot / "model.onnx").read_bytes()


def test_only_what_was_made_from_something_else_is_done_again(
    one_shot: Path, mlp: Path, mlp_data: Path
) -> None:
    api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)
    assert done_before(one_shot) == [True] * 6
    other = [dict(step) for step in ONE_SHOT]
    other[2]["encoding"] = "bitmask"
    api.compress(mlp, mlp_data, one_shot, recipe(tuple(other)), resume=True)
    assert done_before(one_shot) == [True, True, False, True, False, False]
    other[1]["sparsity"] = 0.7
    api.compress(mlp, mlp_data, one_shot, recipe(tuple(other)), resume=True)
    assert done_before(one_shot) == [True, False, False, False, False, False]
    api.compress(mlp, mlp_data, one_shot, recipe(tuple(other), seed=1), resume=True)
    assert done_before(one_shot) == [False] * 6


@pytest.mark.parametrize("name", ["model.onnx", "step.json"])
def test_a_step_whose_files_were_changed_or_lost_is_done_again(
    one_shot: Path, mlp: Path, mlp_data: Path, name: str
) -> None:
    before = {file: (one_shot / file).read_bytes() for file in FILES}
    damaged = one_shot / "steps" / "02-prune" / name
    if name == "model.onnx":
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    else:
        damaged.unlink()
    api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)
    assert done_before(one_shot) == [True, False, True, True, True, True]
    assert {file: (one_shot / file).read_bytes() for file in FILES} == before


HOSTILE: list[dict[str, Any]] = [
    {"fingerprint": 3},
    {"files": {"../../model.onnx": "0"}},
    {"outputs": {"model": "/elsewhere/model.onnx"}},
    {"outputs": ["model", "../weights.swb"]},
    {"outputs": ["blob"]},
    {"outputs": {"model": {"../../model.onnx": "0"}}},
    {"outputs": {"model": {"model.onnx": "0", "../../model.onnx": "0"}}},
    {"outputs": {"secret": {"model.onnx": "0"}}},
    {"outputs": {"blob": {"model.onnx": "0"}}},
    {"outputs": None},
    {"facts": {"rows": "abc"}},
    {"facts": {"methods": 3}},
    {"facts": {"verification": {"x": 1}}},
    {"facts": {"fetch": {"w": [1, 2]}}},
    {"seconds": "long"},
    {"more": 1},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_a_record_that_is_none_of_ours_is_refused_by_a_sentence(
    one_shot: Path, mlp: Path, mlp_data: Path, change: dict[str, Any]
) -> None:
    file = one_shot / "steps" / "02-prune" / "step.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(RunError, match=r"step\.json' .*; delete its folder and resume again"):
        api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)


def test_other_damage_in_a_run_folder_is_mended_or_refused(
    one_shot: Path, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    steps = one_shot / "steps"
    before = {file: (one_shot / file).read_bytes() for file in FILES}
    (steps / "02-prune" / "step.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match="is damaged"):
        api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)
    (steps / "02-prune" / "step.json").unlink()
    (steps / "02-prune" / "begun.json").write_bytes(b"\xff\xfe")
    (steps / "02-prune" / ".model.onnx.1234.part").write_bytes(b"torn")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (steps / "09-old").symlink_to(tmp_path / "precious")
    (one_shot / "trials").symlink_to(tmp_path / "precious")
    api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)
    assert {file: (one_shot / file).read_bytes() for file in FILES} == before
    assert (tmp_path / "precious" / "file").read_text() == "mine"
    assert not (steps / "09-old").exists()
    assert not list(steps.rglob("*.part"))
    rows = steps / "01-calibrate" / "step.json"
    record = json.loads(rows.read_text())
    record["facts"]["rows"] = [10**6]
    rows.write_text(json.dumps(record))
    with pytest.raises(RunError, match="names samples that the data do not have"):
        api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT), resume=True)


@pytest.mark.parametrize("name", ["model.onnx", "model.packed.onnx"])
def test_a_run_never_writes_over_the_model_that_it_reads(
    mlp: Path, mlp_data: Path, tmp_path: Path, name: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / name).write_bytes(mlp.read_bytes())
    for steps in (ONE_SHOT, ({"step": "encode"},), ()):
        with pytest.raises(RunError, match="lies in the run folder"):
            api.compress(run / name, mlp_data, run, recipe(steps))
    assert (run / name).read_bytes() == mlp.read_bytes()
    assert [path.name for path in run.iterdir()] == [name]
    # What lies there and is nobody's business stays.
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights.swb").write_text("mine")
    api.compress(mlp, mlp_data, tmp_path / "other", recipe(ONE_SHOT[:2]))
    assert (tmp_path / "other" / "weights.swb").read_text() == "mine"


def test_the_report_says_nothing_of_files_that_are_delivered_no_more(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    later = (*ONE_SHOT, {"step": "prune", "sparsity": 0.9})
    report = api.compress(mlp, mlp_data, tmp_path / "pruned", recipe(later))
    assert report.totals is not None
    assert report.methods is not None
    assert report.verification is None
    assert report.totals.fetch_cycles is None
    assert report.totals.blob_bytes is None
    assert report.memory is None
    assert "encoding" not in report.methods
    later = (*ONE_SHOT, {"step": "encode", "encoding": "csr"}, {"step": "pack", "values": "int8"})
    report = api.compress(mlp, mlp_data, tmp_path / "encoded", recipe(later))
    assert report.totals is not None
    assert report.totals.fetch_cycles is None
    # What packing measured itself is all that is known of the lossy file.
    assert report.verification is not None
    assert report.verification.checks == {
        "packed_outputs_equal_unpacked": True,
        "packed_folds_wholly": True,
    }
    assert report.verification.max_abs_error > 0


def test_a_target_that_nothing_measured_is_not_passed_over(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    steps = (ONE_SHOT[0], {"step": "prune", "target": "700B:blob"})
    report = api.compress(mlp, mlp_data, tmp_path / "run", recipe(steps))
    assert report.target is None
    assert any("700B:blob is met was not measured" in warning for warning in report.warnings)
    report = api.compress(
        mlp, mlp_data, tmp_path / "run", recipe((*steps, {"step": "encode"})), resume=True
    )
    assert report.target is not None
    assert report.target.met


def test_rates_are_of_the_dense_model_also_after_shrinking(
    models_folder: Path, tmp_path: Path
) -> None:
    data = models_folder / "lenet300-data.npz"
    steps: tuple[dict[str, Any], ...] = (
        {"step": "prune", "sparsity": 0.5, "method": "magnitude", "pattern": "channel"},
        {"step": "shrink"},
        {"step": "prune", "target": "4x", "method": "magnitude", "pattern": "unstructured"},
    )
    report = api.compress(models_folder / "lenet300.onnx", data, tmp_path / "run", recipe(steps))
    assert report.totals is not None
    assert report.totals.elements == 266_200
    assert sum(weight.elements for weight in report.weights or ()) < 200_000
    # Columns of pixels are empty and stay, for they are inputs: a uniform share keeps some of these zeros.
    assert 4 <= report.totals.compression_rate < 4.5


def test_a_memory_file_that_changed_is_read_again(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    memory = tmp_path / "memory.yaml"
    known = {"kind": "sram", "source": "mine", "tCK_ns": 7.5, "bus_bits": 32, "read_latency": 1}
    memory.write_text(json.dumps({"mine": known}))
    steps = (*ONE_SHOT[:4], {"step": "estimate", "memory": str(memory)})
    before = api.compress(mlp, mlp_data, tmp_path / "run", recipe(steps)).totals
    memory.write_text(json.dumps({"mine": known | {"bus_bits": 8}}))
    after = api.compress(mlp, mlp_data, tmp_path / "run", recipe(steps), resume=True).totals
    assert done_before(tmp_path / "run") == [True, True, True, True, False]
    assert before is not None
    assert after is not None
    assert before.fetch_cycles is not None
    assert after.fetch_cycles is not None
    assert after.fetch_cycles > 2 * before.fetch_cycles


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        (({"step": "sparsify", "loss": {"name": "best"}},), "unknown loss 'best'"),
        (({"step": "sparsify", "augment": "turn"},), "unknown augmentation 'turn'"),
        (({"step": "sparsify", "penalty": {"by_weight": {"w": 1}}},), "steps.6: penalty.by_weight"),
        (({"step": "prune", "gradual": {}, "target": "3kB"},), "goes to a compression rate"),
        (({"step": "prune", "gradual": {}, "target": "0.5x"},), "goes to a compression rate"),
    ],
)
def test_what_does_not_fit_is_found_before_the_first_step(
    mlp: Path, mlp_data: Path, tmp_path: Path, steps: tuple[dict[str, Any], ...], sentence: str
) -> None:
    for dry_run in (True, False):
        with pytest.raises(RecipeError, match=sentence):
            api.compress(
                mlp, mlp_data, tmp_path / "run", recipe((*ONE_SHOT, *steps)), dry_run=dry_run
            )
    assert not (tmp_path / "run").exists()


def test_an_earlier_run_is_not_written_over(one_shot: Path, mlp: Path, mlp_data: Path) -> None:
    with pytest.raises(RunError, match="already holds the steps of a run; add --resume"):
        api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT))


def test_steps_that_are_gone_from_the_recipe_leave_nothing_behind(
    one_shot: Path, mlp: Path, mlp_data: Path
) -> None:
    api.compress(mlp, mlp_data, one_shot, recipe(ONE_SHOT[:2]), resume=True)
    assert sorted(path.name for path in (one_shot / "steps").iterdir()) == [
        "01-calibrate",
        "02-prune",
    ]
    assert not (one_shot / "weights.swb").exists()
    assert not (one_shot / "model.packed.onnx").exists()
    report = json.loads((one_shot / "report.json").read_text())
    assert "verification" not in report
    assert "packed_bytes" not in report["totals"]


def test_a_dry_run_writes_nothing_and_says_what_is_done_already(
    one_shot: Path, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    report = api.compress(
        mlp, mlp_data, tmp_path / "other", recipe(TRAINED, target="4x"), dry_run=True
    )
    assert report.expected is not None
    assert [step.done for step in report.expected] == [False] * 8
    assert all(step.seconds > 0 for step in report.expected[:3])
    assert report.expected[1].does == "to 4x in 3 passes, by fisher"
    assert not (tmp_path / "other").exists()
    changed = (*ONE_SHOT[:2], {"step": "encode", "encoding": "bitmask"}, *ONE_SHOT[3:])
    before = {path: path.read_bytes() for path in one_shot.rglob("*") if path.is_file()}
    report = api.compress(mlp, mlp_data, one_shot, recipe(changed), dry_run=True)
    assert report.expected is not None
    # What comes after the first step that is to be done is not known yet.
    assert [step.done for step in report.expected] == [True, True, False, False, False, False]
    assert {path: path.read_bytes() for path in one_shot.rglob("*") if path.is_file()} == before
    plain = api.compress(mlp, mlp_data, tmp_path / "other", Recipe(), dry_run=True)
    assert plain.expected is not None
    assert "100 trials" in plain.expected[1].does


def test_a_search_as_a_step_keeps_the_limit_from_the_dense_original(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    steps = (ONE_SHOT[0], {"step": "prune"}, {"step": "verify"})
    settings = recipe(steps, **{"search.trials": 20, "max_drop": 0.1, "search.confidence": 0.5})
    report = api.compress(mlp, mlp_data, tmp_path / "run", settings)
    assert report.totals is not None
    assert report.quality is not None
    assert report.totals.compression_rate > 1.3
    assert report.quality.drop < 0.2
    assert (tmp_path / "run" / "steps" / "02-prune" / "journal.jsonl").is_file()
    assert not (tmp_path / "run" / "steps" / "02-prune" / "levels").exists()


def test_training_steps_hand_masks_and_the_optimizers_memory_on(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    report = api.compress(mlp, mlp_data, run, recipe(TRAINED, target="4x"))
    assert report.totals is not None
    zeros = []
    for name in ("02-prune", "03-recover", "05-prune"):
        model = onnx.load(run / "steps" / name / "model.onnx")
        arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        zeros.append({w: arrays[w] == 0 for w in arrays if w.endswith("weight")})
    count = [sum(int(mask.sum()) for mask in masks.values()) for masks in zeros]
    elements = sum(mask.size for mask in zeros[0].values())
    assert count[0] == count[1] == elements - elements // 4
    assert all((zeros[0][name] == zeros[1][name]).all() for name in zeros[0])  # recovery: the same
    assert count[2] == pytest.approx(0.8 * elements, abs=1)
    assert report.totals.elements == elements


def test_the_memory_of_the_optimizer_matters(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    """The same two steps, the second one from the model alone: other weights come out."""
    from onnxprune.finetune.run import finetune
    from onnxprune.pipeline.steps import RecoverStep

    run = tmp_path / "run"
    settings = recipe(({"step": "sparsify", "passes": 2}, {"step": "recover", "passes": 2}))
    api.compress(mlp, mlp_data, run, settings)
    last = settings.steps[1]
    assert isinstance(last, RecoverStep)
    from onnxprune.study import open_study

    study = open_study(mlp, mlp_data, settings)
    parts = [{**part.inputs, "labels": part.labels} for part in (study.calibration, study.search)]
    again = settings.model_copy(
        update={
            "finetune": last.settings().model_copy(update={"keep_zeros": False}),
            "seed": 1,
            "steps": (),
        }
    )
    for moments, same in ((run / "steps" / "01-sparsify" / "optimizer.pt", True), (None, False)):
        finetune(
            run / "steps" / "01-sparsify" / "model.onnx",
            parts[0],
            tmp_path / "own.onnx",
            again,
            validation=parts[1],
            held_out=parts[1],
            teacher=mlp,
            moments=(moments, None),
        )
        own = (tmp_path / "own.onnx").read_bytes()
        assert (own == (run / "model.onnx").read_bytes()) is same


@pytest.mark.slow
@pytest.mark.parametrize(
    "until",
    [
        "01-sparsify/checkpoint",
        "02-prune/begun.json",
        "02-prune/checkpoint",
        "03-recover/step.json",
        "05-prune/step.json",
        "07-pack/begun.json",
    ],
)
def test_killed_anywhere_and_resumed_it_delivers_the_same_bytes(
    mlp: Path, mlp_data: Path, tmp_path: Path, until: str, start: Callable[..., subprocess.Popen]
) -> None:
    settings = recipe(TRAINED, target="4x")
    api.compress(mlp, mlp_data, tmp_path / "whole", settings)
    run = tmp_path / "killed"
    process = start(settings, run)
    deadline = time.monotonic() + 120
    while not (run / "steps" / until).exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    api.compress(mlp, mlp_data, run, settings, resume=True)
    for name in FILES:
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["label-free", "l-half", "hardware"])
def test_recipes_that_are_shipped_do_what_they_say(
    models_folder: Path, tmp_path: Path, name: str
) -> None:
    """On LeNet-300-100, with fewer trials and passes than they have."""
    fewer: dict[str, Any] = {"search.trials": 12, "search.finish": 2, "search.confidence": 0.5}
    if name == "l-half":
        fewer = {"steps.0.passes": 2, "steps.1.gradual.passes": 4, "steps.2.passes": 3}
    data = models_folder / "lenet300-data.npz"
    with np.load(data) as arrays:
        kept = {key: arrays[key] for key in arrays.files if key != "labels" or name != "label-free"}
    settings = load_recipe(Path(name), fewer)
    report = api.compress(models_folder / "lenet300.onnx", kept, tmp_path / "run", settings)
    assert report.totals is not None
    assert report.quality is not None
    assert report.verification is not None
    assert report.verification.passed
    assert report.totals.compression_rate > (19.9 if name == "l-half" else 3)
    assert report.quality.drop < 0.05
    assert report.quality.metric == ("agreement" if name == "label-free" else "top1")
    if name == "hardware":
        assert report.totals.fetch_cycles is not None
        assert report.totals.dense_fetch_cycles is not None
        assert report.totals.fetch_cycles < report.totals.dense_fetch_cycles / 2


def test_a_model_too_old_to_be_packed_is_delivered_without(tmp_path: Path, mlp_data: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "old",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", MIN_OPSET - 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=4), tmp_path / "old.onnx")
    report = api.compress(tmp_path / "old.onnx", mlp_data, tmp_path / "run", recipe(ONE_SHOT))
    assert not (tmp_path / "run" / "model.packed.onnx").exists()
    assert any("no packed model" in warning for warning in report.warnings)
    assert report.verification is not None
    assert report.verification.checks == {"blob_equals_initializers": True}
