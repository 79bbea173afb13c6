from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.data import Dataset
from onnxprune.errors import DataError, RecipeError
from onnxprune.evaluate import Evaluator, run_dataset, split
from onnxprune.metrics import find_metric
from onnxprune.runtime import Session

LOGITS = [np.array([[1.0, 3, 2], [5, 5, 1], [0, 0, np.nan]], np.float32)]


def test_top1_and_top5_follow_argmax_and_never_reward_nan() -> None:
    metric = find_metric("top1", labelled=True, outputs=LOGITS)
    assert metric.score(LOGITS, np.array([1, 0, 2]), None).tolist() == [1, 1, 0]
    assert metric.score(LOGITS, np.array([1, 1, 0]), None).tolist() == [1, 0, 1]
    top5 = find_metric("top5", labelled=True, outputs=LOGITS)
    assert top5.score(LOGITS, np.array([0, 2, 0]), None).tolist() == [1, 1, 1]


def test_labels_out_of_range_are_refused() -> None:
    metric = find_metric("top1", labelled=True, outputs=LOGITS)
    with pytest.raises(DataError, match="3 classes"):
        metric.score(LOGITS, np.array([0, 1, 3]), None)


def test_without_labels_it_is_fidelity_to_the_dense_model() -> None:
    assert find_metric(None, labelled=False, outputs=LOGITS).name == "agreement"
    image = [np.ones((2, 3, 4, 4), np.float32)]
    metric = find_metric(None, labelled=False, outputs=image)
    assert metric.name == "fidelity"
    assert metric.score(image, None, image).tolist() == [1, 1]
    half = [image[0] * np.array([1.0, 0.5]).reshape(2, 1, 1, 1)]
    assert metric.score(half, None, image) == pytest.approx([1, 0.5])
    assert metric.score([image[0] * np.nan], None, image).tolist() == [0, 0]


def test_metrics_that_cannot_be_had_say_so() -> None:
    with pytest.raises(DataError, match="needs labels"):
        find_metric("top1", labelled=False, outputs=LOGITS)
    with pytest.raises(RecipeError, match="known are top1"):
        find_metric("top2", labelled=True, outputs=LOGITS)


def relu_model(path: Path, shape: list[int | str], *, axes: list[int] | None = None) -> Path:
    """y = relu(x), or its mean over ``axes``."""
    nodes = [helper.make_node("Relu", ["x"], ["r" if axes else "y"])]
    if axes:
        nodes.append(helper.make_node("ReduceMean", ["r"], ["y"], axes=axes, keepdims=0))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_every_sample_is_run_whatever_the_models_batch(tmp_path: Path, batch: int | str) -> None:
    session = Session(relu_model(tmp_path / "m.onnx", [batch, 2]))
    x = np.random.default_rng(0).standard_normal((10, 2)).astype(np.float32)
    [y] = run_dataset(session, Dataset({"x": x}))
    assert np.array_equal(y, np.maximum(x, 0))


def test_outputs_without_a_batch_axis_are_run_one_at_a_time(tmp_path: Path) -> None:
    session = Session(relu_model(tmp_path / "m.onnx", ["N", 2], axes=[0, 1]))
    x = np.random.default_rng(0).standard_normal((5, 2)).astype(np.float32)
    [y] = run_dataset(session, Dataset({"x": x}))
    assert y == pytest.approx(np.maximum(x, 0).mean(axis=1))


def test_stacked_samples_keep_their_own_batch_axis(tmp_path: Path) -> None:
    session = Session(relu_model(tmp_path / "m.onnx", [1, 2]))
    x = np.random.default_rng(0).standard_normal((5, 1, 2)).astype(np.float32)
    [y] = run_dataset(session, Dataset({"x": x}, stacked=True))
    assert np.array_equal(y, np.maximum(x, 0))


def test_evaluator_scores_pairs(mlp: Path) -> None:
    x = np.random.default_rng(0).standard_normal((30, 12)).astype(np.float32)
    session = Session(mlp)
    evaluator = Evaluator(session, Dataset({"x": x}))
    assert evaluator.metric.name == "agreement"
    assert evaluator.baseline.tolist() == [1.0] * 30
    other = onnx.load(mlp)
    weight = next(t for t in other.graph.initializer if t.name == "fc1.weight")
    weight.CopyFrom(numpy_helper.from_array(np.zeros((4, 16), np.float32), "fc1.weight"))
    assert evaluator.scores(Session(other.SerializeToString())).mean() < 1


def test_splits_share_nothing_and_depend_on_the_seed() -> None:
    parts = split(100, 0, calibration=0.1, search=0.5)
    together = np.concatenate([parts.calibration, parts.search, parts.held_out])
    assert sorted(together.tolist()) == list(range(100))
    assert (len(parts.calibration), len(parts.search)) == (10, 50)
    again = split(100, 0, calibration=0.1, search=0.5)
    assert np.array_equal(parts.search, again.search)
    assert not np.array_equal(parts.search, split(100, 1, calibration=0.1, search=0.5).search)
