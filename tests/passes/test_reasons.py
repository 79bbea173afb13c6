"""Each constant that is left as it is says why, and hostile models are left quickly."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from passes.weights import collect_weights

RNG = np.random.default_rng(0)
W = RNG.standard_normal((4, 3)).astype(np.float32)
X = RNG.standard_normal((2, 4)).astype(np.float32)
KEEP = RNG.random((4, 3)) < 0.5
LISTED = ", ".join(f"{v:.9g}" for v in W.ravel())


def parse(text: str, **tensors: np.ndarray) -> onnx.ModelProto:
    model = parser.parse_model(text)
    for name, array in tensors.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


OLD = '<ir_version: 8, opset_import: ["" : 17]> g'
HEAD = '<ir_version: 10, opset_import: ["" : 21, "local" : 1]> g (float[2,4] x) => (float[2,3] y)'
SLICED_CONV = "h = Slice(w, one, five, zero) y = Conv<group: int = 2>(x, h)"
REASONS = {
    "it is an output of the model": (
        f"{HEAD[:-1]}, float[4,3] o) {{ y = MatMul(x, w) o = Identity(w) }}",
        {"w": W},
    ),
    "no node reads it": (f"{HEAD} {{ y = MatMul(x, v) }}", {"v": W, "w": W}),
    "no node reads its elements": (
        f"{HEAD} {{ y = MatMul(x, v) s = Shape(w) }}",
        {"v": W, "w": W},
    ),
    "Mul has no weights that onnxprune can prune": (
        f"{HEAD} {{ h = MatMul(x, v) y = Mul(h, w) }}",
        {"v": W, "w": W[:2]},
    ),
    "a bias of Gemm is kept: it is small and every output needs it": (
        f"{HEAD} {{ y = Gemm(x, v, w) }}",
        {"v": W, "w": W[0]},
    ),
    "a vector in MatMul is kept: it has one output only": (
        f"{OLD} (float[2,4] x) => (float[2] y) {{ y = MatMul(x, w) }}",
        {"w": W[:, 0]},
    ),
    "it is reshaped to a shape that is known only at run time": (
        f"{OLD} (float[2,4] x, int64[2] s) => (float[2,3] y) {{ h = Reshape(w, s) y = MatMul(x, h) }}",
        {"w": W},
    ),
    "it is cast to INT64": (f"{HEAD} {{ y = MatMul(x, v) h = Cast<to = 7>(w) }}", {"v": W, "w": W}),
    "no matrix view of it fits the reshapes and cuts between it and Conv": (
        f"{OLD} (float[1,4,5] x) => (float[1,4,5] y) {{ {SLICED_CONV} }}",
        {
            "w": RNG.standard_normal((6, 2, 1)).astype(np.float32),
            "zero": np.array([0]),
            "one": np.array([1]),
            "five": np.array([5]),
        },
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_each_refusal_has_its_reason(reason: str) -> None:
    text, tensors = REASONS[reason]
    collection = collect_weights(ir.from_proto(parse(text, **tensors)))
    assert {s.name: s.reason for s in collection.skipped}["w"] == reason


@pytest.mark.parametrize("kind", [TensorProto.FLOAT8E4M3FN, TensorProto.INT4, TensorProto.INT16])
def test_dtypes_that_are_left_say_so(kind: int) -> None:
    model = parse(f"{HEAD} {{ h = DequantizeLinear(w, one) y = MatMul(x, h) }}", one=np.float32(1))
    model.graph.initializer.append(helper.make_tensor("w", kind, [4, 3], [1] * 12))
    reasons = {s.name: s.reason for s in collect_weights(ir.from_proto(model)).skipped}
    assert reasons["w"].startswith(f"its values are {TensorProto.DataType.Name(kind)}; floats")


def test_packed_weights_of_a_few_bits_are_left_and_say_so() -> None:
    node = helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=16, N=3, bits=4,
        block_size=16,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [
            numpy_helper.from_array(np.zeros((3, 1, 8), np.uint8), "w"),
            numpy_helper.from_array(np.ones(3, np.float32), "s"),
        ],
    )
    (skipped, _) = collect_weights(ir.from_proto(helper.make_model(graph))).skipped
    assert "MatMulNBits packs weights of a few bits into bytes" in skipped.reason


def test_hostile_graphs_are_left_alone_quickly() -> None:
    """Doubling by Concat: 2^60 ways from the weight to its reader."""
    nodes = [
        helper.make_node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=0) for i in range(60)
    ]
    nodes.append(helper.make_node("MatMul", ["x", "w60"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(W, "w0")],
    )
    collection = collect_weights(ir.from_proto(helper.make_model(graph)))
    assert "too many ways" in collection.skipped[0].reason
