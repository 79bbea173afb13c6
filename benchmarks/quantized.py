"""Pruning, quantization and packing in every order: what is left of the zeros, of the accuracy, of the file.

    python benchmarks/quantized.py [--sparsity 0.9]

LeNet-5 as shipped, pruned globally by magnitude without any training, quantized by
``onnxruntime.quantization.quantize_static`` (QDQ, calibrated on 512 of the images set apart), packed.
Accuracy is that on the MNIST test set. "zero bytes" counts stored bytes that are 0, which is all that a
tool sees that knows nothing of zero points; "zeros" counts those at the weight's zero point.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import record
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

from onnxprune import api
from onnxprune.model_io import load_model
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS = Path(__file__).parents[1] / "models"
IMAGES = 512

FORMS: dict[str, dict[str, Any]] = {
    "QInt8 symmetric": {"weight_type": QuantType.QInt8, "per_channel": True},
    "QUInt8": {"weight_type": QuantType.QUInt8, "per_channel": False},
}


class Images(CalibrationDataReader):
    """The images that the models were not trained on, one by one."""

    def __init__(self) -> None:
        with np.load(MODELS / "lenet5-data.npz") as content:
            images = content["image"][:IMAGES]
        self._feeds: Iterator[dict[str, Any]] = ({"image": image[None]} for image in images)

    def get_next(self) -> dict[str, Any] | None:
        """The next feed, or None."""
        return next(self._feeds, None)


def quantize(source: Path, target: Path, form: str) -> None:
    """Static quantization with the options of a form."""
    activations = {"activation_type": QuantType.QUInt8, "quant_format": QuantFormat.QDQ}
    quantize_static(source, target, Images(), **activations, **FORMS[form])


def accuracy(model: Path) -> float:
    """Share of the MNIST test set that is labelled right."""
    with np.load(MODELS / "mnist-test.npz") as content:
        images, labels = content["image"], content["labels"]
    [logits] = ort.InferenceSession(model).run(None, {"image": images})
    return float((np.asarray(logits).argmax(axis=1) == labels).mean())


def measure(order: str, form: str, model: Path) -> dict[str, Any]:
    """One row of the table."""
    weights = collect_weights(load_model(model)).weights
    elements = sum(weight.elements for weight in weights)
    packed = model.with_suffix(".packed.onnx")
    api.pack(model, packed)
    same = api.verify(model, packed, data=str(MODELS / "lenet5-data.npz"), rtol=0, atol=0)
    assert same.verification is not None
    return {
        "order": order,
        "form": form,
        "dtypes": sorted({weight.array().dtype.name for weight in weights}),
        "zeros": sum(elements_at_zero(weight) for weight in weights) / elements,
        "zero_bytes": sum(int((weight.array() == 0).sum()) for weight in weights) / elements,
        "accuracy": accuracy(model),
        "model_bytes": model.stat().st_size,
        "gzip_bytes": len(gzip.compress(model.read_bytes(), 9)),
        "packed_bytes": packed.stat().st_size,
        "packed_equal": same.verification.passed,
    }


def elements_at_zero(weight: Any) -> int:
    """How many elements of a weight stand for 0."""
    return int(weight.elements - weight.nonzeros())


def rows(sparsity: float, folder: Path) -> Iterator[dict[str, Any]]:
    """All orders."""
    dense = MODELS / "lenet5.onnx"
    copy = folder / "dense.onnx"
    copy.write_bytes(dense.read_bytes())
    yield measure("as shipped", "float32", copy)
    pruned = folder / "pruned.onnx"
    api.prune(dense, pruned, sparsity=sparsity, allocation="global")
    yield measure("prune", "float32", pruned)
    for form in FORMS:
        slug = form.split()[0]
        quantized = folder / f"quantized-{slug}.onnx"
        quantize(dense, quantized, form)
        yield measure("quantize", form, quantized)
        first = folder / f"prune-quantize-{slug}.onnx"
        quantize(pruned, first, form)
        yield measure("prune, quantize", form, first)
        last = folder / f"quantize-prune-{slug}.onnx"
        api.prune(quantized, last, sparsity=sparsity, allocation="global")
        yield measure("quantize, prune", form, last)


def main() -> None:
    """Print the table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = list(rows(options.sparsity, Path(folder)))
    print(
        f"LeNet-5 / MNIST, {options.sparsity:.0%} sparse, no training; every packed file {'equals' if all(r['packed_equal'] for r in table) else 'DIFFERS FROM'} its own model bit for bit"
    )
    print(
        f"{'order':16} {'weights':16} {'zeros':>8} {'zero bytes':>11} {'top1':>8} {'model':>9} {'gzip -9':>9} {'packed':>9}"
    )
    for row in table:
        print(
            f"{row['order']:16} {row['form']:16} {row['zeros']:8.2%} {row['zero_bytes']:11.2%} {row['accuracy']:8.2%} "
            f"{row['model_bytes']:9,} {row['gzip_bytes']:9,} {row['packed_bytes']:9,}"
        )
    forms = {"order": "{}", "form": "weights|{}", "zeros": "{:.2%}", "zero_bytes": "{:.2%}"}
    forms |= {"accuracy": "top-1|{:.2%}", "model_bytes": "model|{:,}", "gzip_bytes": "gzip -9|{:,}"}
    forms |= {"packed_bytes": "packed|{:,}", "packed_equal": "packed equal|{}"}
    title = f"LeNet-5 / MNIST, {options.sparsity:.0%} sparse, no training"
    record.write(__file__, [record.table(title, table, forms)], table, options.json)


if __name__ == "__main__":
    main()
