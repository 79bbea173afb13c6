"""Sparse kernels in stock onnxruntime, beside its own dense products in the same run.

    python benchmarks/kernels.py [--rounds 15] [--sizes 768x768 ...]

One thread. ``products``: single MatMuls with random weights, by size, sparsity and rows of activations (batch times
sequence); every ratio is onnxruntime's dense float32 time over that with the kernels, both in turn. Where ``accelerate``
keeps the dense product (its cost model says from which sparsity on it pays), the ratio is in brackets: nobody would
get it. ``models``: an encoder as large as BERT's (4 layers, hidden 768, 12 heads, feed-forward 3072, sequence 128) with
random weights, and the shipped LeNet-300-100 that L½ made sparse, each as ``onnxprune bench`` measures it, beside the
dense model quantized dynamically to int8, which needs no pruning.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import record
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import kernels
from onnxprune.latency import latencies
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import run_pass
from onnxprune.runtime import Session
from passes.accelerate import AcceleratePass, CostModel

ROOT = Path(__file__).parents[1]
SIZES = ("768x768", "768x3072", "4096x4096")
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
ROWS = (1, 4, 16, 64, 256, 1024)
ALWAYS = CostModel(many=0, few=0, few_in_cache=0)
LEAST_S = 0.004
SEQUENCE = 128
NOTE = (
    "Time of onnxruntime's dense float32 MatMul over that of the sparse kernel, one thread, in turn, medians. In "
    "brackets: `onnxprune accelerate` keeps the dense product there."
)
MODELS_NOTE = (
    "As `onnxprune bench` measures them, one thread. Random weights (encoder), pruned at random; LeNet-300-100 as "
    "L½ left it. Dense int8 is onnxruntime's dynamic quantization of the dense model."
)


def sparse(rng: np.random.Generator, rows: int, columns: int, sparsity: float) -> np.ndarray:
    """A float32 matrix with so many zeros."""
    values = rng.standard_normal((rows, columns)).astype(np.float32) / np.float32(np.sqrt(rows))
    return np.where(rng.random((rows, columns)) < sparsity, np.float32(0), values)


def save(
    nodes: list[Any], arrays: dict[str, np.ndarray], shape: list[Any], out: list[Any], path: Path
) -> None:
    """Write a model of one input and output."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def product(
    columns: int, outputs: int, sparsity: float, rounds: int, folder: Path
) -> list[dict[str, Any]]:
    """One matrix at all numbers of rows."""
    rng = np.random.default_rng(0)
    dense, fast = folder / "dense.onnx", folder / "fast.onnx"
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    arrays = {"w": sparse(rng, columns, outputs, sparsity)}
    save(nodes, arrays, ["n", columns], ["n", outputs], dense)
    model = load_model(dense)
    run_pass(AcceleratePass(cost=ALWAYS), model)
    save_model(model, fast)
    sessions = Session(dense, threads=1), Session(fast, threads=1, kernels=True)
    rows = []
    for count in ROWS:
        feeds = {"x": rng.standard_normal((count, columns)).astype(np.float32)}
        runs = [lambda s=session, f=feeds: s.run(f) for session in sessions]
        once = latencies(runs, rounds=2)
        repeat = max(1, round(1e3 * LEAST_S / max(1e-3, once[1].median_ms)))
        taken = latencies(runs, rounds=rounds, repeat=repeat)
        rows.append(
            {
                "size": f"{columns}x{outputs}",
                "sparsity": sparsity,
                "rows": count,
                "ratio": taken[0].median_ms / taken[1].median_ms,
                "kept": sparsity < CostModel().least_sparsity(count, columns * outputs),
            }
        )
    print(
        "  ".join(f"{r['size']} {r['sparsity']:.0%} {r['rows']}: {r['ratio']:.2f}" for r in rows),
        flush=True,
    )
    return rows


def encoder(
    sparsity: float, path: Path, layers: int = 4, hidden: int = 768, heads: int = 12
) -> None:
    """A transformer's encoder with random weights."""
    rng, make = np.random.default_rng(0), helper.make_node
    nodes: list[Any] = []
    arrays: dict[str, np.ndarray] = {
        "split": np.array([0, 0, heads, hidden // heads]),
        "merge": np.array([0, 0, hidden]),
        "scale": np.array(1 / np.sqrt(hidden / heads), np.float32),
    }

    def linear(x: str, name: str, inputs: int, outputs: int) -> str:
        arrays[f"{name}.w"] = sparse(rng, inputs, outputs, sparsity)
        arrays[f"{name}.b"] = rng.standard_normal(outputs).astype(np.float32) / 10
        nodes.append(make("MatMul", [x, f"{name}.w"], [f"{name}.m"]))
        nodes.append(make("Add", [f"{name}.m", f"{name}.b"], [name]))
        return name

    def norm(x: str, y: str, name: str) -> str:
        nodes.append(make("Add", [x, y], [f"{name}.s"]))
        for part, value in (("g", 1.0), ("z", 0.0)):
            arrays[f"{name}.{part}"] = np.full(hidden, value, np.float32)
        nodes.append(
            make("LayerNormalization", [f"{name}.s", f"{name}.g", f"{name}.z"], [name], axis=-1)
        )
        return name

    x = "x"
    for number in range(layers):
        at = f"l{number}"
        for part, order in (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3))):
            linear(x, f"{at}.{part}", hidden, hidden)
            nodes.append(make("Reshape", [f"{at}.{part}", "split"], [f"{at}.{part}r"]))
            nodes.append(make("Transpose", [f"{at}.{part}r"], [f"{at}.{part}t"], perm=order))
        nodes.append(make("MatMul", [f"{at}.qt", f"{at}.kt"], [f"{at}.a"]))
        nodes.append(make("Mul", [f"{at}.a", "scale"], [f"{at}.as"]))
        nodes.append(make("Softmax", [f"{at}.as"], [f"{at}.p"], axis=-1))
        nodes.append(make("MatMul", [f"{at}.p", f"{at}.vt"], [f"{at}.c"]))
        nodes.append(make("Transpose", [f"{at}.c"], [f"{at}.ct"], perm=(0, 2, 1, 3)))
        nodes.append(make("Reshape", [f"{at}.ct", "merge"], [f"{at}.cm"]))
        x = norm(linear(f"{at}.cm", f"{at}.o", hidden, hidden), x, f"{at}.n1")
        linear(x, f"{at}.up", hidden, 4 * hidden)
        nodes.append(make("Relu", [f"{at}.up"], [f"{at}.act"]))
        last = number == layers - 1
        x = norm(
            linear(f"{at}.act", f"{at}.down", 4 * hidden, hidden), x, "y" if last else f"{at}.n2"
        )
    save(nodes, arrays, ["n", SEQUENCE, hidden], ["n", SEQUENCE, hidden], path)


