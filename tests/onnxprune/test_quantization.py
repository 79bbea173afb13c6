"""Pruning, onnxruntime's static quantization and packing, in both orders: no zero is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from onnxprune import api
from onnxprune.model_io import load_model
from passes.weights import collect_weights

SPARSITY = 0.9


class Images(CalibrationDataReader):
    def __init__(self, path: Path) -> None:
        with np.load(path) as content:
            self.feeds = iter([{"image": image[None]} for image in content["image"][:64]])

    def get_next(self):
        return next(self.feeds, None)


@pytest.fixture(params=[(QuantType.QInt8, True), (QuantType.QUInt8, False)], ids=["int8", "uint8"])
def quantize(request: pytest.FixtureRequest, models_folder: Path):
    weight_type, per_channel = request.param

    def quantize(source: Path, target: Path) -> Path:
        quantize_static(
            source,
            target,
            Images(models_folder / "lenet300-data.npz"),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=weight_type,
            per_channel=per_channel,
        )
        return target

    return quantize


def prune(source: Path, target: Path) -> Path:
    api.prune(source, target, sparsity=SPARSITY)
    return target


def check_end(model: Path, models_folder: Path, tmp_path: Path) -> None:
    report = api.inspect(model)
    assert {weight.dtype for weight in report.weights} <= {"int8", "uint8"}
    assert report.totals.elements == 266_200
    assert report.totals.sparsity >= SPARSITY - 1e-6
    packed = tmp_path / "packed.onnx"
    warnings = [w for w in api.pack(model, packed).warnings if "zero bytes" in w]
    shifted = "uint8" in {weight.dtype for weight in report.weights}
    assert warnings == [w for w in report.warnings if "zero bytes" in w]
    assert len(warnings) == shifted, "QUInt8 is warned of, QInt8 is not"
    if shifted:
        weights = collect_weights(load_model(model)).weights
        plain = sum(int((w.array() == 0).sum()) for w in weights) / report.totals.elements
        assert (
            f"{report.totals.sparsity:.2%} of them stand for zero, but {plain:.2%}" in warnings[0]
        )
    assert packed.stat().st_size < model.stat().st_size / 3
    with np.load(models_folder / "mnist-test.npz") as content:
        images = content["image"][:500]
    outputs = [ort.InferenceSession(m).run(None, {"image": images})[0] for m in (model, packed)]
    assert outputs[0].tobytes() == outputs[1].tobytes()


def test_prune_then_quantize_then_pack(quantize, models_folder: Path, tmp_path: Path) -> None:
    pruned = prune(models_folder / "lenet300.onnx", tmp_path / "pruned.onnx")
    check_end(quantize(pruned, tmp_path / "quantized.onnx"), models_folder, tmp_path)


def test_quantize_then_prune_then_pack(quantize, models_folder: Path, tmp_path: Path) -> None:
    quantized = quantize(models_folder / "lenet300.onnx", tmp_path / "quantized.onnx")
    scales = {w.name: w.quantization.scales for w in collect_weights(load_model(quantized)).weights}
    model = prune(quantized, tmp_path / "pruned.onnx")
    check_end(model, models_folder, tmp_path)
    for weight in collect_weights(load_model(model)).weights:
        assert np.array_equal(weight.quantization.scales, scales[weight.name])
