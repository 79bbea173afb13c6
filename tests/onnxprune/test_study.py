"""What a search sees of a model, wherever its weights are stored."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.recipe import Recipe, load_recipe
from onnxprune.search.opening import open_search
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
    outcomes = []
    for path in (mlp, other):
        settings = load_recipe(None, {"prune.method": "magnitude"})
        study = open_study(path, str(mlp_data), settings)
        assert {w.name for w in study.collection.weights} == {"fc0.weight", "fc1.weight"}
        levels = tmp_path / f"{path.stem}-levels"
        search = open_search(study, settings, levels, lambda *_: None)
        chosen = {"fc0.weight": 18, "fc1.weight": 1}
        candidate = tuple(chosen[variable.name] for variable in search.problem.space.variables)
        trial = search.tester(candidate, np.inf)
        again = pickle.loads(pickle.dumps(search.tester.candidates))
        constants = search.tester.databases[0].constants(search.problem.space.keep(candidate))
        scores = study.evaluator.scores(again.session(constants))
        assert trial.drop == pytest.approx((study.evaluator.baseline - scores).mean())
        search.tester((3, 5), np.inf)
        assert search.tester(candidate, np.inf) == trial
        outcomes.append(replace(trial, levels=()))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].drop > 0.05


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
