"""int8 and uint8 weights: zero means the zero point, scales stay, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.apply import ApplyMasksPass
from passes.magnitude import PruneByMagnitudePass
from passes.weights import collect_weights

RNG = np.random.default_rng(0)
MS = "com.microsoft"


def q(*shape: int, dtype=np.int8) -> np.ndarray:
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, shape).astype(dtype)


@dataclass
class Case:
    """A graph that reads ``w``; ``zero`` and ``scale`` broadcast to it as it is stored."""

    nodes: list
    w: np.ndarray
    x: np.ndarray
    zero: np.ndarray | int = 0
    scale: np.ndarray | float = 1.0
    extra: dict[str, np.ndarray] = field(default_factory=dict)
    opset: int = 21


def node(op_type: str, inputs: str, output: str = "y", **attributes):
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op_type, names, [output], f"n_{output}", **attributes)


def dequantized(zero, scale, w, *, axis: int | None = None, block: int = 0) -> Case:
    attributes = {} if axis is None else {"axis": axis}
    if block:
        attributes["block_size"] = block
    links = [node("DequantizeLinear", "w s z", "h", **attributes), node("MatMul", "x h")]
    x = RNG.standard_normal((2, w.shape[0])).astype(np.float32)
    case = Case(links, w, x, extra={"s": np.float32(scale), "z": np.asarray(zero, w.dtype)})
    case.zero, case.scale = case.extra["z"], case.extra["s"]
    if block:
        case.zero = np.repeat(case.zero, block, axis)
        case.scale = np.repeat(case.scale, block, axis)
    elif axis is not None:
        shape = [-1 if i == axis else 1 for i in range(w.ndim)]
        case.zero, case.scale = case.zero.reshape(shape), case.scale.reshape(shape)
    return case


def one(value: float, dtype=np.float32) -> np.ndarray:
    return np.asarray(value, dtype)


def cases() -> dict[str, Case]:
    u8, f32 = np.uint8, np.float32
    floats = RNG.standard_normal((2, 6)).astype(f32)
    channel = RNG.random(4).astype(f32) + 0.1
    return {
        "DequantizeLinear int8": dequantized(0, 0.1, q(6, 4)),
        "DequantizeLinear uint8": dequantized(131, 0.1, q(6, 4, dtype=u8)),
        "by channel": dequantized(q(4), channel, q(6, 4), axis=1),
        "by channel uint8": dequantized(q(6, dtype=u8), np.arange(1, 7), q(6, 4, dtype=u8), axis=0),
        "blocked": dequantized(q(3, 4), RNG.random((3, 4)) + 0.1, q(6, 4), axis=0, block=2),
        "through a transpose": Case(
            [
                node("Transpose", "w", "t", perm=[1, 0]),
                node("DequantizeLinear", "t s z", "h", axis=1),
                node("MatMul", "x h"),
            ],
            q(4, 6, dtype=u8),
            floats,
            np.arange(4, dtype=u8).reshape(4, 1),
            channel.reshape(4, 1),
            {"s": channel, "z": np.arange(4, dtype=u8)},
        ),
        "QLinearConv": Case(
            [node("QLinearConv", "x xs xz w ws wz ys yz", group=2)],
            q(4, 3, 2, 2),
            q(1, 6, 5, 5, dtype=u8),
            0,
            channel.reshape(4, 1, 1, 1),
            {
                "xs": one(0.1), "xz": one(9, u8), "ws": channel, "wz": np.zeros(4, np.int8),
                "ys": one(3.0), "yz": one(7, u8),
            },
        ),
        "ConvInteger": Case(
            [node("ConvInteger", "x w xz wz")],
            q(4, 3, 2, 2, dtype=u8),
            q(1, 3, 5, 5, dtype=u8),
            17,
            extra={"xz": one(9, u8), "wz": one(17, u8)},
        ),
        "MatMulInteger right": Case(
            [node("MatMulInteger", "x w xz wz")],
            q(6, 4),
            q(2, 6, dtype=u8),
            np.arange(4, dtype=np.int8),
            extra={"xz": one(9, u8), "wz": np.arange(4, dtype=np.int8)},
        ),
        "QLinearMatMul right": Case(
            [node("QLinearMatMul", "x xs xz w ws wz ys yz")],
            q(6, 4),
            q(2, 6, dtype=u8),
            5,
            0.5,
            {
                "xs": one(0.1), "xz": one(9, u8), "ws": one(0.5), "wz": one(5, np.int8),
                "ys": one(3.0), "yz": one(7, u8),
            },
        ),
        "DynamicQuantizeMatMul": Case(
            [node("DynamicQuantizeMatMul", "x w s z", domain=MS)],
            q(6, 4),
            floats,
            np.arange(4, dtype=np.int8),
            channel,
            {"s": channel, "z": np.arange(4, dtype=np.int8)},
        ),
        "MatMulIntegerToFloat": Case(
            [node("MatMulIntegerToFloat", "x w xs ws xz wz", domain=MS)],
            q(6, 4),
            q(2, 6, dtype=u8),
            3,
            channel,
            {"xs": one(0.1), "ws": channel, "xz": one(9, u8), "wz": np.full(4, 3, np.int8)},
        ),
        "QGemm": Case(
            [node("QGemm", "x xs xz w ws wz", domain=MS, transB=1)],
            q(4, 6),
            q(2, 6, dtype=u8),
            0,
            0.5,
            {"xs": one(0.1), "xz": one(9, u8), "ws": one(0.5), "wz": one(0, np.int8)},
        ),
        "QAttention": Case(
            [node("QAttention", "x w b xs ws - xz wz", domain=MS, num_heads=2)],
            q(6, 12),
            q(1, 3, 6, dtype=u8),
            4,
            0.02,
            {
                "b": np.zeros(12, f32), "xs": one(0.02), "ws": one(0.02), "xz": one(9, u8),
                "wz": one(4, np.int8),
            },
        ),
        "DynamicQuantizeLSTM": Case(
            [node("DynamicQuantizeLSTM", "x w r - - - - - s z s z", domain=MS, hidden_size=2)],
            q(1, 6, 8),
            RNG.standard_normal((3, 1, 6)).astype(f32),
            0,
            0.01,
            {
                "r": q(1, 2, 8), "s": np.full(1, 0.01, f32), "z": np.zeros(1, np.int8),
            },
        ),
    }  # fmt: skip


CASES = cases()


def build(case: Case) -> onnx.ModelProto:
    kind = helper.np_dtype_to_tensor_dtype(case.x.dtype)
    graph = helper.make_graph(
        case.nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, case.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.UNDEFINED, None)],
        [numpy_helper.from_array(a, n) for n, a in {"w": case.w, **case.extra}.items()],
    )
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    model.graph.output[0].ClearField("type")
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]


def weight_of(model: ir.Model):
    (weight,) = [w for w in collect_weights(model).weights if w.name == "w"]
    return weight


@pytest.mark.parametrize("name", CASES)
def test_zero_means_the_zero_point(name: str) -> None:
    case = CASES[name]
    model = build(case)
    loaded = ir.from_proto(model)
    weight = weight_of(loaded)
    zeros = np.broadcast_to(np.asarray(case.zero, case.w.dtype), case.w.shape)
    assert np.array_equal(np.broadcast_to(weight.zero_point, case.w.shape), zeros)
    real = (case.w.astype(np.float32) - zeros.astype(np.float32)) * np.float32(case.scale)
    assert np.allclose(weight.values(), real, rtol=1e-5)
    assert np.array_equal(weight.stored(weight.matrices()), case.w), "requantised it is the same"
    keep = RNG.random(case.w.shape) < 0.5
    mask = weight.layout.matrices(keep)
    ApplyMasksPass({"w": mask})(loaded)
    stored = loaded.graph.initializers["w"].const_value.numpy()
    expected = np.where(keep, case.w, zeros)
    assert stored.dtype == case.w.dtype
    assert np.array_equal(stored, expected)
    assert weight.nonzeros() == np.count_nonzero(expected != zeros)
    by_hand = onnx.ModelProto()
    by_hand.CopyFrom(model)
    by_hand.graph.initializer[0].CopyFrom(numpy_helper.from_array(expected, "w"))
    ours = ir.to_proto(loaded)
    assert run(ours, case.x).tobytes() == run(by_hand, case.x).tobytes()
    for before, after in zip(model.graph.initializer[1:], ours.graph.initializer[1:], strict=True):
        assert before.raw_data == after.raw_data, "scales and zero points stay"


@pytest.mark.parametrize("name", CASES)
def test_magnitude_is_that_of_the_real_number(name: str) -> None:
    case = CASES[name]
    loaded = ir.from_proto(build(case))
    weight = weight_of(loaded)
    magnitudes = np.abs(weight.values())
    keep = case.w.size // 3
    step = PruneByMagnitudePass({"w": keep})
    assert step(loaded).modified
    zeros = np.broadcast_to(np.asarray(case.zero, case.w.dtype), case.w.shape)
    kept = weight.array() != zeros
    assert kept.sum() == keep == weight.nonzeros()
    assert magnitudes[kept].min() >= magnitudes[~kept].max()
    assert not step(loaded).modified


def test_a_zero_point_that_is_computed_is_a_reason_to_leave_it() -> None:
    case = CASES["DequantizeLinear int8"]
    model = build(case)
    model.graph.initializer.remove(model.graph.initializer[2])
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.INT8, []))
    reasons = {s.name: s.reason for s in collect_weights(ir.from_proto(model)).skipped}
    assert reasons["w"] == "its zero point is known only at run time"


def test_readers_must_agree_on_the_zero_point() -> None:
    case = CASES["DequantizeLinear int8"]
    model = build(case)
    model.graph.node.extend(
        [node("DequantizeLinear", "w s z2", "h2"), node("MatMul", "x h2", "y2")]
    )
    model.graph.initializer.append(numpy_helper.from_array(np.int8(3), "z2"))
    reasons = {s.name: s.reason for s in collect_weights(ir.from_proto(model)).skipped}
    assert reasons["w"] == "the nodes that read it do not agree on its zero point"


def test_float_weights_behind_quantize_and_dequantize_are_floats() -> None:
    w = RNG.standard_normal((6, 4)).astype(np.float32)
    links = [
        node("QuantizeLinear", "w s z", "k"),
        node("DequantizeLinear", "k s z", "h"),
        node("MatMul", "x h"),
    ]
    extra = {"s": one(0.1), "z": one(131, np.uint8)}
    case = Case(links, w, RNG.standard_normal((2, 6)).astype(np.float32), extra=extra)
    loaded = ir.from_proto(build(case))
    weight = weight_of(loaded)
    assert np.array_equal(weight.values(), w)
    keep = RNG.random(w.shape) < 0.5
    ApplyMasksPass({"w": weight.layout.matrices(keep)})(loaded)
    by_hand = Case(links, np.where(keep, w, np.float32(0)), case.x, extra=extra)
    assert run(ir.to_proto(loaded), case.x).tobytes() == run(build(by_hand), case.x).tobytes()
