"""Every real model beside the repository: found, pruned, run, kept, packed and encoded.

    python benchmarks/any_model.py [--models ../shared/models] [--sparsity 0.8]

Columns, model by model:

found     weight bytes that onnxprune found, of all float and int8 bytes that the operators of the
          list below read at a weight's place. That total is counted here, from the file alone.
by op     the same found bytes, of the share that the models' own MANIFEST.md gives to those
          operators (biases are counted there, so 100 % is out of reach where biases are large).
pruned    share of zeros in the model that was written, counted from its file; "exact" when each
          weight has as many as asked for (or as it had before, if that is more).
runs      the pruned model runs in onnxruntime on the inputs that the original runs on.
kept      names, interface, opsets, metadata and data layout are as they were, and an unpruned
          round trip through onnxprune gives the same file.
packed    size of the packed model over that of the model, or why there is none.
blob      size of the blob over that of the weights.

Models that stock onnxruntime cannot run must still be read, reported on, pruned and written.
"""

from __future__ import annotations

import argparse
import logging
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx
import record
from weight_bytes import LISTED, weight_bytes

from onnxprune import api
from onnxprune.errors import OnnxPruneError
from onnxprune.model_io import load_model, save_model
from passes.allocation import uniform
from passes.weights import collect_weights

GOAL = 0.95
ROOT = Path(__file__).parents[1]