def measured(
    name: str, source: Path, batch: int, rows_open: int, rounds: int, folder: Path
) -> dict[str, Any]:
    """A whole model, its accelerated form and dense int8; products see at least so many rows where shapes are open."""
    fast = folder / "fast.onnx"
    made = onnxprune.accelerate(source, fast, threads=1, rows=rows_open)
    report = onnxprune.bench(source, [fast], batch=batch, threads=1, rounds=rounds)
    assert report.bench is not None
    assert made.accelerated is not None
    rows = {Path(row.model).name: row for row in report.bench}
    row = {
        "model": name,
        "batch": batch,
        "products": f"{sum(p.reason is None for p in made.accelerated.products)} of {len(made.accelerated.products)}",
        "dense": report.bench[0].latency_ms,
        "fast": rows["fast.onnx"].latency_ms,
        "speedup": rows["fast.onnx"].speedup,
        "int8": rows["dense int8"].speedup if "dense int8" in rows else None,
        "load": report.bench[0].load_ms,
        "fast_load": rows["fast.onnx"].load_ms,
    }
    print(row, flush=True)
    return row


def grid(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table of products."""
    lines = []
    for size, sparsity in dict.fromkeys((r["size"], r["sparsity"]) for r in rows):
        line: dict[str, Any] = {"size": size, "sparsity": sparsity}
        for row in rows:
            if (row["size"], row["sparsity"]) == (size, sparsity):
                text = f"{row['ratio']:.2f}"
                line[str(row["rows"])] = f"({text})" if row["kept"] else text
        lines.append(line)
    forms = {"size": "{}", "sparsity": "{:.0%}"} | {str(n): f"{n} rows|{{}}" for n in ROWS}
    return record.table("Sparse products against dense ones", lines, forms, NOTE)


def models_table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table of whole models."""
    forms = {
        "model": "{}",
        "batch": "{}",
        "products": "sparse products|{}",
        "dense": "dense, ms|{:.3g}",
    }
    forms |= {
        "fast": "sparse, ms|{:.3g}",
        "speedup": "speed-up|{:.2f} x",
        "int8": "dense int8|{:.2f} x",
    }
    forms |= {"load": "load dense, ms|{:.0f}", "fast_load": "load sparse, ms|{:.0f}"}
    return record.table("Whole models with sparse products", rows, forms, MODELS_NOTE)


def main() -> None:
    """Measure, print, write JSON and the page's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    parser.add_argument(
        "--parts", nargs="+", choices=("products", "models"), default=["products", "models"]
    )
    options = parser.parse_args()
    kernels.library()
    figures = record.read(__file__) or {"products": [], "models": []}
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as temporary:
        folder = Path(temporary)
        if "products" in options.parts:
            figures["products"] = [
                row
                for size in options.sizes
                for sparsity in SPARSITIES
                for row in product(*map(int, size.split("x")), sparsity, options.rounds, folder)
            ]
        if "models" in options.parts:
            figures["models"] = whole_models(options.rounds, folder)
    tables = [grid(figures["products"]), models_table(figures["models"])]
    record.write(__file__, tables, figures)
    for one in tables:
        for line in one["rows"]:
            print("  ".join(line))


def whole_models(rounds: int, folder: Path) -> list[dict[str, Any]]:
    """Encoders of several sparsities, and a real model at two batches."""
    rows = []
    for sparsity in (0.8, 0.9, 0.95):
        encoder(sparsity, folder / "encoder.onnx")
        name = f"encoder, {sparsity:.0%}"
        rows.append(measured(name, folder / "encoder.onnx", 1, SEQUENCE, rounds, folder))
    source = ROOT / "models" / "lenet300.l_half.onnx"
    return rows + [
        measured("LeNet-300-100, L½", source, batch, batch, rounds, folder) for batch in (1, 64)
    ]


if __name__ == "__main__":
    main()
