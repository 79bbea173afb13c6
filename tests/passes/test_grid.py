"""Weights on the grid of a quantised tensor, against brute force and nearest rounding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from onnxprune.runtime import Session
from passes.grid import Grid, on_grid
from passes.methods import Pruner
from passes.moments import moments
from passes.patterns import NM, Unstructured
from passes.reconstruction import Quadratic, least_squares, quadratic
from passes.weights import collect_weights

STEP = 0.25


def problem_of(seed: int, rows: int = 3, columns: int = 4) -> tuple[np.ndarray, Quadratic, Any]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 60, columns)) @ rng.standard_normal((columns, columns))
    x = x.astype(np.float32)
    dense = np.clip(np.rint(rng.standard_normal((1, rows, columns)) / STEP), -3, 3) * STEP
    sums = moments(x, (x @ dense.transpose(0, 2, 1)).astype(np.float32))
    return dense, quadratic(sums, dense), sums


def grid(low: int = -3, high: int = 3) -> Grid:
    return Grid(np.array(STEP), np.array(low), np.array(high))


@pytest.mark.parametrize("seed", range(8))
def test_near_the_best_of_all_grid_points(seed: int) -> None:
    """All 7^3 values of a row of three kept weights."""
    _, problem, _ = problem_of(seed)
    mask = np.ones((1, 3, 4), np.bool_)
    mask[0, np.arange(3), [1, 3, 0]] = False
    got = on_grid(problem, least_squares(problem, mask), mask, grid())
    np.testing.assert_array_equal(got, grid().nearest(got))
    assert not got[~mask].any()
    nearest = grid().nearest(least_squares(problem, mask))
    best = 0.0
    for row in range(3):
        candidates = np.zeros((7**3, 4))
        candidates[:, mask[0, row]] = list(itertools.product(np.arange(-3, 4) * STEP, repeat=3))
        apart = candidates - problem.optimum[0, row]
        best += float(((apart @ problem.hessian[0]) * apart).sum(axis=1).min())
    assert best * (1 - 1e-9) <= problem.error(got) <= problem.error(nearest) * (1 + 1e-9)
    assert problem.error(got) <= 2 * best


def test_it_never_grows_from_a_point_of_the_grid() -> None:
    for seed in range(20):
        dense, problem, _ = problem_of(seed, rows=5, columns=12)
        mask = Unstructured().mask(np.abs(dense), 30)
        start = np.where(mask, dense, 0.0)
        assert problem.error(on_grid(problem, start, mask, grid())) <= problem.error(start)


@pytest.mark.parametrize("pattern", [Unstructured(), NM(n=2, m=4)], ids=lambda p: p.name)
@pytest.mark.parametrize("method", ["obs", "exact", "sparsegpt", "admm"])
def test_pruned_on_the_grid_and_never_worse_than_magnitude(method: Any, pattern: Any) -> None:
    for seed in range(10):
        dense, problem, sums = problem_of(seed, rows=6, columns=8)
        pruner = Pruner(method, dense, problem, sums.gram, pattern, grid=grid())
        weights, mask, words = pruner.at(24)
        assert words.endswith("on its grid")
        assert pattern.obeys(weights != 0)
        np.testing.assert_array_equal(weights, grid().nearest(weights))
        plain = np.where(pattern.mask(np.abs(dense), int(mask.sum())), dense, 0.0)
        assert problem.error(weights) <= problem.error(plain) * (1 + 1e-9)


def quantized_net(path: Path, form: str) -> Path:
    """Two layers with int8 (by channel) or uint8 weights, behind DequantizeLinear or in the operator."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    nodes = []

    def constant(name: str, array: np.ndarray) -> str:
        arrays[name] = array
        return name

    def scales(name: str, kind: str, rows: int) -> list[str]:
        if kind == "int8":
            parts = rng.uniform(0.01, 0.02, rows).astype(np.float32), np.zeros(rows, np.int8)
        else:
            parts = np.float32(0.015), np.uint8(117)
        return [constant(f"{name}.scale", parts[0]), constant(f"{name}.zero", np.array(parts[1]))]

    kind = "uint8" if form.endswith("uint8") else "int8"
    zero = 117 if kind == "uint8" else 0
    conv = np.clip(rng.normal(zero, 40, (8, 4, 3, 3)).round(), zero - 100, zero + 100).astype(kind)
    dense = np.clip(rng.normal(zero, 40, (8, 5)).round(), zero - 100, zero + 100).astype(kind)
    constant("w", conv)
    constant("v", dense)
    if form.startswith("dequantised"):
        nodes += [
            helper.make_node("DequantizeLinear", ["w", *scales("w", kind, 8)], ["wf"], axis=0),
            helper.make_node("DequantizeLinear", ["v", *scales("v", kind, 5)], ["vf"], axis=1),
            helper.make_node("Conv", ["x", "wf"], ["c"], pads=[1] * 4),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("GlobalAveragePool", ["r"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "vf"], ["y"]),
        ]
    elif form.startswith("linear"):
        for name, scale in (("sx", 0.03), ("sc", 0.1), ("sy", 0.2)):
            constant(name, np.float32(scale))
        constant("z", np.uint8(128))
        constant("b", rng.integers(-500, 500, 8).astype(np.int32))
        ws, vs = scales("w", kind, 8), scales("v", "uint8", 5)
        if kind == "int8":
            arrays["v.zero"], arrays["v"] = np.array(np.int8(0)), dense
        nodes += [
            helper.make_node("QuantizeLinear", ["x", "sx", "z"], ["q"]),
            helper.make_node(
                "QLinearConv", ["q", "sx", "z", "w", *ws, "sc", "z", "b"], ["c"], pads=[1] * 4
            ),
            helper.make_node("DequantizeLinear", ["c", "sc", "z"], ["d"]),
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("QuantizeLinear", ["f", "sx", "z"], ["g"]),
            helper.make_node("QLinearMatMul", ["g", "sx", "z", "v", *vs, "sy", "z"], ["h"]),
            helper.make_node("DequantizeLinear", ["h", "sy", "z"], ["y"]),
        ]
    else:
        zeros = {
            "w": constant("wz", np.array(zero, kind)),
            "v": constant("vz", np.array(zero, kind)),
        }
        nodes += [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "qs", "qz"]),
            helper.make_node("ConvInteger", ["q", "w", "qz", zeros["w"]], ["c"], pads=[1] * 4),
            helper.make_node("Cast", ["c"], ["d"], to=TensorProto.FLOAT),
            helper.make_node("GlobalAveragePool", ["d"], ["p"]),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("DynamicQuantizeLinear", ["f"], ["g", "gs", "gz"]),
            helper.make_node("MatMulInteger", ["g", "v", "gz", zeros["v"]], ["h"]),
            helper.make_node("Cast", ["h"], ["y"], to=TensorProto.FLOAT),
        ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("allocation", [None, "uniform"])
