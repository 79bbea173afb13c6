"""Packed ONNX: bytes, load time, peak memory, latency and runtimes, beside the dense file in one run.

    python benchmarks/packed.py [--models ../shared/models models] [--sparsity 0.5 0.9] [--no-large]

Every model is pruned by magnitude, uniformly; then each row compares the pruned dense file, the same
gzipped, as ``sparse_initializer`` (12 bytes a nonzero of float32), and packed with each form of
values, with the entropy bound of its weights. ``within`` says whether positions, values and all
overhead of ``keep`` stay within 5 % of the bound, plus 150 bytes a weight and 4 KB a model. Loading
happens in a fresh process for each file, dense and packed in turn; times are CPU seconds of that
process, so that neighbours on the machine disturb less, and ratios are taken within one run. Models
of ``--min-bytes`` are measured at all sparsities, load time and latency at those of ``--timed``,
runtimes at 0.9. Made-up matrices of 64 MB in all stand for large files. The JSON is written row by
row: a run that was stopped goes on where it was, unless ``--fresh`` is given.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import record
from onnx import TensorProto, helper, numpy_helper
from other_runtimes import agreeing
from side_by_side import Rows, load_cost, model_files, run_in_turn

from hwmodel.entropy import entropy_bound_bits
from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.packing import convert_opset
from onnxprune.verify import folds_wholly
from passes.apply import ApplyMasksPass
from passes.masks import keep_count, keep_largest
from passes.pack import PackWeightsPass
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

FORMS = ("keep", "float16", "int8", "codebook16")

RUNTIMES_AT = 0.9
"""The sparsity at which other runtimes are tried."""


def pruned(path: Path, sparsity: float) -> ir.Model:
    """The model with ``sparsity`` of each weight's smallest values set to zero."""
    model = load_model(path)
    masks = {
        weight.name: keep_largest(
            np.abs(weight.matrices().astype(np.float32)), keep_count(weight.elements, sparsity)
        )
        for weight in collect_weights(model).weights
    }
    ApplyMasksPass(masks)(model)
    return model


def scattering(model: ir.Model, path: Path, opset: int) -> ir.Model:
    """The model at an opset that has Scatter, where it can be converted."""
    if model.opset_imports.get("", 0) >= 9:
        return model
    try:
        return convert_opset(model, opset, path)
    except ModelError as error:
        print(f"  stays at its opset: {str(error)[:150]}")
        return model


def constants(model: ir.Model) -> list[tuple[str, bytes]]:
    """All weights, bit for bit."""
    return [(weight.name, weight.array().tobytes()) for weight in collect_weights(model).weights]


def measure(
    name: str, model: ir.Model, sparsity: float, rounds: int, *, forms: tuple[str, ...] = FORMS
) -> dict[str, object]:
    """One row of the table; ``rounds`` 0 leaves out times."""
    weights = collect_weights(model).weights
    held = sum(weight.array().nbytes for weight in weights)
    bits = [entropy_bound_bits(w.elements, w.nonzeros(), w.array().itemsize * 8) for w in weights]
    bound = sum(bits) / 8
    with tempfile.TemporaryDirectory() as folder:
        dense, packed = Path(folder) / "dense.onnx", Path(folder) / "packed.onnx"
        save_model(model, dense)
        size = dense.stat().st_size
        rest = size - held
        row: dict[str, object] = {
            "model": name,
            "opset": model.opset_imports.get("", 0),
            "sparsity": sparsity,
            "weights": len(weights),
            "largest_mb": max((w.array().nbytes for w in weights), default=0) / 1e6,
            "dense_bytes": size,
            "gzip_bytes": len(gzip.compress(dense.read_bytes(), 6)),
            "sparse_initializer_bytes": rest
            + sum(w.nonzeros() * (w.array().itemsize + 8) for w in weights),
            "nonzeros": sum(w.nonzeros() for w in weights),
            "bound_bytes": round(bound),
        }
        for form in forms:
            again = load_model(dense)
            PackWeightsPass(values=form, freeze_inputs=True)(again)
            row[f"{form}_bytes"] = len(model_bytes(again))
            if form == "keep":
                save_model(again, packed)
        kept = int(str(row["keep_bytes"])) - rest
        row["over_bound"] = kept / bound if bound else 0.0
        row["within"] = kept <= 1.05 * bound + 150 * len(weights) + 4096
        row["aim"] = kept <= 1.03 * bound + 75 * len(weights) + 2048
        unpacked = load_model(packed)
        UnpackWeightsPass()(unpacked)
        row["unpacks"] = constants(unpacked) == constants(load_model(dense))
        row["folds"] = folds_wholly(packed)
        if rounds:
            costs = load_cost([dense, packed], rounds)
            row["dense_load_ms"], row["dense_peak_mb"] = costs[0]
            row["packed_load_ms"], row["packed_peak_mb"] = costs[1]
            row |= run_in_turn(dense, packed)
        if rounds and sparsity == RUNTIMES_AT:
            row["runtimes"] = agreeing(dense, packed)
    return row


