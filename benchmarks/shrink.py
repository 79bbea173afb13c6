"""Exact shrinking: parameters, multiply-adds and latency before and after, in one run.

    python benchmarks/shrink.py --models ../shared/models models [--sparsity 0.5 0.7]
    python benchmarks/shrink.py --dense models/lenet5.onnx --tuned tuned.onnx

Whole output channels of each weight are pruned, those of least L2 norm first, which is the mask of a
channel pattern; the last layer of a model keeps its outputs, whose bias alone would be left. Then the
pruned model is shrunk and both are timed in turn on one thread. ``--dense`` and ``--tuned`` compare
a model that training made sparse, shrunk, with the dense original. ``error`` is the largest
difference of an output over its largest magnitude.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import record

from onnxprune.model_io import load_model, model_bytes
from passes.apply import ApplyMasksPass
from passes.shrink import ShrinkPass, size_of
from passes.weights import collect_weights


def prune_channels(model: ir.Model, sparsity: float) -> None:
    """Zero the output channels of least norm of every weight but the last."""
    masks = {}
    for weight in collect_weights(model).weights[:-1]:
        matrices = weight.matrices().astype(np.float32)
        norms = np.sqrt((matrices**2).sum(axis=(0, 2)))
        dead = np.argsort(norms, kind="stable")[: int(norms.size * sparsity)]
        mask = np.ones(matrices.shape, np.bool_)
        mask[:, dead] = False
        masks[weight.name] = mask
    ApplyMasksPass(masks)(model)


def session(content: bytes) -> ort.InferenceSession:
    """One thread, silent."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def feeds_of(loaded: ort.InferenceSession) -> dict[str, np.ndarray]:
    """One seeded sample, every open size taken as 1."""
    kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    kinds |= {"tensor(uint8)": np.uint8, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
    rng = np.random.default_rng(0)
    return {
        value.name: rng.random([s if isinstance(s, int) else 1 for s in value.shape]).astype(
            kinds[value.type]
        )
        for value in loaded.get_inputs()
    }


def timed(before: bytes, after: bytes, rounds: int) -> dict[str, object]:
    """Median latencies in turn, and the largest relative difference."""
    pair = [session(before), session(after)]
    try:
        feeds = feeds_of(pair[0])
        outputs = [one.run(None, feeds) for one in pair]
    except Exception as error:  # noqa: BLE001 - some models do not run on made-up inputs
        return {"runs": str(error).splitlines()[0][:80]}
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for one, found in zip(pair, times, strict=True):
            start = time.perf_counter()
            one.run(None, feeds)
            found.append(time.perf_counter() - start)
    medians = [statistics.median(found) * 1e3 for found in times]
    errors = [
        float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max())
        / max(1e-12, float(np.abs(a.astype(np.float64)).max()))
        for a, b in zip(*outputs, strict=True)
        if a.size and a.dtype.kind in "biuf"
    ]
    return {
        "before_latency_ms": medians[0],
        "after_latency_ms": medians[1],
        "speedup": medians[0] / medians[1],
        "error": max(errors, default=0.0),
    }


def row_of(name: str, sparsity: float, reference: ir.Model, pruned: ir.Model, rounds: int) -> dict:
    """Shrink a pruned model and compare it with a reference of the same outputs."""
    before, content = size_of(reference), model_bytes(reference)
    start = time.perf_counter()
    ShrinkPass()(pruned)
    seconds = time.perf_counter() - start
    after = size_of(pruned)
    return {
        "model": name,
        "sparsity": sparsity,
        "before_parameters": before.parameters,
        "after_parameters": after.parameters,
        "before_multiply_adds": before.multiply_adds,
        "after_multiply_adds": after.multiply_adds,
        "shrink_s": seconds,
        **timed(content, model_bytes(pruned), rounds),
    }


def show(row: dict) -> None:
    """A row as text."""
    latency = "-"
    if "speedup" in row:
        latency = (
            f"{row['before_latency_ms']:.3f} -> {row['after_latency_ms']:.3f} "
            f"{row['speedup']:.2f} x  error {row['error']:.1e}"
        )
    print(
        f"{row['model'][:32]:32} {row['sparsity']:>5} {row['before_parameters']:>9} -> "
        f"{row['after_parameters']:>9} ({row['after_parameters'] / max(1, row['before_parameters']):.2f}) "
        f"{row['before_multiply_adds']:>12} -> {row['after_multiply_adds']:>12} {latency}",
        flush=True,
    )


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", type=Path, default=[Path("../shared/models")])
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.5, 0.7])
    parser.add_argument("--dense", type=Path)
    parser.add_argument("--tuned", type=Path)
    parser.add_argument("--rounds", type=int, default=51)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    print(
        f"{'model':32} {'spars.':>5} {'parameters':>29} {'multiply-adds':>28} latency ms, one thread"
    )
    if arguments.dense and arguments.tuned:
        dense, tuned = load_model(arguments.dense), load_model(arguments.tuned)
        share = 1 - sum(np.count_nonzero(w.array()) for w in collect_weights(tuned).weights) / max(
            1, collect_weights(tuned).elements
        )
        rows.append(row_of(arguments.tuned.name, round(share, 3), dense, tuned, arguments.rounds))
        show(rows[-1])
    else:
        for folder in arguments.models:
            for path in [folder] if folder.is_file() else sorted(folder.glob("*.onnx")):
                for sparsity in arguments.sparsity:
                    model = load_model(path)
                    if not collect_weights(model).weights:
                        continue
                    prune_channels(model, sparsity)
                    again = ir.from_proto(ir.to_proto(model))
                    rows.append(row_of(path.name, sparsity, model, again, arguments.rounds))
                    show(rows[-1])
    forms = {"model": "{}", "sparsity": "{}", "before_parameters": "parameters|{:,}"}
    forms |= {"after_parameters": "after|{:,}", "before_multiply_adds": "multiply-adds|{:,}"}
    forms |= {"after_multiply_adds": "after|{:,}", "speedup": "times as fast|{:.2f}"}
    forms |= {"error": "largest difference|{:.1e}"}
    tables = [record.table("Before and after", rows, forms)]
    print(f"\nall figures in {record.write(__file__, tables, rows, arguments.json)}")


if __name__ == "__main__":
    main()
