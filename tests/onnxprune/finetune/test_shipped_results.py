"""The fine-tuned models that the repository ships: same graph, as sparse and as good as stated."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune import api

RATES = {"lenet300": 66.0}
DROP = 0.003


def accuracy(model: Path, data: Path) -> float:
    with np.load(data) as arrays:
        [logits] = ort.InferenceSession(model).run(None, {"image": arrays["image"]})
        return float((logits.argmax(axis=1) == arrays["labels"]).mean())


@pytest.mark.parametrize("name", RATES)
def test_the_rate_and_the_accuracy(name: str, models_folder: Path) -> None:
    dense, sparse = (models_folder / f"{name}{end}" for end in (".onnx", ".l_half.onnx"))
    totals = api.inspect(sparse).totals
    assert totals is not None
    assert totals.compression_rate >= RATES[name]
    data = models_folder / "mnist-test.npz"
    assert accuracy(dense, data) - accuracy(sparse, data) <= DROP


@pytest.mark.parametrize("name", RATES)
def test_the_graph_is_the_originals_to_the_byte(name: str, models_folder: Path) -> None:
    models = [onnx.load(models_folder / f"{name}{end}") for end in (".onnx", ".l_half.onnx")]
    for model in models:
        for tensor in model.graph.initializer:
            for field in ("raw_data", "float_data", "int64_data"):
                tensor.ClearField(field)
    first, second = (model.SerializeToString(deterministic=True) for model in models)
    assert first == second


@pytest.mark.parametrize("name", RATES)
def test_the_packed_form_and_the_blob_hold_the_same(
    name: str, models_folder: Path, tmp_path: Path
) -> None:
    sparse = models_folder / f"{name}.l_half.onnx"
    packed = sparse.with_suffix(".packed.onnx")
    assert api.verify(sparse, packed, rtol=0, atol=0).succeeded
    api.decode(sparse.with_suffix(".swb"), tmp_path / "w.npz")
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(sparse).graph.initializer}
    with np.load(tmp_path / "w.npz") as decoded:
        assert decoded.files
        for key in decoded.files:
            assert decoded[key].tobytes() == stored[key].tobytes()
