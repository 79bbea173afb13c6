"""Weights wherever a model may keep them: each is found, pruned in place, and computes as expected."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from passes.apply import ApplyMasksPass
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


def run(model: onnx.ModelProto | ir.Model, **feeds: np.ndarray) -> list[np.ndarray]:
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    onnx.checker.check_model(proto)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)


def prune(model: onnx.ModelProto, keep: np.ndarray = KEEP, name: str | None = None):
    """Prune the one weight of a model, its mask given for the stored array."""
    loaded = ir.from_proto(model)
    (weight,) = [w for w in collect_weights(loaded).weights if name in {None, w.name}]
    mask = weight.layout.matrices(keep.reshape(weight.layout.shape))
    step = ApplyMasksPass({weight.name: mask})
    assert step(loaded).modified
    assert not step(loaded).modified
    return loaded, weight


OLD = '<ir_version: 8, opset_import: ["" : 17]> g'
HEAD = '<ir_version: 10, opset_import: ["" : 21, "local" : 1]> g (float[2,4] x) => (float[2,3] y)'


@pytest.mark.parametrize(
    ("body", "tensors", "place"),
    [
        ("{ y = MatMul(x, w) }", {"w": W}, "initializer"),
        (
            f"{{ w = Constant<value: tensor = float[4,3] {{{LISTED}}}>() y = MatMul(x, w) }}",
            {},
            "constant",
        ),
        (
            f"{{ f = Constant<value_floats: floats = [{LISTED}]>() w = Reshape(f, s) y = MatMul(x, w) }}",
            {"s": np.array([4, 3])},
            "constant",
        ),
        ("{ h = Cast<to = 1>(w) y = MatMul(x, h) }", {"w": W.astype(np.float16)}, "initializer"),
        ("{ h = Cast<to = 1>(w) y = MatMul(x, h) }", {"w": W.astype(np.float64)}, "initializer"),
    ],
    ids=["initializer", "Constant", "value_floats", "float16", "float64"],
)
def test_every_place_and_dtype(body: str, tensors: dict, place: str) -> None:
    model = parse(f"{HEAD} {body}", **tensors)
    loaded, weight = prune(model)
    assert weight.place == place
    stored = np.where(KEEP.reshape(weight.layout.shape), weight.array(), 0)
    assert np.array_equal(weight.array(), stored)
    rounded = W.astype(tensors["w"].dtype).astype(np.float32) if "w" in tensors else W
    (y,) = run(loaded, x=X)
    assert np.allclose(y, X @ np.where(KEEP, rounded, 0), rtol=1e-5, atol=1e-6)
    names = [[node.op_type, *node.output] for node in ir.to_proto(loaded).graph.node]
    assert names == [[node.op_type, *node.output] for node in model.graph.node]


def test_value_float_is_a_weight_of_one_element() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,1] x) => (float[2,1] y) '
        "{ f = Constant<value_float: float = 2.5>() w = Reshape(f, s) y = MatMul(x, w) }",
        s=np.array([1, 1]),
    )
    loaded, _ = prune(model, np.zeros((), bool))
    assert not run(loaded, x=np.ones((2, 1), np.float32))[0].any()


def test_bfloat16_is_pruned_in_its_own_bits() -> None:
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, [4, 3], W.ravel().tolist())
    model = parse(f"{HEAD} {{ h = Cast<to = 1>(w) y = MatMul(x, h) }}")
    model.graph.initializer.append(tensor)
    loaded, weight = prune(model)
    assert weight.dtype.name == "bfloat16"
    assert np.count_nonzero(weight.array()) == KEEP.sum()
    assert run(loaded, x=X)[0].shape == (2, 3)


def test_a_constant_of_shape_becomes_a_constant_when_part_of_it_goes() -> None:
    model = parse(
        f"{HEAD} {{ w = ConstantOfShape<value: tensor = float[1] {{0.5}}>(s) y = MatMul(x, w) }}",
        s=np.array([4, 3]),
    )
    loaded, weight = prune(model)
    assert weight.place == "fill"
    assert (loaded.graph[0].op_type, loaded.graph[0].outputs[0].name) == ("Constant", "w")
    assert np.allclose(run(loaded, x=X)[0], X @ np.where(KEEP, np.float32(0.5), 0), atol=1e-6)


def test_a_constant_of_an_enormous_shape_is_left() -> None:
    model = parse(
        f"{OLD} (float[2,1000000] x) => (float[2,1000000] y) "
        "{ w = ConstantOfShape(s) y = MatMul(x, w) }",
        s=np.array([10**6, 10**6]),
    )
    (skipped,) = collect_weights(ir.from_proto(model)).skipped
    assert skipped.reason == "ConstantOfShape fills more bytes than should be stored in its place"


def test_an_initializer_that_is_also_an_input_stays_one() -> None:
    model = parse(f"{HEAD} {{ y = MatMul(x, w) }}", w=W)
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3]))
    loaded, _ = prune(model)
    assert [value.name for value in loaded.graph.inputs] == ["x", "w"]
    assert np.allclose(run(loaded, x=X)[0], X @ np.where(KEEP, W, 0), atol=1e-6)
    assert np.allclose(run(loaded, x=X, w=W)[0], X @ W, atol=1e-6)


def branch(name: str, array: np.ndarray) -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", name], [f"{name}.y"])],
        name,
        [],
        [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(array, name)],
    )


def test_bodies_have_weights_of_their_own_and_may_use_those_outside() -> None:
    outside = helper.make_graph(
        [helper.make_node("MatMul", ["x", "outer"], ["z"])],
        "else",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2, 3])],
    )
    node = helper.make_node(
        "If", ["c"], ["y"], "choice", then_branch=branch("inner", W), else_branch=outside
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(2 * W, "outer")],
    )
    opsets = [helper.make_opsetid("", 17)]
    loaded = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    weights = {weight.name: weight for weight in collect_weights(loaded).weights}
    assert list(weights) == ["outer", "inner"]
    assert weights["inner"].graph is not loaded.graph
    masks = {n: w.layout.matrices(KEEP) for n, w in weights.items()}
    ApplyMasksPass(masks)(loaded)
    pruned = np.where(KEEP, W, 0)
    for condition, factor in ((True, 1), (False, 2)):
        (y,) = run(loaded, x=X, c=np.array(condition))
        assert np.allclose(y, factor * (X @ pruned), atol=1e-5)


def test_loop_bodies() -> None:
    body = parser.parse_graph(
        "body (int64 i, bool more, float[2,4] state) => (bool more_out, float[2,4] out) "
        "{ more_out = Identity(more) out = MatMul(state, square) }"
    )
    square = RNG.standard_normal((4, 4)).astype(np.float32)
    body.initializer.append(numpy_helper.from_array(square, "square"))
    node = helper.make_node("Loop", ["n", "", "x"], ["y"], "loop", body=body)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.array(3), "n")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    keep = RNG.random((4, 4)) < 0.7
    loaded, weight = prune(model, keep)
    assert weight.consumers[0].op_type == "MatMul"
    pruned = np.where(keep, square, 0)
    assert np.allclose(run(loaded, x=X)[0], X @ pruned @ pruned @ pruned, rtol=1e-4, atol=1e-4)


def test_scan_bodies() -> None:
    body = onnx.parser.parse_graph(
        "body (float[4] state, float[4] row) => (float[4] next, float[4] out) {"
        " m = MatMul(row, square) next = Add(state, m) out = Identity(m) }"
    )
    square = RNG.standard_normal((4, 4)).astype(np.float32)
    body.initializer.append(numpy_helper.from_array(square, "square"))
    node = helper.make_node("Scan", ["s", "x"], ["t", "y"], "scan", body=body, num_scan_inputs=1)
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", floats, [2, 4])],
        [helper.make_tensor_value_info("y", floats, [2, 4])],
        [numpy_helper.from_array(np.zeros(4, np.float32), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    keep = RNG.random((4, 4)) < 0.7
    loaded, weight = prune(model, keep)
    assert weight.consumers[0].op_type == "MatMul"
    assert np.allclose(run(loaded, x=X)[0], X @ np.where(keep, square, 0), rtol=1e-4, atol=1e-4)


def test_fused_convolutions_of_onnxruntime() -> None:
    weight = RNG.standard_normal((2, 3, 3, 3)).astype(np.float32)
    node = helper.make_node(
        "FusedConv", ["x", "w"], ["y"], "fused", domain="com.microsoft", activation="Relu"
    )
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, 5, 5])],
        [helper.make_tensor_value_info("y", floats, [1, 2, 3, 3])],
        [numpy_helper.from_array(weight, "w")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    keep = RNG.random(weight.shape) < 0.5
    loaded, found = prune(model, keep)
    assert found.layout.matrices(weight).shape == (1, 2, 27)
    x = RNG.standard_normal((1, 3, 5, 5)).astype(np.float32)
    by_hand = onnx.ModelProto.FromString(model.SerializeToString())
    by_hand.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.where(keep, weight, 0).astype(np.float32), "w")
    )
    expected = run(ir.from_proto(by_hand), x=x)[0]
    assert np.array_equal(run(loaded, x=x)[0], expected)


def test_same_names_in_two_bodies_are_told_apart() -> None:
    node = helper.make_node(
        "If",
        ["c"],
        ["y"],
        "choice",
        then_branch=branch("w", W),
        else_branch=branch("w", -W),
    )
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    loaded = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    names = [weight.name for weight in collect_weights(loaded).weights]
    assert names == ["choice.else_branch/w", "choice.then_branch/w"]


FUNCTION = """
<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (float[2,4] x) => (float[2,3] y, float[2,3] z) {
  y = local.Linear <flip: int = 0> (x, w)
  t = Transpose <perm: ints = [1, 0]> (v)
  z = local.Linear <flip: int = 1> (x, t)
}
<domain: "local", opset_import: ["" : 21]>
Linear <flip> (a, b) => (c) {
  inner = local.Pass (b)
  c = Gemm <transB: int = @flip> (a, inner)
}
<domain: "local", opset_import: ["" : 21]>
Pass (d) => (e) { e = Identity(d) }
"""


def test_weights_are_followed_into_functions_and_out_of_them() -> None:
    v = RNG.standard_normal((4, 3)).astype(np.float32)
    model = parse(FUNCTION, w=W, v=v)
    for function in model.functions:
        if function.name == "Linear":
            function.opset_import.add(domain="local", version=1)
    loaded = ir.from_proto(model)
    weights = {weight.name: weight for weight in collect_weights(loaded).weights}
    assert set(weights) == {"w", "v"}
    # Both are stored (reduction, outputs): w is read so, v is transposed and read the other way.
    for weight in weights.values():
        assert weight.layout.matrix_shape == (1, 3, 4)
    masks = {name: weight.layout.matrices(KEEP) for name, weight in weights.items()}
    ApplyMasksPass(masks)(loaded)
    y, z = run(loaded, x=X)
    assert np.allclose(y, X @ np.where(KEEP, W, 0), atol=1e-5)
    assert np.allclose(z, X @ np.where(KEEP, v, 0), atol=1e-5)


def test_constants_inside_functions() -> None:
    model = parse(f"""
