"""Every layout against two oracles: onnxruntime with elements zeroed by hand, and numpy's own indices.

What counts as a row of one group must be a row of one group in the view of the stored array, and
likewise for columns, however the weight reaches its operator.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from passes.apply import ApplyMasksPass
from passes.weights import collect_weights

spec = importlib.util.spec_from_file_location("graphs", Path(__file__).with_name("graphs.py"))
graphs = importlib.util.module_from_spec(spec)
sys.modules["graphs"] = graphs
spec.loader.exec_module(graphs)


def build(case, links, shape, name, dtype=np.float32):
    """The model in which ``name`` of ``shape`` goes through ``links`` to the node of ``case``."""
    rng = np.random.default_rng(1)
    array = rng.standard_normal(shape).astype(dtype)
    initializers = [numpy_helper.from_array(array, name)]
    initializers += [i for link in links for i in link.initializers]
    initializers += [numpy_helper.from_array(a, n) for n, a in case.extra.items()]
    graph = helper.make_graph(
        [*(link.node for link in links), case.node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.data)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        initializers,
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def run(model: onnx.ModelProto, shape) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options)
    x = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    return session.run(None, {"x": x})[0]


def by_hand(model: onnx.ModelProto, name: str, keep: np.ndarray) -> onnx.ModelProto:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == name:
            array = np.array(numpy_helper.to_array(tensor))
            array[~keep] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, name))
    return changed


def corresponds(seen: np.ndarray, ours: np.ndarray) -> bool:
    """Whether equal labels go with equal labels and different ones with different ones."""
    pairs = set(zip(seen.ravel().tolist(), ours.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def check_views(case, links, weight, shape) -> None:
    stored = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    reached = stored
    for link in links:
        reached = link.forward(reached)
    groups, rows, columns = np.indices(weight.layout.matrix_shape)
    label = {
        axis: weight.layout.array(labels).ravel()[reached]
        for axis, labels in (("group", groups), ("row", rows), ("column", columns))
    }
    group, row, column = case.roles
    many = 10**6
    assert corresponds(group * many + row, label["group"] * many + label["row"])
    assert corresponds(group * many + column, label["group"] * many + label["column"])


@pytest.mark.parametrize("family", graphs.FAMILIES)
@given(data=st.data())
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_zeroing_by_hand_gives_the_same_outputs(family: str, data: st.DataObject) -> None:
    def draw(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    case = graphs.FAMILIES[family](draw)
    links, shape, name = graphs.draw_chain(draw, case.shape, "W")
    model = build(case, links, shape, name)
    loaded = ir.from_proto(model)
    collection = collect_weights(loaded)
    weight = {weight.name: weight for weight in collection.weights}[name]
    check_views(case, links, weight, shape)
    mask = np.random.default_rng(3).random(weight.layout.matrix_shape) < 0.5
    result = ApplyMasksPass({name: mask})(loaded)
    assert result.modified == (not mask.all())
    assert not ApplyMasksPass({name: mask})(loaded).modified, "a second time changes nothing"
    expected = run(by_hand(model, name, weight.layout.array(mask)), case.data)
    assert run(ir.to_proto(loaded), case.data).tobytes() == expected.tobytes()
