"""A quantised model pruned on its own grid: magnitude, and obs with two ways of rounding.

    python benchmarks/quantized_obs.py [--sparsities 0.5 0.7 0.8]

The MLPerf Tiny image classifier as its makers quantised it (QDQ, int8 weights and activations) from
../shared/models. 512 unlabelled training images of CIFAR-10 calibrate, the 5,000 test images measure.
"nearest" rounds every weight that obs has found to its nearest number; "on its grid" is what `prune
--method obs` does (passes/grid.py). Magnitude moves no bias and needs no data.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import record
from threadpoolctl import threadpool_limits

from onnxprune import api
from onnxprune.one_shot import OneShot
from onnxprune.runtime import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.grid import Grid
    from passes.reconstruction import Quadratic

SHARED = Path(__file__).parents[2] / "shared"
MODEL = SHARED / "models" / "mlperf_tiny_ic_resnet_qdq.onnx"
SAMPLES, BATCH = 512, 250


def images(name: str) -> tuple[NDArray[np.int8], NDArray[np.uint8]]:
    """Images as the model wants them (``i8``), and their labels."""
    with np.load(SHARED / "data" / name) as data:
        return (data["x"].astype(np.int16) - 128).astype(np.int8), data["y"]


def accuracy(path: Path, x: NDArray[np.int8], y: NDArray[np.uint8]) -> float:
    """Top-1 in percent."""
    session = Session(path, threads=1)
    name = session.inputs[0].name
    hits = [
        session.run({name: x[start : start + BATCH]})[0].argmax(axis=1) == y[start : start + BATCH]
        for start in range(0, len(x), BATCH)
    ]
    return float(np.concatenate(hits).mean() * 100)


def nearest(
    problem: Quadratic, weights: NDArray[np.float64], mask: NDArray[np.bool_], grid: Grid
) -> NDArray[np.float64]:
    """What stands in for :func:`passes.grid.on_grid`."""
    del problem
    return np.where(mask, grid.nearest(weights), 0.0)


def save(rows: list[dict[str, Any]], dense: float, output: Path | None) -> None:
    """Leave the figures so far."""
    forms = {
        "sparsity": "{:.0%}",
        "method": "{}",
        "reached": "zeros|{:.2%}",
        "top1": "top-1|{:.2f} %",
        "cpu_seconds": "CPU seconds|{}",
    }
    note = f"{MODEL.name}, dense {dense:.2f} % on the 5,000 test images."
    tables = [record.table("Top-1 of a quantised model", rows, forms, note)]
    record.write(__file__, tables, {"model": MODEL.name, "dense": dense, "rows": rows}, output)


def main() -> None:
    """Print the table and write the JSON after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[0.5, 0.7, 0.8])
    parser.add_argument("-o", "--output", type=Path, default=None)
    arguments = parser.parse_args()
    threadpool_limits(1)
    test = images("cifar10_test_5k.npz")
    train, _labels = images("cifar10_train_20k.npz")
    picked = np.random.default_rng(0).permutation(len(train))[:SAMPLES]
    dense = accuracy(MODEL, *test)
    print(f"dense: {dense:.2f} %\nsparsity  method                reached   top-1  processor")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        calibration, output = Path(folder) / "calibration.npz", Path(folder) / "pruned.onnx"
        np.savez(calibration, x=train[picked])
        for sparsity in arguments.sparsities:
            for label in ("magnitude", "obs, nearest", "obs, on its grid"):
                method = label.partition(",")[0]
                data = None if method == "magnitude" else str(calibration)
                options = OneShot(method=method)
                start = time.process_time()
                patch = mock.patch("passes.methods.on_grid", nearest)
                with patch if label.endswith("nearest") else mock.MagicMock():
                    report = api.prune(
                        MODEL, output, sparsity=sparsity, data=data, options=options, threads=1
                    )
                assert report.totals is not None
                row = {
                    "sparsity": sparsity,
                    "method": label,
                    "reached": round(report.totals.sparsity, 4),
                    "top1": round(accuracy(output, *test), 2),
                    "cpu_seconds": round(time.process_time() - start, 1),
                }
                rows.append(row)
                print(
                    f"{sparsity:8.2f}  {label:20} {row['reached']:8.4f} {row['top1']:7.2f} "
                    f"{row['cpu_seconds']:10.1f}",
                    flush=True,
                )
                save(rows, dense, arguments.output)


if __name__ == "__main__":
    main()
