"""The Olive pass, in real workflows, before and after Olive's own passes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import api

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("olive") is None, reason="olive-ai is not installed"
    ),
]

DATA_SCRIPT = """
import numpy as np, torch
from olive.data.registry import Registry

class Images(torch.utils.data.Dataset):
    def __init__(self, path):
        self.images = torch.from_numpy(np.load(path)["image"][:16])
    def __len__(self):
        return len(self.images)
    def __getitem__(self, index):
        return {"image": self.images[index]}, torch.tensor(0)

@Registry.register_dataset()
def shipped_images(path, **_):
    return Images(path)
"""
RUN = """
import json, sys
from olive.workflows import run
run(json.load(open(sys.argv[1])), package_config=json.load(open(sys.argv[2])))
"""
PRUNE = {"type": "OnnxPrune", "sparsity": 0.9, "allocation": "global"}
PEEPHOLE = {"type": "OnnxPeepholeOptimizer"}
QUANTIZE = {
    "type": "OnnxStaticQuantization",
    "data_config": "images",
    "precision": "int8",
    "quant_format": "QDQ",
    "calibrate_method": "MinMax",
}


@pytest.fixture
def olive(tmp_path: Path, models_folder: Path):
    """Runs passes on LeNet-5 in a process of its own; returns it and the model it wrote."""
    environment = os.environ | {"OLIVE_DISABLE_TELEMETRY": "1"}
    packages, script = tmp_path / "packages.json", tmp_path / "images.py"
    script.write_text(DATA_SCRIPT)
    command = [sys.executable, "-m", "onnxprune", "olive-config", "-o", str(packages)]
    subprocess.run(command, check=True, env=environment)
    data = {"type": "shipped_images", "params": {"path": str(models_folder / "lenet5-data.npz")}}
    accelerator = {"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}

    def run(**passes: dict) -> tuple[subprocess.CompletedProcess[str], Path]:
        config = {
            "input_model": {"type": "ONNXModel", "model_path": str(models_folder / "lenet5.onnx")},
            "data_configs": [
                {"name": "images", "user_script": str(script), "load_dataset_config": data}
            ],
            "systems": {"here": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "target": "here",
            "passes": passes,
            "output_dir": str(tmp_path / "out"),
            "cache_dir": str(tmp_path / "cache"),
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        done = subprocess.run(
            [sys.executable, "-c", RUN, str(tmp_path / "config.json"), str(packages)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done, tmp_path / "out" / "model.onnx"

    return run


def accuracy(path: Path, models_folder: Path) -> float:
    with np.load(models_folder / "mnist-test.npz") as content:
        images, labels = content["image"][:1000], content["labels"][:1000]
    [logits] = ort.InferenceSession(path).run(None, {"image": images})
    return float((logits.argmax(axis=1) == labels).mean())


def test_pruning_between_two_of_olives_passes(olive, models_folder: Path) -> None:
    done, model = olive(peephole=PEEPHOLE, prune=PRUNE, quantize=QUANTIZE)
    assert done.returncode == 0, done.stderr
    report = api.inspect(model)
    assert {weight.dtype for weight in report.weights} == {"int8"}
    assert report.totals.sparsity >= 0.9  # no zero was lost in quantization
    assert accuracy(model, models_folder) > 0.8


def test_pruning_what_olive_has_quantized(olive, models_folder: Path) -> None:
    done, model = olive(quantize=QUANTIZE, prune=PRUNE)
    assert done.returncode == 0, done.stderr
    report = api.inspect(model)
    assert {weight.dtype for weight in report.weights} == {"int8"}
    assert report.totals.sparsity == pytest.approx(0.9, abs=0.001)
    assert accuracy(model, models_folder) > 0.8


def test_second_order_pruning_on_olives_own_data(olive, models_folder: Path) -> None:
    settings = {"method": "obs", "allocation": None, "pattern": "2:4", "data_config": "images"}
    done, model = olive(prune={"type": "OnnxPrune", "sparsity": 0.5, **settings})
    assert done.returncode == 0, done.stderr
    assert api.inspect(model).totals.sparsity == pytest.approx(0.5, abs=0.01)
    assert accuracy(model, models_folder) > 0.97


def test_the_packed_form_as_the_last_pass(olive, models_folder: Path) -> None:
    rules = [{"match": "conv*", "exclude": True}]
    done, model = olive(prune=PRUNE | {"packed": True, "rules": rules})
    assert done.returncode == 0, done.stderr
    convolutions = {w.name for w in api.inspect(models_folder / "lenet5.onnx").weights[:2]}
    assert convolutions <= {w.name for w in api.inspect(model).weights}, "they stayed dense"
    assert model.stat().st_size < (models_folder / "lenet5.onnx").stat().st_size / 4
    onnx.checker.check_model(model)
    assert accuracy(model, models_folder) > 0.8


def test_a_mistake_fails_the_workflow(olive) -> None:
    done, model = olive(prune=PRUNE | {"sparsity": 7.0})
    assert done.returncode != 0
    assert "sparsity must lie between 0 and 1, found 7.0" in done.stderr
    assert not model.exists()