<ir_version: 10, opset_import: ["" : 21, "local" : 1]>
g (float[2,4] x) => (float[2,3] y) {{ y = local.Dense (x) }}
<domain: "local", opset_import: ["" : 21]>
Dense (a) => (b) {{ w = Constant<value: tensor = float[4,3] {{{LISTED}}}>() b = MatMul(a, w) }}
""")
    loaded, weight = prune(model)
    assert (weight.name, weight.place) == ("w", "constant")
    assert np.allclose(run(loaded, x=X)[0], X @ np.where(KEEP, W, 0), atol=1e-6)


def test_concatenated_parts_are_pruned_where_they_are_stored() -> None:
    model = parse(
        f"{HEAD} {{ w = Concat<axis: int = 0>(a, b) y = MatMul(x, w) }}", a=W[:1], b=W[1:]
    )
    loaded = ir.from_proto(model)
    weights = collect_weights(loaded).weights
    assert [(w.name, w.layout.matrix_shape) for w in weights] == [
        ("a", (1, 3, 1)),
        ("b", (1, 3, 3)),
    ]
    ApplyMasksPass({"b": weights[1].layout.matrices(KEEP[1:])})(loaded)
    kept = np.concatenate([W[:1], np.where(KEEP[1:], W[1:], 0)])
    assert np.allclose(run(loaded, x=X)[0], X @ kept, atol=1e-6)


def test_what_is_concatenated_with_data_is_no_weight() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[3,3] y) '
        "{ h = Concat<axis: int = 0>(x, row) y = MatMul(h, w) }",
        row=X[:1],
        w=W,
    )
    collection = collect_weights(ir.from_proto(model))
    assert [w.name for w in collection.weights] == ["w"]
    assert [s.name for s in collection.skipped] == ["row"]


def test_a_value_with_several_readers_is_pruned_once_and_stays_tied() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[2,4] y) '
        "{ h = MatMul(x, w) t = Transpose(w) y = MatMul(h, t) }",
        w=W,
    )
    loaded, weight = prune(model)
    assert len(weight.consumers) == 2
    assert not weight.agreed, "one reads rows where the other reads columns"
    assert weight.layout == weight.consumers[0].layout, "of equally common views the first"
    assert list(loaded.graph.initializers) == ["w"]
    kept = np.where(KEEP, W, 0)
    assert np.allclose(run(loaded, x=X)[0], X @ kept @ kept.T, atol=1e-5)


def test_equal_but_distinct_weights_stay_distinct() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[2,4] x) => (float[2,3] y, float[2,3] z) '
        "{ y = MatMul(x, w) z = MatMul(x, v) }",
        w=W,
        v=W,
    )
    loaded, _ = prune(model, name="w")
    y, z = run(loaded, x=X)
    assert not np.array_equal(y, z)
    assert np.allclose(z, X @ W, atol=1e-6)


def test_a_tied_embedding_is_left_unless_embeddings_are_asked_for() -> None:
    model = parse(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[2] i) => (float[2,4] y) '
        "{ e = Gather(w, i) t = Transpose(w) y = MatMul(e, t) }",
        w=W,
    )
    loaded = ir.from_proto(model)
    (skipped,) = collect_weights(loaded).skipped
    assert "kept unless it is asked for" in skipped.reason
    (weight,) = collect_weights(loaded, embeddings=True).weights
    assert weight.agreed
    assert weight.layout.matrix_shape == (1, 4, 3)
