"""Packed ONNX: bytes, load time, peak memory and latency beside the dense file, in one run.

    python benchmarks/packed.py --models ../shared/models models [--sparsity 0.5 0.9] [--large]

Every model is pruned by magnitude, uniformly; then each row compares the pruned dense file, the same
gzipped, as ``sparse_initializer`` (12 bytes a nonzero), and packed with each form of values, with the
entropy bound of its weights. ``within`` says whether positions, values and all overhead of ``keep``
stay within 5 % of the bound, plus 150 bytes a weight and 4 KB a model. Loading happens in a fresh
process for each file, dense and packed in turn; times are CPU seconds of that process, so that
neighbours on the machine disturb less, and ratios are taken within one run. ``--large`` adds made
up matrices of 64 MB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import record
from onnx import TensorProto, helper, numpy_helper

from hwmodel.entropy import entropy_bound_bits
from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.packing import convert_opset
from onnxprune.verify import folds_wholly
from passes.apply import ApplyMasksPass
from passes.masks import keep_count, keep_largest
from passes.pack import PackWeightsPass
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights, count_nonzeros

FORMS = ("keep", "float16", "int8", "codebook16")

CHILD = """
import json, resource, sys, time
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
def peak():  # of this process alone: ru_maxrss begins with the parent's
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1024
base = peak()
start = time.process_time()
ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
print(json.dumps([time.process_time() - start, peak() - base]))
"""


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


def constants(model: ir.Model) -> list[tuple[str, bytes]]:
    """All initializers in order, bit for bit."""
    return [
        (f"{number} {name}", value.const_value.tobytes())
        for number, graph in enumerate(model.graphs())
        for name, value in graph.initializers.items()
        if value.const_value is not None
    ]


def load_cost(paths: list[Path], rounds: int) -> list[tuple[float, float]]:
    """Least CPU milliseconds and least peak megabytes of loading each file, the files in turn."""
    found: list[list[tuple[float, float]]] = [[] for _ in paths]
    for _ in range(rounds):
        for path, results in zip(paths, found, strict=True):
            done = subprocess.run(
                [sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True
            )
            seconds, megabytes = json.loads(done.stdout)
            results.append((seconds * 1e3, megabytes))
    return [(min(r[0] for r in results), min(r[1] for r in results)) for results in found]


def session(path: Path) -> ort.InferenceSession:
    """One thread, silent."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


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


def compare(dense: Path, packed: Path, rounds: int) -> dict[str, object]:
    """Latency in turn, and whether the outputs are equal bit for bit."""
    pair = [session(dense), session(packed)]
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
    equal = all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(*outputs, strict=True)
    )
    medians = [statistics.median(found) * 1e3 for found in times]
    return {
        "equal": equal,
        "dense_latency_ms": medians[0],
        "packed_latency_ms": medians[1],
        "latency_ratio": medians[1] / medians[0],
    }


def measure(name: str, model: ir.Model, sparsity: float, rounds: int) -> dict[str, object]:
    """One row of the table."""
    weights = collect_weights(model).weights
    held = sum(weight.array().nbytes for weight in weights)
    nonzeros = sum(count_nonzeros(weight.array()) for weight in weights)
    bound = (
        sum(
            entropy_bound_bits(
                weight.elements, count_nonzeros(weight.array()), weight.array().itemsize * 8
            )
            for weight in weights
        )
        / 8
    )
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
            "dense_bytes": size,
            "gzip_bytes": len(gzip.compress(dense.read_bytes(), 6)),
            "sparse_initializer_bytes": rest
            + sum(count_nonzeros(w.array()) * (w.array().itemsize + 8) for w in weights),
            "nonzeros": nonzeros,
            "bound_bytes": round(bound),
        }
        for form in FORMS:
            again = load_model(dense)
            PackWeightsPass(values=form)(again)
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
        costs = load_cost([dense, packed], rounds)
        row["dense_load_ms"], row["dense_peak_mb"] = costs[0]
        row["packed_load_ms"], row["packed_peak_mb"] = costs[1]
        row["largest_mb"] = max((w.array().nbytes for w in weights), default=0) / 1e6
        row |= compare(dense, packed, 20)
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
    f"{'f16':>9} {'int8':>9} {'cb16':>9} {'/bound':>6} {'5%':>3} {'3%':>3} {'folds':>5} {'load ms':>15} "
    f"{'peak MB':>13} {'latency':>7} {'equal':>5}"
)


