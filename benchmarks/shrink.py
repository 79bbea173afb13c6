"""Exact shrinking: parameters, multiply-adds and latency before and after, in one run.

    python benchmarks/shrink.py [--models ../shared/models models] [--sparsity 0.5 0.7]
    python benchmarks/shrink.py --tuned models/lenet5.onnx tuned.onnx

Whole output channels of each weight are pruned, those of least L2 norm first, which is the mask of a
channel pattern; the last layer of a model keeps its outputs, whose bias alone would be left. Then the
pruned model is shrunk and both are timed in turn on one thread. ``--tuned`` compares a model that
training made sparse, shrunk, with the dense original; those that the repository ships come first. ``error`` is the largest
difference of an output over its largest magnitude. The JSON is written row by row: a run that was
stopped goes on where it was, unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import record
from side_by_side import Rows, model_files, run_in_turn

from onnxprune.model_io import load_model, model_bytes
from passes.apply import ApplyMasksPass
from passes.shrink import ShrinkPass, size_of
from passes.weights import collect_weights

SHIPPED = [
    (Path(f"models/{name}.onnx"), Path(f"models/{name}.l_half.onnx"))
    for name in ("lenet300", "lenet5")
]
"""Models that fine-tuning with L-half made sparse, and their dense originals."""


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


def row_of(name: str, sparsity: float, reference: ir.Model, pruned: ir.Model) -> dict[str, object]:
    """Shrink a pruned model and compare it with a reference, of the same outputs or the original."""
    before, content = size_of(reference), model_bytes(reference)
    start = time.process_time()
    ShrinkPass(multiple=4)(pruned)  # as the command does
    seconds = time.process_time() - start
    after = size_of(pruned)
    return {
        "model": name,
        "sparsity": sparsity,
        "before_parameters": before.parameters,
        "after_parameters": after.parameters,
        "before_multiply_adds": before.multiply_adds,
        "after_multiply_adds": after.multiply_adds,
        "shrink_s": round(seconds, 3),
        **run_in_turn(content, model_bytes(pruned), 0.5),
    }


def from_training(dense: ir.Model, tuned: ir.Model) -> tuple[float, ir.Model, ir.Model]:
    """The sparsity of a model that training made sparse, its dense original, and itself."""
    weights = collect_weights(tuned)
    share = 1 - sum(w.nonzeros() for w in weights.weights) / max(1, weights.elements)
    return round(share, 4), dense, tuned


def show(
    kept: Rows, name: str, sparsity: float, before: ir.Model, pruned: ir.Model, *, same: bool = True
) -> None:
    """Print a row, measured unless it was kept from an earlier run."""
    row = kept.find(name, sparsity)
    if row is None:
        row = row_of(name, sparsity, before, pruned)
        if not same:  # another model's outputs: their difference says nothing of shrinking
            row = {key: value for key, value in row.items() if key not in {"error", "equal"}}
        kept.add(row)
    print(line(row), flush=True)


def line(row: dict[str, object]) -> str:
    """A row as text."""
    latency = str(row.get("does_not_run", "-"))[:60]
    if isinstance(interval := row.get("latency_ratio_ci95"), list):
        low, high = interval
        latency = (
            f"{row['before_latency_ms']:.3f} -> {row['after_latency_ms']:.3f} "
            f"{row['latency_ratio']:.2f} x ({low:.2f}-{high:.2f}) error {row.get('error', '-')}"
        )
    share = int(str(row["after_parameters"])) / max(1, int(str(row["before_parameters"])))
    return (
        f"{str(row['model'])[:32]:32} {row['sparsity']:>5} {row['before_parameters']:>9} -> "
        f"{row['after_parameters']:>9} ({share:.2f}) "
        f"{row['before_multiply_adds']:>12} -> {row['after_multiply_adds']:>12} {latency}"
    )


def tables(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The figures as they are shown."""
    forms = {"model": "{}", "sparsity": "{:.1%}", "before_parameters": "parameters|{:,}"}
    forms |= {"after_parameters": "after|{:,}", "before_multiply_adds": "multiply-adds|{:,}"}
    forms |= {"after_multiply_adds": "after|{:,}", "before_latency_ms": "ms|{:.3f}"}
    forms |= {"after_latency_ms": "after|{:.3f}", "latency_ratio": "after / before|{:.2f}"}
    forms |= {"interval": "95 %|{}", "error": "largest difference|{:.1e}"}
    shown = [dict(row) for row in rows]
    for row in shown:
        if isinstance(interval := row.get("latency_ratio_ci95"), list):
            row["interval"] = f"{interval[0]:.2f} to {interval[1]:.2f}"
    return [record.table("Before and after", shown, forms)]


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """What the rows of models that got smaller say together."""
    smaller = [r for r in rows if r["after_parameters"] != r["before_parameters"]]
    ratios = [float(str(row["latency_ratio"])) for row in smaller if "latency_ratio" in row]
    errors = [float(str(row["error"])) for row in rows if "error" in row]
    return {
        "rows": len(rows),
        "smaller": len(smaller),
        "median_latency_ratio": round(statistics.median(ratios), 3) if ratios else None,
        "slower_than_before": sum(ratio > 1.05 for ratio in ratios),
        "largest_error": max(errors, default=None),
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folders = [Path("../shared/models"), Path("models")]
    parser.add_argument("--models", nargs="*", type=Path, default=folders)
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.5, 0.7])
    parser.add_argument("--tuned", nargs=2, type=Path, action="append", default=[])
    parser.add_argument("--fresh", action="store_true", help="forget rows of earlier runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    def leave(rows: list[dict[str, object]], told: dict[str, object]) -> Path:
        figures = {"summary": told, "rows": rows}
        return record.write(__file__, tables(rows), figures, arguments.json)

    kept = Rows(__file__, leave, arguments.json, fresh=arguments.fresh)
    print(
        f"{'model':32} {'spars.':>5} {'parameters':>29} {'multiply-adds':>28} latency ms, one thread"
    )
    for dense, tuned in [*SHIPPED, *arguments.tuned]:
        if tuned.exists():
            show(kept, tuned.name, *from_training(load_model(dense), load_model(tuned)), same=False)
    for path in model_files(arguments.models, 0):
        for sparsity in arguments.sparsity:
            model = load_model(path)
            if collect_weights(model).weights:
                prune_channels(model, sparsity)
                show(kept, path.name, sparsity, model, ir.from_proto(ir.to_proto(model)))
    written = kept.write(told := summary(kept.rows))
    print("\n" + ", ".join(f"{key} {value}" for key, value in told.items()))
    print(f"all figures in {written}")


if __name__ == "__main__":
    main()
