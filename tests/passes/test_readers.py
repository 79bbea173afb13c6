"""What weights are multiplied with, against what onnxruntime computes and against plain loops."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.runtime import Session
from passes.calibration import calibrate
from passes.layers import Layer, watch
from passes.moments import Moments
from passes.samples import given_by_partner
from passes.sequential import Options, prune_sequentially
from passes.values import Values
from passes.weights import collect_weights
from tests.passes.graphs import FAMILIES, MS

LINEAR = sorted(
    name for name in FAMILIES if name.split()[0] not in {"LSTM", "GRU", "RNN", "Attention"}
)
ALL = 10**9
"""Positions: more than there are, so that all are taken."""


def runner(model: bytes, feeds: Any) -> Any:
    session = Session(model, threads=1)
    for feed in feeds:
        yield dict(zip(session.outputs, session.run(feed), strict=True))


def model_of(
    nodes: list[Any],
    arrays: dict[str, np.ndarray],
    feeds: dict[str, np.ndarray],
    outputs: list[str],
) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim
            )
            for n, a in feeds.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def watched(proto: Any, feeds: dict[str, np.ndarray]) -> dict[str, tuple[Layer, Moments]]:
    """Layers and their moments over all positions of one feed."""
    model = ir.from_proto(proto)
    layers, reasons = watch(model.graph, collect_weights(model).weights)
    assert not reasons
    known = calibrate(model, layers, [feeds], runner, positions=ALL)
    return {layer.name: (layer, known[layer.name]) for layer in layers}


def check_by_change(proto: Any, feeds: dict[str, np.ndarray], *, scale: float = 1.0) -> None:
    """Outputs move by the square root of E gram E^T when weights move by E, whatever the operator."""
    rng = np.random.default_rng(7)
    before = Session(proto.SerializeToString()).run(feeds)[0].astype(np.float64)
    for name, (layer, sums) in watched(proto, feeds).items():
        moved = type(proto)()
        moved.CopyFrom(proto)
        (tensor,) = (t for t in moved.graph.initializer if t.name == name)
        old = numpy_helper.to_array(tensor)
        change = rng.standard_normal(layer.shape)
        array = layer.stored(layer.matrices() + change)
        change = layer.weight.layout.matrices(array.astype(np.float64) - old).reshape(layer.shape)
        tensor.CopyFrom(numpy_helper.from_array(array, name))
        after = Session(moved.SerializeToString()).run(feeds)[0].astype(np.float64)
        want = ((after - before) ** 2).sum()
        got = scale**2 * ((change @ sums.gram) * change).sum()
        assert got == pytest.approx(want, rel=2e-3), name


@pytest.mark.parametrize("family", LINEAR)
def test_gram_is_that_of_the_outputs(family: str) -> None:
    for seed in range(12):
        draw = random.Random(seed).randint
        case = FAMILIES[family](draw)
        rng = np.random.default_rng(seed)
        arrays = {"W": rng.standard_normal(case.shape).astype(np.float32)} | case.extra
        feeds = {"x": rng.standard_normal(case.data).astype(np.float32)}
        scale = 0.5 if family.startswith("Gemm") else 1.0
        check_by_change(model_of([case.node], arrays, feeds, ["y"]), feeds, scale=scale)


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [
        ("Conv", {}),
        ("Conv", {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ("Conv", {"dilations": [2, 1], "group": 2}),
        ("Conv", {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
        ("Conv", {"auto_pad": "SAME_UPPER", "group": 4}),
        ("Conv", {"auto_pad": "VALID", "strides": [2, 2]}),
        ("ConvTranspose", {}),
        ("ConvTranspose", {"strides": [2, 3], "pads": [1, 0, 2, 1]}),
        ("ConvTranspose", {"strides": [3, 2], "output_padding": [2, 1], "group": 2}),
        ("ConvTranspose", {"dilations": [2, 3], "pads": [1, 1, 1, 1], "group": 4}),
        ("ConvTranspose", {"strides": [2, 2], "dilations": [3, 1], "pads": [3, 0, 2, 1]}),
        ("ConvTranspose", {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("ConvTranspose", {"strides": [2, 3], "auto_pad": "SAME_LOWER"}),
        ("ConvTranspose", {"strides": [2, 2], "output_shape": [18, 17]}),
        ("ConvTranspose", {"strides": [1, 1], "auto_pad": "VALID"}),
    ],
)
def test_windows_are_what_convolutions_multiply(op_type: str, attributes: dict[str, Any]) -> None:
    """Reductions times weights are the outputs of onnxruntime, position by position."""
    rng = np.random.default_rng(0)
    groups = int(attributes.get("group", 1))
    first, second = (8, 4) if op_type == "Conv" else (4, 8)
    weight = rng.standard_normal((first, second // groups, 3, 2)).astype(np.float32)
    node = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
    feeds = {"x": rng.standard_normal((3, 4, 9, 8)).astype(np.float32)}
    proto = model_of([node], {"w": weight}, feeds, ["y"])
    ((layer, _),) = watched(proto, feeds).values()
    y = Session(proto.SerializeToString()).run(feeds)[0]
    unfold = layer.sources[0].reader.unfold
    count = unfold.positions(feeds["x"])
    assert count == y.size // 8
    index = rng.permutation(count)[: count // 2]
    got = unfold.reductions(feeds["x"], index) @ layer.matrices().transpose(0, 2, 1)
    np.testing.assert_allclose(got, unfold.outputs(y, index, groups), rtol=1e-4, atol=1e-4)
    check_by_change(proto, feeds)


@pytest.mark.parametrize(("weight", "data"), [((3, 4, 5), (2, 1, 6, 4)), ((1, 4, 5), (3, 2, 4))])
def test_stacks_are_broadcast(weight: tuple[int, ...], data: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    arrays = {"w": rng.standard_normal(weight).astype(np.float32)}
    feeds = {"x": rng.standard_normal(data).astype(np.float32)}
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    check_by_change(model_of([node], arrays, feeds, ["y"]), feeds)


def step_by_step(
    op_type: str,
    x: np.ndarray,
    w: np.ndarray,
    r: np.ndarray,
    b: np.ndarray,
    *,
    backwards: bool,
    initial: np.ndarray,
    cell: np.ndarray,
    lengths: np.ndarray,
    linear_before_reset: bool,
) -> tuple[np.ndarray, list[np.ndarray], list[dict[int, np.ndarray]]]:
    """One direction in plain loops: states ``(T, B, H)``, and for each step what W and each gate of R see."""

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    size, gates = r.shape[1], len(r) // r.shape[1]
    wb, rb = np.split(b, 2)
    states = np.zeros((*x.shape[:2], size))
    inputs, hidden = [], []
    for sequence in range(x.shape[1]):
        h, c = initial[sequence].copy(), cell[sequence].copy()
        steps = range(int(lengths[sequence]))
        for t in reversed(steps) if backwards else steps:
            seen = dict.fromkeys(range(gates), h)
            pre = x[t, sequence] @ w.T + wb + h @ r.T + rb
            if op_type == "RNN":
                h = np.tanh(pre)
            elif op_type == "LSTM":
                i, o, f, g = np.split(pre, 4)
                c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
                h = sigmoid(o) * np.tanh(c)
            else:
                z, reset = sigmoid(pre[:size]), sigmoid(pre[size : 2 * size])
                part = slice(2 * size, None)
                plain = x[t, sequence] @ w[part].T + wb[part]
                if linear_before_reset:
                    candidate = plain + reset * (h @ r[part].T + rb[part])
                else:
                    seen[2] = reset * h
                    candidate = plain + seen[2] @ r[part].T + rb[part]
                h = (1 - z) * np.tanh(candidate) + z * h
            inputs.append(x[t, sequence])
            hidden.append(seen)
            states[t, sequence] = h
    return states, inputs, hidden


@pytest.mark.parametrize("named", [True, False], ids=["with Y", "without Y"])
@pytest.mark.parametrize("extras", [True, False], ids=["lengths and states", "plain"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("op_type", "before_reset"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)]
)
def test_recurrent_gram_is_that_of_plain_loops(
    op_type: str, before_reset: int, direction: str, extras: bool, named: bool
) -> None:
    rng = np.random.default_rng(0)
    steps, sequences, width, size = 5, 3, 4, 2
    gates, passes = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 1 + (direction == "bidirectional")

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {
        "W": draw(passes, gates * size, width),
        "R": draw(passes, gates * size, size),
        "B": draw(passes, 2 * gates * size),
    }
    feeds = {"x": draw(steps, sequences, width)}
    names = ["x", "W", "R", "B"]
    lengths = np.full(sequences, steps)
    initial, cell = np.zeros((2, passes, sequences, size))
    if extras:
        lengths = np.array([5, 2, 3])
        initial, cell = draw(passes, sequences, size), draw(passes, sequences, size)
        arrays |= {"lengths": lengths.astype(np.int32), "h": initial}
        names += ["lengths", "h"]
        if op_type == "LSTM":
            arrays["c"] = cell
            names.append("c")
    attributes: dict[str, Any] = {"hidden_size": size, "direction": direction}
    if op_type == "GRU":
        attributes["linear_before_reset"] = before_reset
    outputs = ["y", "last"] if named else ["", "last"]
    node = helper.make_node(op_type, names, outputs, **attributes)
    proto = model_of([node], arrays, feeds, ["y" if named else "last"])
    found = watched(proto, feeds)
    grams = {"W": [], "R": []}
    for number in range(passes):
        states, inputs, hidden = step_by_step(
            op_type,
            feeds["x"],
            *(arrays[name][number] for name in "WRB"),
            backwards=direction == "reverse" or number == 1,
            initial=initial[number],
            cell=cell[number],
            lengths=lengths,
            linear_before_reset=bool(before_reset),
        )
        if named:
            y = Session(proto.SerializeToString()).run(feeds)[0]
            np.testing.assert_allclose(y[:, number], states, atol=1e-5)
        for gate in range(gates):
            seen = np.array([step[gate] for step in hidden])
            grams["W"].append(np.array(inputs).T @ np.array(inputs))
            grams["R"].append(seen.T @ seen)
    for name, (layer, sums) in found.items():
        rows = layer.weight.layout.matrix_shape[0] * layer.weight.layout.matrix_shape[1]
        by_row = np.repeat(sums.gram, rows // len(sums.gram), axis=0)
        want = np.repeat(np.array(grams[name]), size, axis=0)
        np.testing.assert_allclose(by_row, want, rtol=1e-4, atol=1e-4)
        assert layer.bias is not None
        got = layer.bias.values({}).reshape(passes, -1)
        half = slice(0, gates * size) if name == "W" else slice(gates * size, None)
        np.testing.assert_array_equal(got, arrays["B"][:, half])


def test_attention_reads_its_input() -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.standard_normal((6, 12)).astype(np.float32),
        "b": rng.standard_normal(12).astype(np.float32),
    }
    feeds = {"x": rng.standard_normal((2, 3, 6)).astype(np.float32)}
    node = helper.make_node("Attention", ["x", "W", "b"], ["y"], domain=MS, num_heads=2)
    ((layer, sums),) = watched(model_of([node], arrays, feeds, ["y"]), feeds).values()
    flat = feeds["x"].reshape(-1, 6)
    np.testing.assert_allclose(sums.gram[0], flat.T @ flat, rtol=1e-5)
    assert layer.bias is not None
    assert layer.bias.name == "b"


@pytest.mark.parametrize(
    ("op_type", "before_reset"), [("LSTM", 0), ("GRU", 0), ("GRU", 1), ("RNN", 0)]
)
def test_recurrent_weights_make_good_what_those_of_the_input_lost(
    op_type: str, before_reset: int
) -> None:
    """R's partner gives what W gives, as it is stored now, in every row where the two are added."""
    rng = np.random.default_rng(0)
    gates, size, width = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 3, 4
    arrays = {
        "W": rng.standard_normal((2, gates * size, width)).astype(np.float32),
        "R": rng.standard_normal((2, gates * size, size)).astype(np.float32),
        "B": rng.standard_normal((2, 2 * gates * size)).astype(np.float32),
    }
    feeds = {"x": rng.standard_normal((5, 2, width)).astype(np.float32)}
    attributes = {"linear_before_reset": before_reset} if op_type == "GRU" else {}
    node = helper.make_node(
        op_type, [*"xWRB"], ["y"], hidden_size=size, direction="bidirectional", **attributes
    )
    layers = {
        name: found[0]
        for name, found in watched(model_of([node], arrays, feeds, ["y"]), feeds).items()
    }
    assert layers["R"].partner is not None
    assert layers["R"].partner.name == "W"
    now = {"W": 2 * arrays["W"]}
    index = np.arange(10)
    groups, rows, _ = layers["R"].shape
    shape = np.zeros((groups, len(index), rows), np.float32)
    got = given_by_partner(layers["R"], Values(feeds, now), index, shape)
    got = got.transpose(0, 2, 1).reshape(2, gates * size, 10)
    want = np.einsum("dri,tbi->drtb", now["W"], feeds["x"]).reshape(2, gates * size, 10)
    want += arrays["B"][:, : gates * size, None]
    if before_reset:
        want[:, 2 * size :] = 0
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_lose_less_than_by_magnitude(op_type: str) -> None:
    rng = np.random.default_rng(1)
    gates, size, width = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], 8, 6
    arrays = {
        "W": rng.standard_normal((1, gates * size, width)).astype(np.float32) / 2,
        "R": rng.standard_normal((1, gates * size, size)).astype(np.float32) / 3,
        "B": rng.standard_normal((1, 2 * gates * size)).astype(np.float32) / 2,
    }
    mixing = rng.standard_normal((width, width))
    feeds = {"x": (rng.standard_normal((12, 64, width)) @ mixing).astype(np.float32)}
    node = helper.make_node(op_type, [*"xWRB"], ["y"], hidden_size=size)
    proto = model_of([node], arrays, feeds, ["y"])
    model = ir.from_proto(proto)
    weights = collect_weights(model).weights
    keep = {weight.name: weight.elements // 2 for weight in weights}
    dense = Session(proto.SerializeToString()).run(feeds)[0]
    errors = {}
    for method in ("obs", "magnitude"):
        made = prune_sequentially(model, weights, keep, [feeds], runner, Options(method=method))
        after = type(proto)()
        after.CopyFrom(proto)
        for tensor in after.graph.initializer:
            tensor.CopyFrom(numpy_helper.from_array(made.constants[tensor.name], tensor.name))
        errors[method] = float(
            ((Session(after.SerializeToString()).run(feeds)[0] - dense) ** 2).mean()
        )
    assert errors["obs"] < errors["magnitude"] / 2
