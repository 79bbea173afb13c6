"""Weights wherever they stand: Constant nodes, bodies of If and Loop, functions; tied or not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.verify import folds_wholly
from passes.pack import PackWeightsPass, packed_names
from passes.unpack import UnpackWeightsPass

SIZE = 96


def sparse(seed: int, density: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.standard_normal((SIZE, SIZE)).astype(np.float32)
    return np.where(rng.random(array.shape) < density, array, np.float32(0))


def constant(name: str, seed: int) -> onnx.NodeProto:
    tensor = numpy_helper.from_array(sparse(seed))
    return helper.make_node("Constant", [], [name], name=f"{name}_node", value=tensor)


def value(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def multiply(left: str, right: str, out: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [left, right], [out])


def whole(nodes, tensors=(), functions=(), inputs=(), opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes, "g", [value("x", 2, SIZE), *inputs], [value("y", 2, SIZE)], list(tensors)
    )
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid("my", 1)] if functions else []
    model = helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_constants(opset: int) -> onnx.ModelProto:
    nodes = [constant("w", 0), multiply("x", "w", "h"), constant("v", 1), multiply("h", "v", "y")]
    return whole(nodes, opset=opset)


def in_if(opset: int) -> onnx.ModelProto:
    """Both branches have a weight of the same name, one as initializer, one in a node."""
    one = helper.make_graph(
        [multiply("x", "w", "a")], "t", [], [value("a", 2, SIZE)],
        [numpy_helper.from_array(sparse(0), "w")],
    )  # fmt: skip
    nodes = [constant("w", 1), multiply("x", "w", "b")]
    other = helper.make_graph(nodes, "e", [], [value("b", 2, SIZE)])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=one, else_branch=other)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    return whole([branch], inputs=[condition], opset=opset)


def in_loop(opset: int) -> onnx.ModelProto:
    """One weight in the body, one outside that the body reads."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            multiply("state", "w", "h"),
            multiply("h", "outer", "next"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            value("state", 2, SIZE),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), value("next", 2, SIZE)],
        [numpy_helper.from_array(sparse(0), "w")],
    )
    tensors = [
        numpy_helper.from_array(np.array(3, np.int64), "trips"),
        numpy_helper.from_array(np.ones((), np.bool_), "go0"),
        numpy_helper.from_array(sparse(1), "outer"),
    ]
    node = helper.make_node("Loop", ["trips", "go0", "x"], ["y"], body=body)
    return whole([node], tensors, opset=opset)


def in_function(opset: int) -> onnx.ModelProto:
    """A function that is called twice, and one inside it."""
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("my", 1)]
    inner = helper.make_function(
        "my", "G", ["a"], ["b"], [constant("w", 0), multiply("a", "w", "b")], opsets
    )
    nodes = [
        constant("w", 1),
        multiply("a", "w", "h"),
        helper.make_node("G", ["h"], ["b"], domain="my"),
    ]
    outer = helper.make_function("my", "F", ["a"], ["b"], nodes, opsets)
    calls = [
        helper.make_node("F", ["x"], ["h"], domain="my"),
        helper.make_node("F", ["h"], ["y"], domain="my"),
    ]
    return whole(calls, functions=[inner, outer], opset=opset)


def tied(opset: int) -> onnx.ModelProto:
    """One weight that two nodes read, one of them through a Transpose."""
    nodes = [
        multiply("x", "w", "h"),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        multiply("h", "t", "y"),
    ]
    return whole(nodes, [numpy_helper.from_array(sparse(0), "w")], opset=opset)


PLACES = {
    "constants": (in_constants, ("w", "v")),
    "if": (in_if, ("w", "w")),
    "loop": (in_loop, ("outer", "w")),
    "function": (in_function, ("w", "w")),
    "tied": (tied, ("w",)),
}


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
@pytest.mark.parametrize("place", PLACES)
def test_weights_are_packed_where_they_stand(place: str, opset: int, tmp_path: Path) -> None:
    make, names = PLACES[place]
    dense, packed, again = (tmp_path / f"{name}.onnx" for name in ("dense", "packed", "again"))
    dense.write_bytes(make(opset).SerializeToString(deterministic=True))
    model = load_model(dense)
    PackWeightsPass()(model)
    assert sorted(packed_names(model)) == sorted(names)
    save_model(model, packed)
    onnx.checker.check_model(packed, full_check=True)
    assert packed.stat().st_size < 0.45 * dense.stat().st_size
    assert folds_wholly(packed)
    sessions = [ort.InferenceSession(path) for path in (dense, packed)]
    x = np.random.default_rng(0).standard_normal((2, SIZE)).astype(np.float32)
    for choice in (True, False):
        feeds = {"x": x} | ({"c": np.array(choice)} if place == "if" else {})
        one, other = (session.run(None, feeds)[0] for session in sessions)
        assert one.tobytes() == other.tobytes()
    model = load_model(packed)
    UnpackWeightsPass()(model)
    save_model(model, again)
    assert again.read_bytes() == dense.read_bytes()


def test_a_step_that_stays_is_found_under_any_name(tmp_path: Path) -> None:
    """NonZero has no static shape, so onnxruntime leaves it in the graph, here from a function."""
    model = load_model_of(in_function(17), tmp_path)
    PackWeightsPass()(model)
    proto = onnx.ModelProto.FromString(model_bytes(model))
    packed = tmp_path / "packed.onnx"
    packed.write_bytes(proto.SerializeToString())
    assert folds_wholly(packed)
    body = next(f for f in proto.functions if f.name == "G").node
    at = next(i for i, node in enumerate(body) if node.op_type == "Identity")
    flat = body[at].input[0]
    steps = [
        helper.make_node("NonZero", [flat], ["~found"]),
        helper.make_node("ReduceSum", ["~found"], ["~sum"], keepdims=0),
        helper.make_node("Cast", ["~sum"], ["~number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["~number", flat], ["~changed"]),
    ]
    body[at].input[0] = "~changed"
    tail = [*steps, *body[at:]]
    del body[at:]
    body.extend(tail)
    packed.write_bytes(proto.SerializeToString())
    assert not folds_wholly(packed)


def load_model_of(proto: onnx.ModelProto, folder: Path):
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return load_model(path)


def test_functions_of_old_opsets_stay_dense(tmp_path: Path) -> None:
    """A function has opsets of its own; under 7 there is no broadcasting, so nothing is packed."""
    proto = in_function(17)
    for function in proto.functions:
        function.opset_import[0].version = 6
    model = load_model_of(proto, tmp_path)
    assert not PackWeightsPass()(model).modified
