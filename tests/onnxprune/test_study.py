"""What a search sees of a model, wherever its weights are stored."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from onnxprune.recipe import Recipe
from onnxprune.study import open_study


def with_constants(source: Path, path: Path) -> Path:
    """The same model with its weight matrices in Constant nodes."""
    model = onnx.load(source)
    for tensor in list(model.graph.initializer):
        if len(tensor.dims) == 2:
            model.graph.node.insert(
                0, helper.make_node("Constant", [], [tensor.name], value=tensor)
            )
            model.graph.initializer.remove(tensor)
    onnx.save(model, path)
    return path


def test_a_candidate_is_pruned_wherever_its_weights_are(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    other = with_constants(mlp, tmp_path / "constants.onnx")
    drops = []
    for path in (mlp, other):
        study = open_study(path, str(mlp_data), Recipe())
        assert {w.name for w in study.collection.weights} == {"fc0.weight", "fc1.weight"}
        drop = study.drop_of({"fc0.weight": 8, "fc1.weight": 60})
        drops.append((drop.mean, drop.interval()))
        study.drop_of({"fc0.weight": 192, "fc1.weight": 64})
    assert drops[0] == drops[1]
    assert drops[0][0] > 0.05


def test_a_journal_knows_the_external_data(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    model = onnx.load(mlp)
    path = tmp_path / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="d", size_threshold=0)
    before = open_study(path, str(mlp_data), Recipe()).identity(Recipe())["model"]
    data = bytearray((tmp_path / "d").read_bytes())
    data[0] ^= 1
    (tmp_path / "d").write_bytes(data)
    after = open_study(path, str(mlp_data), Recipe()).identity(Recipe())["model"]
    assert before != after