def line(row: dict[str, object]) -> str:
    """A row as text."""
    sizes = ("dense", "gzip", "sparse_initializer", "bound", *FORMS)
    shown = " ".join(f"{int(str(row[f'{name}_bytes'])):>9}" for name in sizes)
    ratio = row.get("latency_ratio")
    return (
        f"{str(row['model'])[:30]:30} {row['sparsity']:>6} {shown} {row['over_bound']:>6.3f} "
        f"{'yes' if row['within'] else 'NO':>3} {'yes' if row['aim'] else '-':>3} "
        f"{'yes' if row['folds'] and row['unpacks'] else 'NO':>5} "
        f"{row['dense_load_ms']:>6.1f} ->{row['packed_load_ms']:>6.1f} "
        f"{row['dense_peak_mb']:>5.1f} ->{row['packed_peak_mb']:>5.1f} "
        f"{f'{ratio:.2f} x' if ratio else '-':>7} {row.get('equal', '-')!s:>5}"
    )


def tables(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The figures as they are shown."""
    forms = {"model": "{}", "sparsity": "{:.0%}", "dense_bytes": "dense|{:,}"}
    forms |= {"gzip_bytes": "gzip|{:,}", "sparse_initializer_bytes": "sparse_initializer|{:,}"}
    forms |= {"bound_bytes": "bound|{:,}"} | {f"{form}_bytes": f"{form}|{{:,}}" for form in FORMS}
    forms |= {"over_bound": "keep / bound|{:.3f}", "folds": "{}", "equal": "{}"}
    forms |= {"dense_load_ms": "load, dense ms|{:.1f}", "packed_load_ms": "packed ms|{:.1f}"}
    forms |= {"latency_ratio": "latency / dense|{:.2f}"}
    return [record.table("Bytes, loading and latency", rows, forms)]


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", type=Path, default=[Path("../shared/models")])
    parser.add_argument("--sparsity", nargs="*", type=float, default=[0.5, 0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--min-bytes", type=int, default=0, help="leave smaller files out")
    parser.add_argument("--opset", type=int, default=11, help="what opset 7 and 8 are converted to")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = [path for folder in arguments.models for path in _files(folder)]
    rows = []
    print(HEAD)
    for path in found:
        if path.stat().st_size < arguments.min_bytes:
            continue
        for sparsity in arguments.sparsity:
            model = pruned(path, sparsity)
            if not collect_weights(model).weights:
                continue
            if model.opset_imports.get("", 0) < 9:
                try:
                    model = convert_opset(model, arguments.opset, path)
                except ModelError as error:
                    print(f"  {error}")
            rows.append(measure(path.name, model, sparsity, arguments.rounds))
            print(line(rows[-1]), flush=True)
    for count, size in [(4, 2048), (1, 4096)] if arguments.large else []:
        for sparsity in (*arguments.sparsity, 0.98):
            model = matrices(count, size, sparsity)
            rows.append(measure(f"{count} x {size}^2", model, sparsity, arguments.rounds))
            print(line(rows[-1]), flush=True)
    written = record.write(__file__, tables(rows), rows, arguments.json)
    good = [row for row in rows if row["within"]]
    slower = [float(str(row["latency_ratio"])) for row in rows if "latency_ratio" in row]
    print(f"\n{len(good)} of {len(rows)} within the limit on bytes", end="")
    if slower:
        print(f"; latency, packed / dense: median {statistics.median(slower):.3f}", end="")
    print(f"; all figures in {written}")


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.glob("*.onnx"))


if __name__ == "__main__":
    main()
