from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.runtime import Session

if TYPE_CHECKING:
    from pathlib import Path


def test_overrides_hold_where_the_optimizer_reorders_weights(tmp_path: Path) -> None:
    """Weights of Conv are reordered when a model is loaded: the override must come before that."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 16, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "conv.onnx"
    onnx.save_model(
        model, path, save_as_external_data=True, location="conv.data", size_threshold=64
    )
    feeds = {"x": rng.standard_normal((2, 16, 8, 8)).astype(np.float32)}
    new = np.asfortranarray(weight * (rng.random(weight.shape) < 0.1))
    want = Session(model.SerializeToString(), overrides={"w": new}).run(feeds)[0]
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(new), "w"))
    exact = Session(model.SerializeToString()).run(feeds)[0]
    np.testing.assert_array_equal(want, exact)
    np.testing.assert_array_equal(Session(path, overrides={"w": new}).run(feeds)[0], exact)
    assert np.abs(Session(path).run(feeds)[0] - exact).max() > 1
