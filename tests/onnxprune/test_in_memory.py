"""The Python functions on models in memory: nothing given is changed, results come back."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.recipe import load_recipe


def as_path(path: Path) -> Path:
    return path


def as_text(path: Path) -> str:
    return str(path)


def as_proto(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def as_ir(path: Path) -> ir.Model:
    return ir.load(path)


def frozen(model: object) -> bytes:
    if isinstance(model, ir.Model):
        return ir.to_proto(model).SerializeToString(deterministic=True)
    if isinstance(model, onnx.ModelProto):
        return model.SerializeToString(deterministic=True)
    return Path(str(model)).read_bytes()


every_form = pytest.mark.parametrize("form", [as_path, as_text, as_proto, as_ir])


def weights_of(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if name.endswith("weight")
    }


@every_form
def test_prune_gives_the_same_whatever_the_model_comes_as(form, mlp: Path, tmp_path: Path) -> None:
    onnxprune.prune(mlp, tmp_path / "expected.onnx", sparsity=0.75)
    model = form(mlp)
    before = frozen(model)
    report = onnxprune.prune(model, sparsity=0.75)
    assert frozen(model) == before
    assert report.totals.sparsity == 0.75
    expected = weights_of(ir.load(tmp_path / "expected.onnx"))
    for name, array in weights_of(report.output).items():
        assert np.array_equal(array, expected[name])
    named = form in {as_path, as_text}
    assert report.model.path == (str(mlp) if named else "(in memory)")
    assert "output" not in report.to_dict()


@every_form
def test_every_other_function_takes_every_form(
    form, mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    model = form(mlp)
    before = frozen(model)
    assert onnxprune.inspect(model).totals.elements == 256
    pruned = onnxprune.prune(model, sparsity=0.9).output
    packed = onnxprune.pack(pruned).output
    unpacked = onnxprune.unpack(packed).output
    for name, array in weights_of(unpacked).items():
        assert array.tobytes() == weights_of(pruned)[name].tobytes()
    assert onnxprune.verify(pruned, packed, rtol=0, atol=0).verification.passed
    assert not onnxprune.verify(model, pruned).verification.passed
    onnxprune.encode(pruned, tmp_path / "w.swb")
    decoded = onnxprune.decode(tmp_path / "w.swb", tmp_path / "w.npz")
    assert decoded.totals.blob_bytes == (tmp_path / "w.swb").stat().st_size
    assert sum(weight.nonzeros for weight in decoded.weights) == decoded.totals.nonzeros
    with pytest.raises(dataclasses.FrozenInstanceError):
        decoded.totals.nonzeros = 0
    assert onnxprune.estimate(pruned).totals.fetch_cycles > 0
    smaller = onnxprune.shrink(model)
    assert smaller.output is not None
    brief = {"sparsify": 0, "prune": 1, "recover": 0}
    training = {f"finetune.phases.{name}": epochs for name, epochs in brief.items()}
    tuned = onnxprune.finetune(
        model,
        str(mlp_data),
        recipe=load_recipe(None, training | {"target": "2x"}),
        teacher=form(mlp),
        device="cpu",
    )
    assert tuned.totals.nonzeros == 128
    assert sum(np.count_nonzero(array) for array in weights_of(tuned.output).values()) == 128
    recipe = load_recipe(None, {"search.trials": 3, "max_drop": 0.3})
    assert onnxprune.search(model, str(mlp_data), tmp_path / "search", recipe).search.trials == 3
    report = onnxprune.compress(model, str(mlp_data), tmp_path / "run", recipe)
    text = (tmp_path / "run" / "report.json").read_text(encoding="utf-8")
    assert report.to_json() == text
    assert "/onnxprune-" not in text
    assert frozen(model) == before


def test_a_run_of_a_model_in_memory_can_be_resumed(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    model = onnx.load(mlp)
    for trials, resume in ((3, False), (5, True)):
        recipe = load_recipe(None, {"search.trials": trials, "max_drop": 0.3})
        report = onnxprune.search(model, str(mlp_data), tmp_path / "run", recipe, resume=resume)
    assert report.search.trials == 5


def test_external_data_of_a_result_in_memory_is_in_memory(mlp: Path, tmp_path: Path) -> None:
    model = onnx.load(mlp)
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(model, path, save_as_external_data=True, location="d.bin", size_threshold=0)
    output = onnxprune.prune(path, sparsity=0.5).output
    assert sum((array == 0).sum() for array in weights_of(output).values()) == 128


def test_two_threads_do_not_disturb_each_other(mlp: Path) -> None:
    results: dict[float, float] = {}

    def work(sparsity: float) -> None:
        for _ in range(5):
            results[sparsity] = onnxprune.prune(mlp, sparsity=sparsity).totals.sparsity

    threads = [threading.Thread(target=work, args=(s,)) for s in (0.25, 0.75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {0.25: 0.25, 0.75: 0.75}


def test_anything_else_is_refused() -> None:
    with pytest.raises(ModelError, match=r"found int"):
        onnxprune.inspect(3)
