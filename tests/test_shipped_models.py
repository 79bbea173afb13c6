"""What ``models/`` ships is what its README says: files, accuracy, and data that fit."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import api

WEIGHTS = {"lenet300": 266_200, "lenet5": 430_500}
FLOOR = {"lenet300": 0.981, "lenet5": 0.991}
FLOOR_OF_DATA = 0.98
both = pytest.mark.parametrize("name", sorted(WEIGHTS))


def arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as content:
        return dict(content)


def accuracy(model: Path, data: Path) -> float:
    content = arrays(data)
    [logits] = ort.InferenceSession(model).run(None, {"image": content["image"]})
    return float((logits.argmax(axis=1) == content["labels"]).mean())


def table(models_folder: Path) -> dict[str, list[str]]:
    text = (models_folder / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return {name: [cell.strip() for cell in rest.split("|")] for name, rest in rows}


def test_the_readme_lists_every_file_with_its_checksum(models_folder: Path) -> None:
    rows = table(models_folder)
    files = {p.name for p in models_folder.iterdir() if p.suffix not in {".md", ".py"}}
    assert {name for name in rows if not name.endswith(".py")} == files - {"__pycache__"}
    for name, cells in rows.items():
        digest = hashlib.sha256((models_folder / name).read_bytes()).hexdigest()
        assert cells[-1] == f"`{digest[:16]}`", name


@both
def test_models_keep_the_accuracy_that_the_readme_states(name: str, models_folder: Path) -> None:
    measured = accuracy(models_folder / f"{name}.onnx", models_folder / "mnist-test.npz")
    assert measured >= FLOOR[name]
    assert f"{measured:.2%}".replace("%", " %") in table(models_folder)[f"{name}.onnx"][0]


@both
def test_models_have_the_weights_of_the_literature(name: str, models_folder: Path) -> None:
    report = api.inspect(models_folder / f"{name}.onnx")
    assert report.totals.elements == WEIGHTS[name]
    onnx.checker.check_model(models_folder / f"{name}.onnx", full_check=True)


@both
def test_data_fit_the_model_and_were_not_trained_on(name: str, models_folder: Path) -> None:
    content = arrays(models_folder / f"{name}-data.npz")
    assert content["image"].shape == (4000, 1, 28, 28)
    assert content["image"].dtype == np.uint8
    # A model gets nearly all images right that it was trained on, and clearly fewer of others.
    measured = accuracy(models_folder / f"{name}.onnx", models_folder / f"{name}-data.npz")
    assert FLOOR_OF_DATA < measured < 1


def test_nothing_of_the_test_set_is_in_the_data(models_folder: Path) -> None:
    test = {image.tobytes() for image in arrays(models_folder / "mnist-test.npz")["image"]}
    assert len(test) == 10_000
    for name in WEIGHTS:
        ours = {i.tobytes() for i in arrays(models_folder / f"{name}-data.npz")["image"]}
        assert not ours & test


@both
def test_models_hold_no_path_of_the_machine_that_built_them(name: str, models_folder: Path) -> None:
    content = (models_folder / f"{name}.onnx").read_bytes()
    for trace in (b".py", b"/home", b"/root", b"site-packages"):
        assert trace not in content