def matrices(count: int, size: int, sparsity: float) -> ir.Model:
    """``count`` products with ``size`` x ``size`` matrices, one after the other."""
    rng = np.random.default_rng(0)
    tensors = []
    for number in range(count):
        array = rng.standard_normal((size, size), np.float32)
        array[rng.random((size, size)) < sparsity] = 0
        tensors.append(numpy_helper.from_array(array, f"w{number}"))
    nodes = [
        helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"h{number + 1}"])
        for number in range(count)
    ]
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name in ("h0", f"h{count}")
    ]
    graph = helper.make_graph(nodes, "matrices", info[:1], info[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


HEAD = (
    f"{'model':30} {'spars.':>6} {'dense':>9} {'gzip':>9} {'sparse_i':>9} {'bound':>9} {'keep':>9} "
    f"{'f16':>9} {'int8':>9} {'cb16':>9} {'/bound':>6} {'5%':>3} {'3%':>3} {'folds':>5} "
    f"{'load ms':>15} {'peak MB':>13} {'latency x':>18} equal, runtimes"
)


def line(row: dict[str, object]) -> str:
    """A row as text."""
    sizes = ("dense", "gzip", "sparse_initializer", "bound", *FORMS)
    shown = " ".join(f"{row.get(f'{name}_bytes', '-'):>9}" for name in sizes)
    text = (
        f"{str(row['model'])[:30]:30} {row['sparsity']:>6} {shown} {row['over_bound']:>6.3f} "
        f"{'yes' if row['within'] else 'NO':>3} {'yes' if row['aim'] else '-':>3} "
        f"{'yes' if row['folds'] and row['unpacks'] else 'NO':>5}"
    )
    if "dense_load_ms" in row:
        text += (
            f" {row['dense_load_ms']:>6.1f} ->{row['packed_load_ms']:>6.1f} "
            f"{row['dense_peak_mb']:>5.1f} ->{row['packed_peak_mb']:>5.1f}"
        )
    if isinstance(interval := row.get("latency_ratio_ci95"), list):
        low, high = interval
        text += f" {row['latency_ratio']:.3f} ({low:.3f}-{high:.3f}) {row['equal']}"
    if isinstance(runtimes := row.get("runtimes"), dict):
        text += " " + ", ".join(f"{name}: {told}" for name, told in runtimes.items())
    return text


def tables(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The figures as they are shown."""
    forms = {"model": "{}", "sparsity": "{:.0%}", "dense_bytes": "dense|{:,}"}
    forms |= {"gzip_bytes": "gzip|{:,}", "sparse_initializer_bytes": "sparse_initializer|{:,}"}
    forms |= {"bound_bytes": "bound|{:,}"} | {f"{form}_bytes": f"{form}|{{:,}}" for form in FORMS}
    forms |= {"over_bound": "keep / bound|{:.3f}", "within": "in limit|{}", "folds": "{}"}
    times = {"model": "{}", "sparsity": "{:.0%}"}
    times |= {"dense_load_ms": "load, dense ms|{:.1f}", "packed_load_ms": "packed ms|{:.1f}"}
    times |= {"load_ratio": "ratio|{:.2f}"}
    times |= {"dense_peak_mb": "peak, dense MB|{:.0f}", "packed_peak_mb": "packed MB|{:.0f}"}
    times |= {"latency_ratio": "latency / dense|{:.3f}", "interval": "95 %|{}", "equal": "{}"}
    times |= {"told": "other runtimes|{}"}
    timed = [dict(row) for row in rows if "dense_load_ms" in row]
    for row in timed:
        row["load_ratio"] = float(str(row["packed_load_ms"])) / float(str(row["dense_load_ms"]))
        if isinstance(interval := row.get("latency_ratio_ci95"), list):
            row["interval"] = f"{interval[0]:.2f} to {interval[1]:.2f}"
        if isinstance(runtimes := row.get("runtimes"), dict):
            row["told"] = ", ".join(f"{name}: {one}" for name, one in runtimes.items())
    return [
        record.table(
            "Bytes", rows, forms, "The bound counts weights alone, the others whole files."
        ),
        record.table("Loading, latency and other runtimes", timed, times),
    ]


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    """What all rows say together."""
    ratios = [float(str(row["latency_ratio"])) for row in rows if "latency_ratio" in row]
    extra = [
        float(str(row["packed_load_ms"])) - float(str(row["dense_load_ms"]))
        for row in rows
        if "packed_load_ms" in row and int(str(row["dense_bytes"])) < 64e6
    ]
    return {
        "rows": len(rows),
        "within_5_percent": sum(bool(row["within"]) for row in rows),
        "within_3_percent": sum(bool(row["aim"]) for row in rows),
        "fold_wholly": sum(bool(row["folds"]) for row in rows),
        "unpack_bit_for_bit": sum(bool(row["unpacks"]) for row in rows),
        "outputs_equal": f"{sum(bool(r.get('equal')) for r in rows)} of {len(ratios)}",
        "median_latency_ratio": round(statistics.median(ratios), 4) if ratios else None,
        "most_extra_load_ms_under_64_mb": round(max(extra), 1) if extra else None,
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folders = [Path("../shared/models"), Path("models")]
    parser.add_argument("--models", nargs="*", type=Path, default=folders)
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.5, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--timed", nargs="*", type=float, default=[0.5, 0.9])
    parser.add_argument("--min-bytes", type=int, default=1_000_000)
    parser.add_argument("--opset", type=int, default=11, help="what opset 7 and 8 are converted to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-large", action="store_true")
    parser.add_argument("--fresh", action="store_true", help="forget rows of earlier runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    def leave(rows: list[dict[str, object]], told: dict[str, object]) -> Path:
        figures = {"summary": told, "rows": rows}
        return record.write(__file__, tables(rows), figures, arguments.json)

    kept = Rows(__file__, leave, arguments.json, fresh=arguments.fresh)
    print(HEAD)
    for count, size in [] if arguments.no_large else [(1, 4096), (4, 2048), (16, 1024)]:
        for sparsity in (0.5, 0.8, 0.9, 0.98):
            name = f"{count} x {size}^2"
            row = kept.find(name, sparsity)
            if row is None:
                model = matrices(count, size, sparsity)
                kept.add(row := measure(name, model, sparsity, arguments.rounds, forms=("keep",)))
            print(line(row), flush=True)
    for path in model_files(arguments.models, arguments.min_bytes):
        for sparsity in arguments.sparsity:
            row = kept.find(path.name, sparsity)
            if row is None:
                model = scattering(pruned(path, sparsity), path, arguments.opset)
                if not collect_weights(model).weights:
                    continue
                rounds = arguments.rounds if sparsity in arguments.timed else 0
                kept.add(row := measure(path.name, model, sparsity, rounds))
            print(line(row), flush=True)
    written = kept.write(told := summary(kept.rows))
    print("\n" + ", ".join(f"{key} {value}" for key, value in told.items()))
    print(f"all figures in {written}")


if __name__ == "__main__":
    main()
