from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.errors import RecipeError
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from passes.blocks import find_blocks
from passes.layers import find_layers
from passes.patterns import parse_pattern
from passes.weights import collect_weights
from tests.onnxprune.test_one_shot import error_of, make_net


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return make_net(tmp_path / "net.onnx")


@pytest.fixture
def data() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((96, 3, 8, 8)).astype(np.float32)}


def chain(*nodes: tuple[str, list[str], str]) -> ir.Model:
    """A graph of 4-channel layers ``MatMul(x, w)`` and plain nodes, by operator, inputs and output."""
    rng = np.random.default_rng(0)
    names = {name for _, inputs, _ in nodes for name in inputs if name.startswith("w")}
    graph = helper.make_graph(
        [helper.make_node(op, inputs, [output]) for op, inputs, output in nodes],
        "chain",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 4]) for n in ("x", "mask")],
        [helper.make_tensor_value_info(nodes[-1][2], TensorProto.FLOAT, ["N", 4])],
        [
            numpy_helper.from_array(rng.standard_normal((4, 4)).astype(np.float32), name)
            for name in sorted(names)
        ],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    )


def blocks_of(model: ir.Model, least: int) -> list[tuple[list[str], tuple[str, ...]]]:
    layers = find_layers(model.graph, collect_weights(model).weights)
    nodes, blocks = find_blocks(model.graph, layers, least)
    assert [block.start for block in blocks] == [0, *(block.stop for block in blocks[:-1])]
    assert blocks[-1].stop == len(nodes)
    return [([layer.name for layer in block.layers], block.outputs) for block in blocks]


RESIDUAL = (
    ("MatMul", ["x", "w0"], "a"),
    ("MatMul", ["a", "w1"], "b"),
    ("MatMul", ["b", "w2"], "c"),
    ("Add", ["c", "a"], "d"),  # no cut while a is still to be read
    ("Mul", ["d", "mask"], "e"),  # an input that pruning does not change is no second path
    ("MatMul", ["e", "w3"], "f"),
    ("Softmax", ["f"], "g"),
)


def test_blocks_are_cut_where_all_paths_meet() -> None:
    assert blocks_of(chain(*RESIDUAL), 1) == [
        (["w0"], ("a",)),
        (["w1", "w2"], ("d",)),
        (["w3"], ("f",)),
    ]


def test_blocks_hold_enough_layers_and_aim_at_every_cut() -> None:
    assert blocks_of(chain(*RESIDUAL), 2) == [(["w0", "w1", "w2", "w3"], ("a", "d", "f"))]
    straight = chain(*(("MatMul", [f"v{n}" if n else "x", f"w{n}"], f"v{n + 1}") for n in range(5)))
    assert blocks_of(straight, 2) == [
        (["w0", "w1"], ("v1", "v2")),
        (["w2", "w3", "w4"], ("v3", "v4", "v5")),
    ]


def test_a_skip_across_the_model_leaves_one_block() -> None:
    unet = chain(
        ("MatMul", ["x", "w0"], "a"),
        ("MatMul", ["a", "w1"], "b"),
        ("MatMul", ["b", "w2"], "c"),
        ("MatMul", ["c", "w3"], "d"),
        ("Add", ["d", "a"], "e"),
    )
    (block,) = blocks_of(unet, 1)[1:]
    assert block == (["w1", "w2", "w3"], ("e",))


def test_blocks_bring_outputs_nearer_to_the_dense_model(
    net: Path, tmp_path: Path, data: dict[str, np.ndarray]
) -> None:
    out = tmp_path / "o.onnx"
    errors = {}
    for reconstruct in ("layers", "blocks"):
        options = OneShot(method="wanda", reconstruct=reconstruct)
        report = api.prune(net, out, sparsity=0.7, data=data, options=options, threads=1)
        errors[reconstruct] = error_of(net, out)
        assert report.totals is not None
        assert report.totals.sparsity == pytest.approx(0.7, abs=1e-3)
    assert errors["blocks"] < 0.95 * errors["layers"]
    assert report.methods is not None
    assert report.methods["block 1"].startswith("w0, w1, w2, w3: error ")
    first = out.read_bytes()
    api.prune(net, out, sparsity=0.7, data=data, options=options, threads=1)
    assert out.read_bytes() == first, "equal input and seed, equal bytes"


@pytest.mark.parametrize("method", ["magnitude", "wanda", "admm", "exact", "sparsegpt"])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x1", "channel"])
def test_masks_and_patterns_hold_after_blocks(
    net: Path, tmp_path: Path, data: dict[str, np.ndarray], method: str, pattern: str
) -> None:
    zeros = {}
    for reconstruct in ("layers", "blocks"):
        out = tmp_path / f"{reconstruct}.onnx"
        options = OneShot(method=method, pattern=pattern, reconstruct=reconstruct)
        share = None if pattern == "2:4" else 0.5
        api.prune(net, out, sparsity=share, data=data, options=options, threads=1)
        model = load_model(out)
        layers = find_layers(model.graph, collect_weights(model).weights)
        zeros[reconstruct] = {la.name: la.weight.matrices() == 0 for la in layers}
        for layer in layers:
            kept = ~zeros[reconstruct][layer.name]
            assert parse_pattern(pattern).fitted(layer.taps).obeys(kept), layer.name
    for name, before in zeros["layers"].items():
        assert zeros["blocks"][name][before].all(), "what was pruned stays pruned"


def test_what_does_not_help_is_left_as_it_was(
    net: Path, tmp_path: Path, data: dict[str, np.ndarray]
) -> None:
    """Nothing is pruned: the dense model cannot be bettered."""
    out = tmp_path / "o.onnx"
    options = OneShot(
        method="magnitude", allocation="erk", reconstruct="blocks", bias_correction=False
    )
    report = api.prune(net, out, sparsity=0.0, data=data, options=options, threads=1)
    assert report.methods is not None
    assert "training did not help" in report.methods["block 1"]
    assert out.read_bytes() == net.read_bytes()


def test_blocks_need_torch_and_data(
    net: Path, tmp_path: Path, data: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.onnx"
    options = OneShot(reconstruct="blocks")
    with pytest.raises(RecipeError, match="reconstruction by blocks needs calibration data"):
        api.prune(net, out, sparsity=0.5, options=options)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "torch" else found(name)
    )
    with pytest.raises(RecipeError, match="needs torch; install it"):
        api.prune(net, out, sparsity=0.5, data=data, options=options)
    assert not out.exists()
