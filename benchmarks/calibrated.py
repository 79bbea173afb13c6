"""Every real model: how much of it is pruned with calibration data, why the rest is not, and what it gains.

    python benchmarks/calibrated.py [--models ../shared/models] [--sparsity 0.6] [--only NAME ...]

The data are seeded random inputs, for they fit every model; what is measured is coverage, not quality.
Columns, model by model:

weights    elements of the weights that onnxprune finds; embeddings, which multiply nothing, are not
           among them unless --embeddings is given.
watched    share of those elements whose reductions are known, so that `--method obs` updates them.
error      mean squared error of the model's outputs over their variance, after obs and after
           magnitude with the same number of weights in each tensor, on other random inputs.
seconds    of processor time, for obs.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
from threadpoolctl import threadpool_limits

from onnxprune import api
from onnxprune.data import Dataset
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluate import run_dataset
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from onnxprune.runtime import Session
from onnxprune.verify import random_samples
from passes.weights import collect_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROOT = Path(__file__).parents[1]
SAMPLES, FEWEST, NUMBERS = 16, 2, 2**19
"""Samples of small inputs, of large ones, and the numbers beyond which an input is large."""


def samples_for(path: Path, session: Session, seed: int) -> Dataset:
    """Inputs that a model runs on; both sample rates where a model has a branch for each."""
    if path.name.startswith("silero_vad"):
        rng = np.random.default_rng(seed)
        size = 256 if any(spec.name == "sr" for spec in session.inputs) else 512
        inputs: dict[str, NDArray[Any]] = {
            "input": 0.1 * rng.standard_normal((SAMPLES, 1, size)).astype(np.float32),
            "state": 0.1 * rng.standard_normal((SAMPLES, 2, 1, 128)).astype(np.float32),
        }
        if size == 256:
            inputs["sr"] = np.array([8000, 16000] * (SAMPLES // 2))
        return Dataset(inputs, stacked=True)
    one = random_samples(session, 1, seed)
    size = sum(array.size for array in one.inputs.values())
    return random_samples(session, max(FEWEST, min(SAMPLES, NUMBERS // max(1, size))), seed)


def error_of(dense: list[NDArray[Any]], path: Path, data: Dataset) -> float | None:
    """Mean over the outputs that vary of squared error over variance; None when there is none."""
    shares = []
    for want, got in zip(dense, run_dataset(Session(path, threads=1), data), strict=True):
        variance = float(np.var(want.astype(np.float64))) if want.dtype.kind == "f" else 0.0
        if variance > 0 and want.shape == got.shape:
            shares.append(float(((got.astype(np.float64) - want) ** 2).mean()) / variance)
    return float(np.mean(shares)) if shares else None


def check(path: Path, sparsity: float, folder: Path, *, embeddings: bool) -> dict[str, Any]:
    """All columns of one model, and elements that are not watched by reason."""
    session = Session(path, threads=1)
    data, others = (samples_for(path, session, seed) for seed in (0, 1))
    weights = {w.name: w for w in collect_weights(load_model(path), embeddings=embeddings).weights}
    elements = sum(weight.elements for weight in weights.values())
    row: dict[str, Any] = {"elements": elements, "watched": elements, "reasons": {}}
    if not weights:
        return row
    dense, pruned = run_dataset(session, others), folder / "pruned.onnx"
    for method in ("magnitude", "obs"):
        options = OneShot(method=method, allocation="uniform", bias_correction=method == "obs")
        start = time.process_time()
        report = api.prune(
            path,
            pruned,
            sparsity=sparsity,
            data=None if method == "magnitude" else dict(data.inputs),
            options=options,
            embeddings=embeddings,
            threads=1,
        )
        row[f"{method}_seconds"] = time.process_time() - start
        row[f"{method}_error"] = error_of(dense, pruned, others)
    methods = report.methods or {}
    missed: Counter[str] = Counter()
    for name, weight in weights.items():
        how, _, reason = methods[name].partition(": ")
        if how == "magnitude":
            missed[reason] += weight.elements
    row |= {"reasons": dict(missed), "watched": elements - missed.total()}
    return row


def main() -> None:
    """Parse the arguments, check every model, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--sparsity", type=float, default=0.6)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--embeddings", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=None)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    threadpool_limits(1)
    print(f"{'':36} {'weights':>9} {'watched':>8} {'obs':>9} {'magnitude':>9} {'seconds':>8}")
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted(arguments.models.glob("*.onnx")) + sorted(arguments.models.glob("*/*.onnx")):
        name = str(path.relative_to(arguments.models))
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                rows[name] = check(
                    path, arguments.sparsity, Path(folder), embeddings=arguments.embeddings
                )
            except OnnxPruneError as error:
                print(f"{name[:36]:36} {error}"[:140], flush=True)
                continue
        show(name, rows[name])
        save(rows, arguments.sparsity, arguments.output)
    total, watched = (sum(row[key] for row in rows.values()) for key in ("elements", "watched"))
    print(f"{'all':36} {total:9d} {100 * watched / max(1, total):7.2f}%")
    print(nearer(rows))


def nearer(rows: dict[str, dict[str, Any]]) -> str:
    """How many models obs leaves nearer to the dense ones than magnitude does, in words."""
    scored = [row for row in rows.values() if row.get("obs_error") is not None]
    below = sum(row["obs_error"] <= row["magnitude_error"] for row in scored)
    return (
        f"Outputs are nearer to the dense ones than by magnitude: {below} of {len(scored)} models."
    )


def save(rows: dict[str, dict[str, Any]], sparsity: float, output: Path | None) -> None:
    """Leave the figures so far."""
    total, watched = (sum(row[key] for row in rows.values()) for key in ("elements", "watched"))
    shown = [
        row
        | {
            "model": name,
            "share": row["watched"] / row["elements"] if row["elements"] else None,
            "why": "; ".join(row["reasons"]) or None,
        }
        for name, row in rows.items()
    ]
    forms = {
        "model": "{}",
        "elements": "weights|{:,}",
        "share": "watched|{:.1%}",
        "obs_error": "error, obs|{:.1e}",
        "magnitude_error": "error, magnitude|{:.1e}",
        "why": "by magnitude because|{}",
    }
    note = f"{watched:,} of {total:,} elements are watched: {watched / max(1, total):.2%}. {nearer(rows)}"
    tables = [record.table(f"Weights watched, at {sparsity:.0%} sparsity", shown, forms, note)]
    record.write(__file__, tables, {"sparsity": sparsity, "models": rows}, output)


def show(name: str, row: dict[str, Any]) -> None:
    """One line of the table, and the reasons below it."""
    share = 100 * row["watched"] / row["elements"] if row["elements"] else 100.0
    errors = [row.get("obs_error"), row.get("magnitude_error")]
    cells = " ".join(f"{error:9.2e}" if error is not None else f"{'-':>9}" for error in errors)
    seconds = row.get("obs_seconds", 0.0)
    print(f"{name[:36]:36} {row['elements']:9d} {share:7.2f}% {cells} {seconds:8.1f}", flush=True)
    for reason, elements in row["reasons"].items():
        print(f"{'':36} {elements:9d} by magnitude: {reason}")


if __name__ == "__main__":
    main()