def manifest_shares(folder: Path) -> dict[str, float]:
    """By file, the share of float and int8 bytes that MANIFEST.md gives to the listed operators."""
    shares = {}
    for line in (folder / "MANIFEST.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) < 4 or not cells[0].endswith(".onnx"):
            continue
        parts = re.findall(r"([\w>+]+) ([\d.]+)%", cells[3])
        shares[cells[0]] = (
            sum(float(p) for op, p in parts if re.split("[>+]", op)[-1] in LISTED) / 100
        )
    return shares


def found_bytes(path: Path) -> int:
    """Bytes of all weights that onnxprune finds, embeddings too, as the file stores them."""
    weights = collect_weights(load_model(path), embeddings=True).weights
    return sum(w.elements * w.dtype.itemsize for w in weights if w.place != "fill")


def nonzeros_of(path: Path) -> dict[str, tuple[int, int]]:
    """Elements and nonzeros of each weight of a model by name, counted from its file."""
    weights = collect_weights(load_model(path)).weights
    return {weight.name: (weight.elements, weight.nonzeros()) for weight in weights}


def round_trip(path: Path, folder: Path) -> bool:
    """Whether reading and writing a model gives the same message, data file names left out."""
    copy = folder / "copy.onnx"
    save_model(load_model(path), copy)
    before, after = (_message(file) for file in (path, copy))
    return before == after


def _message(path: Path, *, without_data: bool = False) -> bytes:
    model = onnx.load(path, load_external_data=False)
    for tensor in onnx.external_data_helper._get_all_tensors(model):  # noqa: SLF001
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "data"
        if without_data and not tensor.external_data:
            for field in ("raw_data", "float_data", "int32_data", "double_data"):
                tensor.ClearField(field)
    if without_data:
        _blank_values(model.graph)
    return bytes(model.SerializeToString(deterministic=True))


def _blank_values(graph: onnx.GraphProto) -> None:
    """Constant nodes and ConstantOfShape nodes may change in their attributes; names may not."""
    for node in graph.node:
        if node.op_type in {"Constant", "ConstantOfShape"}:
            node.ClearField("attribute")
            node.op_type = "Constant"
            del node.input[:]
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                _blank_values(body)


def _attempt(action: Any) -> tuple[Any, str]:
    try:
        return action(), ""
    except OnnxPruneError as error:
        return None, str(error)


def check(path: Path, sparsity: float, share: float, folder: Path) -> dict[str, Any]:
    """All columns of one model."""
    start = time.perf_counter()
    row: dict[str, Any] = {"bytes": path.stat().st_size}
    total, constants = weight_bytes(path)
    found = found_bytes(path)
    row["weight_bytes"], row["found_bytes"] = total, found
    row["found"] = min(1.0, found / total) if total else None
    row["found_by_manifest"] = found / (share * constants) if share else None
    pruned, packed, blob = (folder / name for name in ("p.onnx", "k.onnx", "b.swb"))
    report, row["error"] = _attempt(lambda: api.prune(path, pruned, sparsity=sparsity))
    if report is not None:
        before, after = nonzeros_of(path), nonzeros_of(pruned)
        elements = sum(size for size, _ in after.values())
        left = sum(nonzeros for _, nonzeros in after.values())
        row["elements"], row["sparsity"] = elements, 1 - left / elements if elements else None
        keep = uniform({name: size for name, (size, _) in before.items()}, sparsity)
        row["exact"] = all(after[n][1] == min(keep[n], before[n][1]) for n in before)
        row["kept"] = round_trip(path, folder) and _message(path, without_data=True) == _message(
            pruned, without_data=True
        )
        row["original_runs"] = _attempt(lambda: api.verify(path, path, samples=1))[1] == ""
        ran, row["run_error"] = _attempt(lambda: api.verify(path, pruned, samples=1, rtol=1e3))
        row["runs"] = ran is not None
        done, row["pack_error"] = _attempt(lambda: api.pack(pruned, packed))
        if done is not None and elements:
            row["packed"] = done.totals.packed_bytes / done.model.bytes
            same, why = _attempt(lambda: api.verify(pruned, packed, samples=1, rtol=0, atol=0))
            row["packed_equal"] = bool(same and same.verification.passed)
            row["pack_error"] = why
        done, row["encode_error"] = _attempt(lambda: api.encode(pruned, blob))
        if done is not None and elements:
            row["blob"] = blob.stat().st_size / done.totals.dense_bytes
    row["seconds"] = time.perf_counter() - start
    return row


def show(name: str, row: dict[str, Any]) -> None:
    """One line of the table."""

    def percent(key: str) -> str:
        return f"{100 * row[key]:6.1f}%" if row.get(key) is not None else "      -"

    def yes(key: str) -> str:
        return {True: "yes", False: "NO", None: "-"}[row.get(key)]

    ran = yes("runs") if row.get("original_runs") else "n/a"
    pack = percent("packed") if "packed" in row else "      -"
    print(
        f"{name[:36]:36} {row['bytes'] / 1e3:6.0f} kB {percent('found')} {percent('found_by_manifest')}"
        f" {percent('sparsity')} {yes('exact'):>5} {ran:>4} {yes('kept'):>4} {pack}"
        f" {yes('packed_equal'):>5} {percent('blob')} {row['seconds']:6.1f} s"
        f"  {row['error'] or row.get('pack_error', '')[:60]}"
    )


def main() -> None:
    """Parse the arguments, check every model, print, and write JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT.parent / "shared" / "models")
    parser.add_argument("--sparsity", type=float, default=0.8)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    shares = manifest_shares(arguments.models)
    print(
        f"{'':36} {'file':>9} {'found':>7} {'by op':>7} {'pruned':>7} {'exact':>5} {'runs':>4} "
        f"{'kept':>4} {'packed':>7} {'equal':>5} {'blob':>7} {'time':>8}"
    )
    rows = {}
    for path in sorted(arguments.models.rglob("*.onnx")):
        name = str(path.relative_to(arguments.models))
        if arguments.only and not any(part in name for part in arguments.only):
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = check(path, arguments.sparsity, shares.get(name, 0.0), Path(folder))
        show(name, rows[name])
    good = summary(rows)
    shown = [{"model": name, **row} for name, row in rows.items()]
    tables = [
        record.table(
            f"Every real model, pruned to {arguments.sparsity:.0%} by magnitude",
            shown,
            {
                "model": "{}",
                "bytes": "{:,}",
                "found": "{:.1%}",
                "sparsity": "pruned|{:.1%}",
                "exact": "{}",
                "runs": "{}",
                "kept": "{}",
                "packed": "packed / model|{:.1%}",
                "packed_equal": "packed equal|{}",
                "blob": "blob / weights|{:.1%}",
            },
            "What the columns mean stands at the top of the script.",
        )
    ]
    record.write(__file__, tables, {"models": rows, "passed": good}, arguments.json)
    raise SystemExit(0 if good else 1)


def summary(rows: dict[str, dict[str, Any]]) -> bool:
    """Print what the issue asks for; True when all of it holds."""
    runnable = {n: r for n, r in rows.items() if r.get("original_runs")}
    good = [
        n
        for n, r in runnable.items()
        if not r["error"]
        and r["runs"]
        and r["kept"]
        and r["exact"]
        and (r["found"] is None or r["found"] >= GOAL)
    ]
    others = {n: r for n, r in rows.items() if n not in runnable}
    read = [n for n, r in others.items() if not r["error"] and r["kept"]]
    found = sum(r["found_bytes"] for r in rows.values())
    total = sum(r["weight_bytes"] for r in rows.values())
    print(
        f"\n{len(good)} of {len(runnable)} runnable models succeed; those that do not: "
        f"{sorted(runnable.keys() - set(good)) or 'none'}"
    )
    print(f"{len(read)} of {len(others)} others are read, pruned and written as they were")
    print(f"weight bytes found: {found} of {total}")
    packed = [n for n, r in runnable.items() if r.get("packed_equal")]
    print(
        f"packed, equal bit for bit in onnxruntime: {len(packed)}; "
        f"encoded: {sum('blob' in r for r in rows.values())}"
    )
    return len(good) == len(runnable) and len(read) == len(others)


if __name__ == "__main__":
    main()