@pytest.mark.parametrize(
    "form",
    [
        "dequantised int8",
        "dequantised uint8",
        "linear int8",
        "linear uint8",
        "integer int8",
        "integer uint8",
    ],
)
def test_quantised_models_keep_their_grid_and_lose_less(
    tmp_path: Path, form: str, allocation: Any
) -> None:
    net, out = quantized_net(tmp_path / "net.onnx", form), tmp_path / "out.onnx"
    rng = np.random.default_rng(1)
    mixing = rng.standard_normal((4, 4))
    x = np.einsum("nchw,cd->ndhw", rng.standard_normal((64, 4, 8, 8)), mixing).astype(np.float32)
    errors = {}
    for method in ("obs", "magnitude"):
        options = OneShot(method=method, allocation=allocation)
        report = api.prune(net, out, sparsity=0.6, data={"x": x}, options=options, threads=1)
        assert report.totals is not None
        assert report.totals.sparsity >= 0.6 - 1e-2
        want, got = (Session(path, threads=1).run({"x": x})[0] for path in (net, out))
        errors[method] = float(((got - want) ** 2).mean())
        before, after = (collect_weights(load_model(path)).weights for path in (net, out))
        for old, new in zip(before, after, strict=True):
            assert new.dtype == old.dtype
            assert np.array_equal(new.zero_point, old.zero_point)
            if method == "obs":
                assert report.methods is not None
                assert report.methods[new.name].startswith("admm")
                assert "on its grid" in report.methods[new.name]
                kept = new.array() != new.zero_point
                assert np.any(new.array()[kept] != old.array()[kept]), "survivors are updated"
    assert errors["obs"] < errors["magnitude"]
