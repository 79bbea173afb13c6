"""``accelerate`` and ``bench``: which products are rewritten, what the files do elsewhere, and what users are told."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import onnxprune
from onnxprune import kernels
from onnxprune.cli import app
from onnxprune.errors import DataError, KernelError, ModelError, RecipeError
from onnxprune.evaluate import run_dataset
from onnxprune.kernels import compile as compiling
from onnxprune.model_io import load_model
from onnxprune.packing import run_pass
from onnxprune.runtime import Session
from onnxprune.verify import random_samples
from passes.accelerate import AcceleratePass
from tests.onnxprune.kernels.layers import Layer, sparse, write_layer

WIDTH = 160


@pytest.fixture
def network(tmp_path: Path) -> Path:
    """Two sparse layers with bias and Relu, one of them by Gemm, a dense one, and one that is too small."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": sparse(rng, WIDTH, 4 * WIDTH),
        "b1": sparse(rng, 4 * WIDTH, density=1),
        "w2": sparse(rng, 4 * WIDTH, WIDTH),
        "b2": sparse(rng, WIDTH, density=1),
        "wd": sparse(rng, WIDTH, WIDTH, density=1) / 8,
        "w3": sparse(rng, WIDTH, WIDTH),
        "b3": sparse(rng, WIDTH, density=1),
        "w4": sparse(rng, 10, WIDTH),
    }
    make = helper.make_node
    nodes = [
        make("MatMul", ["x", "w1"], ["a"], name="up"),
        make("Add", ["b1", "a"], ["a1"]),  # either way round
        make("Relu", ["a1"], ["a2"]),
        make("MatMul", ["a2", "w2"], ["c"], name="down"),
        make("Add", ["c", "b2"], ["c1"]),
        make("MatMul", ["c1", "wd"], ["d"], name="dense"),
        make("Gemm", ["d", "w3", "b3"], ["e"], name="gemm", transB=1),
        make("Relu", ["e"], ["e1"]),
        make("Gemm", ["e1", "w4"], ["y"], name="small", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "network.onnx"
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=7), path)
    return path


def test_sparse_products_are_rewritten_with_what_follows_them(
    network: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fast.onnx"
    report = onnxprune.accelerate(network, out)
    assert report.accelerated is not None
    reasons = {product.node: product.reason for product in report.accelerated.products}
    assert [name for name, reason in reasons.items() if reason is None] == ["up", "down", "gemm"]
    assert "0% of it are zero" in str(reasons["dense"])
    assert "it has 1600 weights" in str(reasons["small"])
    made = onnx.load(out)
    onnx.checker.check_model(made)
    assert [node.op_type for node in made.graph.node] == [
        "SparseMatMulBiasRelu",
        "SparseMatMulBias",
        "MatMul",
        "SparseGemmBiasRelu",
        "Gemm",
    ]
    assert sorted(f.name for f in made.functions) == [
        "SparseGemmBiasRelu",
        "SparseMatMulBias",
        "SparseMatMulBiasRelu",
    ]
    assert made.ir_version >= 8
    before = {i.name: numpy_helper.to_array(i) for i in onnx.load(network).graph.initializer}
    after = {i.name: numpy_helper.to_array(i) for i in made.graph.initializer}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert report.verification is not None
    assert report.verification.passed
    again = onnxprune.accelerate(network, tmp_path / "again.onnx")
    assert again.succeeded
    assert (tmp_path / "again.onnx").read_bytes() == out.read_bytes()


def test_without_the_library_the_file_computes_what_it_did(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "fast.onnx"
    onnxprune.accelerate(network, out)
    x = np.random.default_rng(1).standard_normal((33, WIDTH)).astype(np.float32)
    [dense], [ours] = (
        Session(network, threads=1).run({"x": x}),
        Session(out, threads=1).run({"x": x}),
    )
    assert dense.tobytes() == ours.tobytes()


def test_a_packed_file_is_small_and_fast(library: Path, network: Path, tmp_path: Path) -> None:
    """onnxruntime folds the packed weights before it makes the kernels."""
    fast, packed, plain = tmp_path / "fast.onnx", tmp_path / "packed.onnx", tmp_path / "plain.onnx"
    onnxprune.accelerate(network, fast)
    onnxprune.pack(fast, packed)
    onnxprune.pack(network, plain)
    assert packed.stat().st_size < plain.stat().st_size + 2000
    x = np.random.default_rng(1).standard_normal((33, WIDTH)).astype(np.float32)
    [one] = Session(fast, threads=1, kernels=True).run({"x": x})
    [two] = Session(packed, threads=1, kernels=True).run({"x": x})
    [dense] = Session(packed, threads=1).run({"x": x})
    assert one.tobytes() == two.tobytes()
    assert one.tobytes() != dense.tobytes()  # sums in another order: the kernels did run
    assert np.allclose(one, dense, rtol=1e-4, atol=1e-4)
    # Unpacking takes away the functions that rebuild weights, and no others.
    again = tmp_path / "again.onnx"
    onnxprune.unpack(packed, again)
    first, back = onnx.load(fast), onnx.load(again)
    onnx.checker.check_model(back)
    assert [f.name for f in back.functions] == [f.name for f in first.functions]
    assert Session(again, threads=1).run({"x": x})[0].tobytes() == dense.tobytes()


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"alpha": 2.0}, False),
        ({"beta": 0.5}, False),
        ({"transA": 1}, False),
        ({"alpha": 1.0, "beta": 1.0, "transA": 0}, True),
    ],
)
def test_a_gemm_that_does_more_stays(
    tmp_path: Path, change: dict[str, float], *, kept: bool
) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(sparse(rng, WIDTH, WIDTH), sparse(rng, WIDTH, density=1), gemm=True)
    path = write_layer(tmp_path / "m.onnx", layer)
    proto = onnx.load(path)
    proto.graph.node[0].attribute.extend(helper.make_attribute(*pair) for pair in change.items())
    onnx.save(proto, path)
    step = AcceleratePass()
    run_pass(step, load_model(path))
    assert bool(step.decisions) == kept


