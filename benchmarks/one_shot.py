"""One-shot pruning from unlabelled inputs: quality and time beside onnxsim's SparseGPT, on six real models.

    python benchmarks/one_shot.py [--models resnet20 vit ...] [--sparsities 0.5 0.7 0.8 0.9 2:4]
        [--allocations] [--blocks] [--ours-only]

Models are those of ../shared/models, their data those of ``one_shot_models.py``; what is measured on is
never seen in calibration. With labels the figure is top-1 accuracy, else fidelity to the dense model's
outputs (one minus the relative error, averaged over samples; 100 is the dense model). onnxsim leaves some
kinds of weights alone; where it falls short of what it was asked for by more than two points of the
whole, a further row has ours at the sparsity that onnxsim reached. ``--allocations`` compares the
allocations of ``obs`` at one sparsity instead. Everything runs on one processor (the process pins
itself), and both the time that passed and the processor time are printed, reading and writing files
included: on a busy machine only the latter can be compared. Rows of other models, sparsities and methods
stay in the JSON file.
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
from one_shot_models import CASES
from onnx import helper
from threadpoolctl import threadpool_limits

from onnxprune import api
from onnxprune.data import load_data
from onnxprune.evaluate import Evaluator
from onnxprune.model_io import load_model
from onnxprune.one_shot import ALLOCATIONS, OneShot
from onnxprune.runtime import Session
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from one_shot_models import Case

    from onnxprune.one_shot import Allocation

    Run = tuple[str, str, Callable[[], None]]

SEVERAL = (
    "Models and options were run one after the other; the command above is that of the last run."
)

BATCH = 64
ALLOCATION_SPARSITY = 0.8

THEIRS = "onnxsim SparseGPT"
SHORT = 0.02
"""A method that stays further below the sparsity asked for is compared at what it reached, too."""


def sparsity_of(path: Path) -> float:
    """Share of zeros over the weights, wherever they are stored now."""
    weights = [w for w in collect_weights(load_model(path)).weights if w.consumers]
    zeros = sum(int((w.array() == 0).sum()) for w in weights)
    return zeros / sum(w.elements for w in weights)


class Scorer:
    """Measures candidates on what calibration does not see, in percent."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case, self._folder = case, folder
        dense = Session(self._view(case.path), threads=1)
        arrays = dict(case.held_out) | ({} if case.labels is None else {"labels": case.labels})
        metric = "fidelity" if case.labels is None else "top1"
        self._evaluator = Evaluator(dense, load_data(arrays, dense.inputs), metric)
        self.metric = metric
        self.dense = float(self._evaluator.baseline.mean() * 100)

    def __call__(self, path: Path) -> float:
        """The mean score of a model."""
        scores = self._evaluator.scores(Session(self._view(path), threads=1))
        return round(float(scores.mean() * 100), 2)

    def _view(self, path: Path) -> Path:
        """The model, or a copy that gives what is to be measured."""
        if self._case.measured is None:
            return path
        model = onnx.load_model(path)
        del model.graph.output[:]
        value = helper.make_tensor_value_info(self._case.measured, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(value)
        onnx.save_model(model, self._folder / "view.onnx")
        return self._folder / "view.onnx"


def ours(
    case: Case,
    sparsity: str,
    data: Path,
    output: Path,
    *,
    allocation: Allocation | None = None,
    blocks: bool = False,
) -> None:
    """The `prune` command with `--method obs` and its defaults, but for what is asked for."""
    pattern = sparsity if ":" in sparsity else "unstructured"
    options = OneShot(
        method="obs",
        allocation=allocation,
        pattern=pattern,
        reconstruct="blocks" if blocks else "layers",
    )
    share = None if ":" in sparsity else float(sparsity)
    api.prune(case.path, output, sparsity=share, data=str(data), options=options, threads=1)


def theirs(case: Case, sparsity: str, data: Path, output: Path) -> None:
    """SparseGPT of onnxsim on the same inputs, fed in the model's batch."""
    import onnxsim

    session = Session(case.path, threads=1)
    fixed = [spec.shape[0] for spec in session.inputs if spec.shape and spec.shape[0]]
    size = min(fixed, default=BATCH)
    with np.load(data) as arrays:
        samples = {name: arrays[name] for name in arrays.files}
    count = len(next(iter(samples.values())))
    feeds = [
        {name: array[start : start + size] for name, array in samples.items()}
        for start in range(0, count - size + 1, size)
    ]
    if ":" in sparsity:
        n, m = (int(part) for part in sparsity.split(":"))
        pruned = onnxsim.apply_sparsegpt_pruning(str(case.path), feeds, n=n, m=m)
    else:
        pruned = onnxsim.apply_sparsegpt_pruning(str(case.path), feeds, sparsity=float(sparsity))
    onnx.save_model(pruned, output)


def measure(run: Callable[[], None]) -> dict[str, float]:
    """Seconds that passed, and seconds of processor time."""
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    run()
    passed, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": round(passed, 1), "cpu_seconds": round(used, 1)}


def runs(
    case: Case, arguments: argparse.Namespace, data: Path, output: Path
) -> Generator[Run, dict[str, Any], None]:
    """What is to be run: a sparsity, the name of a method, and the method on this model.

    It is sent the row of each run.
    """
    if arguments.allocations:
        for kind in ALLOCATIONS:
            asked = str(ALLOCATION_SPARSITY)
            yield asked, kind, lambda k=kind, s=asked: ours(case, s, data, output, allocation=k)
        return
    for sparsity in arguments.sparsities:
        yield sparsity, "onnxprune obs", lambda s=sparsity: ours(case, s, data, output)
        if arguments.blocks:
            yield (
                sparsity,
                "onnxprune obs, blocks",
                lambda s=sparsity: ours(case, s, data, output, blocks=True),
            )
        if arguments.ours_only:
            continue
        row = yield sparsity, THEIRS, lambda s=sparsity: theirs(case, s, data, output)
        if ":" not in sparsity and row.get("reached", 1.0) < float(sparsity) - SHORT:
            reached = str(row["reached"])
            yield (
                sparsity,
                "onnxprune obs, as sparse as onnxsim",
                lambda s=reached: ours(case, s, data, output),
            )


def run_model(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rows of one model."""
    case, rows = CASES[name](), []
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        data, output = folder / "calibration.npz", folder / "pruned.onnx"
        np.savez(data, **case.calibration)
        scorer = Scorer(case, folder)
        print(f"\n{case.path.name}: {scorer.metric} of the dense model {scorer.dense:.2f}")
        print("sparsity  method                               reached   score   seconds  processor")
        pending = runs(case, arguments, data, output)
        following = next(pending, None)
        while following is not None:
            sparsity, method, run = following
            rows.append(measured(sparsity, method, run, output, scorer))
            try:
                following = pending.send(rows[-1])
            except StopIteration:
                following = None
    return {
        "model": case.path.name,
        "inputs": case.inputs,
        "metric": scorer.metric,
        "dense": round(scorer.dense, 2),
        "rows": rows,
    }


def measured(
    sparsity: str, method: str, run: Callable[[], None], output: Path, scorer: Scorer
) -> dict[str, Any]:
    """Run a method, print its row, and give it."""
    row: dict[str, Any] = {"sparsity": sparsity, "method": method}
    try:
        row |= measure(run)
    except Exception as error:  # noqa: BLE001 - a peer that cannot run a model is a result, too
        row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
        print(f"{sparsity:>8}  {method:36} failed: {row['failed']}", flush=True)
        return row
    row |= {"reached": round(sparsity_of(output), 4), "score": scorer(output)}
    print(
        f"{sparsity:>8}  {method:36} {row['reached']:7.4f} {row['score']:7.2f} "
        f"{row['seconds']:9.1f} {row['cpu_seconds']:10.1f}",
        flush=True,
    )
    return row


def merged(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The figures of one model, with those rows of an earlier run that were not measured again."""
    rows = [*(old or {}).get("rows", ()), *new["rows"]]
    latest = {(row["sparsity"], row["method"]): row for row in rows}
    return new | {"rows": sorted(latest.values(), key=lambda row: (row["sparsity"], row["method"]))}


def tables(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures as they are shown."""
    forms = {"sparsity": "{}", "method": "{}", "reached": "{:.4f}", "score": "{:.2f}"}
    forms |= {"cpu_seconds": "CPU s|{:.1f}", "failed": "{}"}
    shown = []
    for result in _in_order(figures.get("one_shot", {})).values():
        title = f"{result['model']}, {result['metric']} in %, dense {result['dense']:.2f}"
        note = f"Inputs: {result['inputs']}." + ("" if shown else f" {SEVERAL}")
        shown.append(record.table(title, result["rows"], forms, note))
    if compared := figures.get("allocations"):
        rows = [
            {"allocation": kind}
            | {
                name: next((r.get("score") for r in result["rows"] if r["method"] == kind), None)
                for name, result in _in_order(compared).items()
            }
            for kind in ALLOCATIONS
        ]
        forms = {"allocation": "{}"} | dict.fromkeys(_in_order(compared), "{:.2f}")
        title = f"Allocations of obs at {ALLOCATION_SPARSITY:.0%} sparsity"
        shown.append(record.table(title, rows, forms, "Scores as above, in %."))
    return shown


def _in_order(results: dict[str, Any]) -> dict[str, Any]:
    """Results by model, in the order of the models."""
    return {name: results[name] for name in CASES if name in results}


def main() -> None:
    """Print the tables and write the JSON after every model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--sparsities", nargs="+", default=["0.5", "0.7", "0.8", "0.9", "2:4"])
    parser.add_argument("--allocations", action="store_true", help="compare those of obs")
    parser.add_argument("--blocks", action="store_true", help="add --reconstruct blocks")
    parser.add_argument("--ours-only", action="store_true")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    threadpool_limits(1)
    part = "allocations" if arguments.allocations else "one_shot"
    figures = record.read(__file__) or {}
    for name in arguments.models:
        known = figures.setdefault(part, {})
        known[name] = merged(known.get(name), run_model(name, arguments))
        record.write(__file__, tables(figures), figures, arguments.output)


if __name__ == "__main__":
    main()
