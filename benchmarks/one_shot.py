"""One-shot pruning from 512 unlabelled images: accuracy and time beside onnxsim's SparseGPT.

    python benchmarks/one_shot.py [--sparsities 0.5 0.7 0.8 0.9 2:4] [--ours-only]

ResNet-20 on CIFAR-10 from ../shared/models. Calibration images come from the training set, figures from
the test images, which nothing else sees. Everything runs on one processor (the process pins itself), and
both the time that passed and the processor time are printed, reading and writing files included: on a
busy machine only the latter can be compared.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import record
from threadpoolctl import threadpool_limits

from onnxprune import api
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from onnxprune.runtime import Session
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SHARED = Path(__file__).parents[2] / "shared"
MODEL = SHARED / "models" / "cifar10_resnet20_folded.onnx"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
SAMPLES = 512
BATCH = 64


def images(name: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Images as the model wants them, and their labels."""
    with np.load(SHARED / "data" / name) as data:
        scaled = (data["x"].astype(np.float32) / 255 - MEAN) / DEVIATION
        return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2)), data["y"]


def accuracy(path: Path, x: NDArray[np.float32], y: NDArray[np.uint8]) -> float:
    """Top-1 in percent."""
    session = Session(path, threads=1)
    name = session.inputs[0].name
    hits = [
        session.run({name: x[start : start + 250]})[0].argmax(axis=1) == y[start : start + 250]
        for start in range(0, len(x), 250)
    ]
    return float(np.concatenate(hits).mean() * 100)


def sparsity_of(path: Path) -> float:
    """Share of zeros over the weights, wherever they are stored now."""
    weights = [w for w in collect_weights(load_model(path)).weights if w.consumers]
    zeros = sum(int((w.array() == 0).sum()) for w in weights)
    return zeros / sum(w.elements for w in weights)


def ours(sparsity: str, calibration: Path, output: Path) -> None:
    """The `prune` command with `--method obs` and its defaults."""
    pattern = sparsity if ":" in sparsity else "unstructured"
    share = None if ":" in sparsity else float(sparsity)
    options = OneShot(method="obs", pattern=pattern)
    api.prune(MODEL, output, sparsity=share, data=str(calibration), options=options, threads=1)


def theirs(sparsity: str, calibration: Path, output: Path) -> None:
    """SparseGPT of onnxsim on the same images."""
    import onnxsim

    with np.load(calibration) as data:
        x = data["input"]
    feeds = [{"input": x[start : start + BATCH]} for start in range(0, len(x), BATCH)]
    if ":" in sparsity:
        n, m = (int(part) for part in sparsity.split(":"))
        pruned = onnxsim.apply_sparsegpt_pruning(str(MODEL), feeds, n=n, m=m)
    else:
        pruned = onnxsim.apply_sparsegpt_pruning(str(MODEL), feeds, sparsity=float(sparsity))
    onnx.save_model(pruned, output)


def measure(run: Callable[[], None]) -> dict[str, float]:
    """Seconds that passed, and seconds of processor time."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    passed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(passed, 1), "cpu_seconds": round(used, 1)}


def tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures as they are shown."""
    forms = {"sparsity": "{}", "method": "{}", "reached": "{:.4f}", "top1": "top-1|{:.2f} %"}
    forms |= {"drop": "points lost|{:.2f}", "cpu_seconds": "CPU s|{:.1f}"}
    title = f"ResNet-20 / CIFAR-10, dense {result['dense']:.2f} %"
    note = f"{result['samples']} unlabelled training images; the accuracy is that on 5,000 test images."
    return [record.table(title, result["rows"], forms, note)]


def main() -> None:
    """Print the table and write the JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sparsities", nargs="+", default=["0.5", "0.7", "0.8", "0.9", "2:4"])
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    threadpool_limits(1)
    test = images("cifar10_test_5k.npz")
    train, _labels = images("cifar10_train_20k.npz")
    picked = np.random.default_rng(0).permutation(len(train))[:SAMPLES]
    dense = accuracy(MODEL, *test)
    print(f"dense: {dense:.2f} %")
    print("sparsity  method              reached   top-1   drop   seconds  processor")
    rows: list[dict[str, Any]] = []
    methods = [("onnxprune obs", ours)]
    if not arguments.ours_only:
        methods.append(("onnxsim SparseGPT", theirs))
    with tempfile.TemporaryDirectory() as folder:
        calibration, output = Path(folder) / "calibration.npz", Path(folder) / "pruned.onnx"
        np.savez(calibration, input=train[picked])
        for sparsity in arguments.sparsities:
            for name, prune in methods:
                took = measure(lambda p=prune, s=sparsity: p(s, calibration, output))
                top1 = accuracy(output, *test)
                row = {
                    "sparsity": sparsity,
                    "method": name,
                    "reached": round(sparsity_of(output), 4),
                    "top1": round(top1, 2),
                    "drop": round(dense - top1, 2),
                    **took,
                }
                rows.append(row)
                print(
                    f"{sparsity:>8}  {name:18} {row['reached']:8.4f} {top1:7.2f} {dense - top1:6.2f} "
                    f"{took['seconds']:9.1f} {took['cpu_seconds']:10.1f}",
                    flush=True,
                )
                result = {"model": MODEL.name, "samples": SAMPLES, "dense": dense, "rows": rows}
                record.write(__file__, tables(result), result, arguments.output)


if __name__ == "__main__":
    main()