def test_what_others_read_is_not_taken_away(tmp_path: Path) -> None:
    """A sum before the Relu that is an output of the model, and weights that a caller may replace."""
    rng = np.random.default_rng(0)
    layer = Layer(sparse(rng, WIDTH, WIDTH), sparse(rng, WIDTH, density=1), relu=True)
    path = write_layer(tmp_path / "m.onnx", layer)
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("y1", TensorProto.FLOAT, ["n0", WIDTH]))
    onnx.save(proto, path)
    model = load_model(path)
    run_pass(AcceleratePass(), model)
    assert [node.op_type for node in model.graph] == ["SparseMatMulBias", "Relu"]
    assert [value.name for value in model.graph.outputs] == ["y2", "y1"]
    proto.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [WIDTH, WIDTH]))
    onnx.save(proto, path)
    step = AcceleratePass()
    run_pass(step, load_model(path))
    assert not step.decisions


@pytest.mark.parametrize("inside", [True, False])
def test_a_branch_takes_its_own_matrix(library: Path, tmp_path: Path, *, inside: bool) -> None:
    """A kernel in a branch is not told of the constants outside."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(sparse(rng, WIDTH, WIDTH), "w")
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    then = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
        [weight] if inside else [],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)],
        "g",
        [
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH]),
        ],
        [out],
        [] if inside else [weight],
    )
    path, fast = tmp_path / "m.onnx", tmp_path / "fast.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    report = onnxprune.accelerate(path, fast)
    assert report.accelerated is not None
    assert len(report.accelerated.products) == int(inside)
    x = rng.standard_normal((20, WIDTH)).astype(np.float32)
    feeds = {"c": np.ones((), np.bool_), "x": x}
    [dense], [ours] = Session(path).run(feeds), Session(fast, kernels=True).run(feeds)
    assert np.allclose(dense, ours, atol=1e-4)


def test_rows_decide(layer_file: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    path = layer_file(Layer(sparse(rng, WIDTH, WIDTH, density=0.2)))
    for rows, pays in ((1, False), (8, False), (16, True), (64, True)):
        step = AcceleratePass(rows)
        run_pass(step, load_model(path))
        assert (step.decisions[0].reason == "") == pays, rows


def test_commands(library: Path, network: Path, tmp_path: Path) -> None:
    out = tmp_path / "fast.onnx"
    told = CliRunner().invoke(app, ["accelerate", str(network), "-o", str(out), "--threads", "1"])
    assert told.exit_code == 0, told.output
    assert "3 of 5 products by sparse kernels" in told.output
    told = CliRunner().invoke(
        app, ["bench", str(network), str(out), "--batch", "2", "--rounds", "3", "--json"]
    )
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert [Path(row["model"]).name for row in report["bench"]] == [
        "network.onnx",
        "fast.onnx",
        "dense int8",
    ]
    assert report["bench"][0]["speedup"] == 1
    assert all(row["latency_ms"] > 0 and row["load_ms"] > 0 for row in report["bench"])
    told = CliRunner().invoke(app, ["bench", str(network), str(out), "--no-int8", "--rounds", "2"])
    assert "speed-up" in told.output


def test_what_cannot_be_is_said(network: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.onnx"
    onnxprune.pack(network, packed)
    with pytest.raises(ModelError, match="accelerate the pruned model, then pack"):
        onnxprune.accelerate(packed, tmp_path / "o.onnx")
    fast = tmp_path / "fast.onnx"
    onnxprune.accelerate(network, fast)
    with pytest.raises(ModelError, match="has products of ours already"):
        onnxprune.accelerate(fast, tmp_path / "o.onnx")
    assert not (tmp_path / "o.onnx").exists()
    for command in (onnxprune.accelerate, onnxprune.shrink, partial(onnxprune.pack, values="int8")):
        with pytest.raises(DataError, match=r"there is no file .*none\.npz"):
            command(network, tmp_path / "o.onnx", data=tmp_path / "none.npz")
        assert not (tmp_path / "o.onnx").exists()
    with pytest.raises(ModelError, match=r"there is no file .*none\.onnx"):
        onnxprune.bench(network, [tmp_path / "none.onnx"])
    with pytest.raises(RecipeError, match="batch must be at least 1, found 0"):
        onnxprune.bench(network, [fast], batch=0)
    with pytest.raises(RecipeError, match="rows of activations must be at least 1"):
        onnxprune.accelerate(network, tmp_path / "o.onnx", rows=0)


def test_without_a_library_everything_goes_on(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "library_path", lambda: tmp_path / "none.so")
    report = onnxprune.accelerate(network, tmp_path / "fast.onnx")
    assert report.succeeded
    assert any("no kernel library" in warning for warning in report.warnings)
    with pytest.raises(KernelError, match=r"onnxprune\.kernels\.compile"):
        Session(tmp_path / "fast.onnx", kernels=True)
    monkeypatch.setenv("CC", str(tmp_path / "no-compiler"))
    with pytest.raises(compiling.CompileError, match="there is no C compiler"):
        compiling.compile_library(tmp_path / "made.so")
    assert not (tmp_path / "made.so").exists()


@pytest.mark.parametrize(
    ("name", "products"),
    [
        ("cms_particletransformer_AK4.onnx", 15),
        ("nn4sys_mscn_128d_dual.onnx", 8),
        ("ml4acopf_118.onnx", 3),
        ("dtln_1_lstm.onnx", 1),
        ("mnist_fc_256x2.onnx", 2),
    ],
)
def test_real_models_compute_the_same(
    library: Path, shared_models: Path, tmp_path: Path, name: str, products: int
) -> None:
    pruned, fast = tmp_path / "pruned.onnx", tmp_path / "fast.onnx"
    onnxprune.prune(shared_models / name, pruned, sparsity=0.9)
    report = onnxprune.accelerate(pruned, fast, samples=4)
    assert report.accelerated is not None
    assert sum(one.reason is None for one in report.accelerated.products) == products
    assert report.verification is not None
    assert report.verification.passed
    data = random_samples(Session(pruned), 2, seed=0)
    dense, ours = (run_dataset(Session(path, threads=1), data) for path in (pruned, fast))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(dense, ours, strict=True))
