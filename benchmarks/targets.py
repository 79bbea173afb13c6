"""What each pattern of zeros gains at each kind of deployment target, on one model in one run.

    python benchmarks/targets.py [--model models/lenet5.onnx] [--rounds 101]

The model is pruned by magnitude in each pattern and deployed in every form. Latencies are medians on
one thread, dense and pruned in turn, as multiples of the dense model's; bytes are those of files. Vela's codec
gets the weights rounded to int8, a scale for each output, in the order in which they are stored. Accuracy is no
subject here: what a pattern costs depends on the method (see ``one_shot.py``).

Needs the extras ``test`` (OpenVINO) and ``bench`` (Vela's codec).
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import openvino
import record
from ethosu import mlw_codec

from onnxprune import api
from onnxprune.model_io import load_model
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[], Any]

ROOT = Path(__file__).parents[1]
MEMORIES = ("ddr4-2400", "octal-flash-200")
PATTERNS: dict[str, dict[str, Any]] = {
    "none (dense)": {"sparsity": 0.0},
    "unstructured, 90 %": {"sparsity": 0.9, "allocation": "global"},
    "2:4": {"pattern": "2:4"},
    "4x1 blocks, 75 %": {"sparsity": 0.75, "pattern": "4x1"},
    "channels, 50 %, shrunk": {"sparsity": 0.5, "pattern": "channel"},
}


def prune(model: Path, name: str, out: Path) -> None:
    """The model in one of the patterns; weights of one input channel keep it."""
    options = dict(PATTERNS[name])
    if options.get("pattern") == "channel":
        weights = collect_weights(load_model(model)).weights
        options["nodes_to_exclude"] = [w.name for w in weights if w.layout.shape[1] == 1]
        api.prune(model, out, **options)
        api.shrink(out, out)
        return
    api.prune(model, out, **options)


def onnxruntime_of(path: Path, feeds: dict[str, np.ndarray]) -> Run:
    """One inference in onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def openvino_of(path: Path, feeds: dict[str, np.ndarray]) -> Run:
    """One inference in OpenVINO."""
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    compiled = core.compile_model(core.read_model(path), "CPU")
    return lambda: compiled(feeds)


def ratio(runs: tuple[Run, Run], rounds: int) -> float:
    """Median time of the second over that of the first, taken in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for run in runs:
        run()
    for _ in range(rounds):
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return statistics.median(times[1]) / statistics.median(times[0])


def vela_bytes(path: Path) -> int:
    """What Vela's codec makes of the weights, rounded to int8."""
    size = 0
    for weight in collect_weights(load_model(path)).weights:
        values = weight.matrices()
        scale = np.abs(values).max(axis=2, keepdims=True) / 127
        codes = np.rint(values / np.where(scale > 0, scale, 1)).astype(int)
        size += len(mlw_codec.encode(codes.ravel().tolist()))
    return size


def measure(model: Path, name: str, folder: Path, rounds: int) -> dict[str, Any]:
    """One row of the table."""
    pruned, packed, blob = (folder / f"pruned.{kind}" for kind in ("onnx", "packed.onnx", "swb"))
    prune(model, name, pruned)
    api.pack(pruned, packed)
    api.encode(pruned, blob)
    totals = api.inspect(pruned).totals
    assert totals is not None
    rng = np.random.default_rng(0)
    feeds = {"image": rng.integers(0, 256, (1, 1, 28, 28)).astype(np.uint8)}
    row: dict[str, Any] = {
        "pattern": name,
        "sparsity": totals.sparsity,
        "model_bytes": pruned.stat().st_size,
        "gzip_bytes": len(gzip.compress(pruned.read_bytes(), 9)),
        "packed_bytes": packed.stat().st_size,
        "blob_bytes": blob.stat().st_size,
        "vela_bytes": vela_bytes(pruned),
        "packed_openvino_bytes": api.pack(pruned, packed, runtime="openvino").totals.packed_bytes,  # type: ignore[union-attr]
    }
    for runtime, make in (("onnxruntime", onnxruntime_of), ("openvino", openvino_of)):
        dense = make(model, feeds)
        row[f"{runtime}_latency"] = ratio((dense, make(pruned, feeds)), rounds)
        row[f"{runtime}_packed_latency"] = ratio((dense, make(packed, feeds)), rounds)
    for memory in MEMORIES:
        found = api.estimate(blob, memory=memory).totals
        assert found is not None
        row[f"{memory}_cycles"] = found.fetch_cycles
    return row


def tables(rows: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """The figures as they are shown."""
    sizes = {"pattern": "{}", "sparsity": "{:.1%}", "model_bytes": "model|{:,}"}
    sizes |= {"gzip_bytes": "model, gzip -9|{:,}", "packed_bytes": "packed|{:,}"}
    sizes |= {"packed_openvino_bytes": "packed for OpenVINO|{:,}", "blob_bytes": "blob|{:,}"}
    sizes |= {"vela_bytes": "Vela's codec, int8|{:,}"}
    speeds = {"pattern": "{}", "onnxruntime_latency": "onnxruntime, pruned|{:.2f} x"}
    speeds |= {"onnxruntime_packed_latency": "packed|{:.2f} x"}
    speeds |= {"openvino_latency": "OpenVINO, pruned|{:.2f} x"}
    speeds |= {"openvino_packed_latency": "packed|{:.2f} x"}
    speeds |= {f"{memory}_cycles": f"fetch from {memory}, cycles|{{:,}}" for memory in MEMORIES}
    return [
        record.table(f"Bytes, {model}", rows, sizes),
        record.table(f"Latency over the dense model's, and fetch cycles of the blob, {model}", rows, speeds),
    ]  # fmt: skip


def main() -> None:
    """Measure every pattern, print, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "lenet5.onnx")
    parser.add_argument("--rounds", type=int, default=101)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in PATTERNS:
            rows.append(measure(arguments.model, name, Path(folder), arguments.rounds))
            print(rows[-1], flush=True)
    record.write(__file__, tables(rows, arguments.model.stem), rows)


if __name__ == "__main__":
    main()
