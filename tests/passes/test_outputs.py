from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.outputs import last_values


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Identity", ["a"])], ["y"]),
        ([("Softmax", ["a"])], ["a"]),
        ([("ArgMax", ["a"])], ["a"]),
        ([("Relu", ["a"]), ("ArgMax", ["n0"]), ("Cast", ["n1"])], ["n0"]),
        ([("Softmax", ["a"]), ("ArgMax", ["n0"])], ["a"]),
        ([("Greater", ["a", "x"]), ("Where", ["n0", "a", "x"])], ["y"]),  # a smooth way is left
    ],
)
def test_outputs_are_taken_before_what_squashes_and_what_decides(
    nodes: list[tuple[str, list[str]]], expected: list[str]
) -> None:
    chain = [helper.make_node("MatMul", ["x", "w"], ["a"])]
    for number, (op, inputs) in enumerate(nodes):
        output = "y" if number + 1 == len(nodes) else f"n{number}"
        extra = {"to": TensorProto.FLOAT} if op == "Cast" else {}
        chain.append(helper.make_node(op, inputs, [output], **extra))
    graph = helper.make_graph(
        chain,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.eye(4, dtype=np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert last_values(ir.from_proto(model).graph) == expected
