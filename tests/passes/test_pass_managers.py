"""Our passes in a user's own PassManager, beside those of onnx-ir and onnxscript."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common

from passes.apply import ApplyMasksPass
from passes.magnitude import PruneByMagnitudePass
from passes.weights import collect_weights

W = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


def model() -> ir.Model:
    """A MatMul by a Constant node, an Identity too many, and an initializer that nobody reads."""
    nodes = [
        helper.make_node("Constant", [], ["w"], "const", value=numpy_helper.from_array(W)),
        helper.make_node("Identity", ["w"], ["v"], "same"),
        helper.make_node("MatMul", ["x", "v"], ["y"], "mul"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(W, "unread")],
    )
    opsets = [helper.make_opsetid("", 17)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def run(made: ir.Model) -> np.ndarray:
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto, full_check=True)
    x = np.eye(6, dtype=np.float32)
    return ort.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]


def test_beside_onnx_irs_own_passes() -> None:
    made = model()
    manager = ir.passes.PassManager(
        [
            common.LiftConstantsToInitializersPass(),
            common.IdentityEliminationPass(),
            PruneByMagnitudePass({"w": 6}),
            common.RemoveUnusedNodesPass(),
            common.TopologicalSortPass(),
            common.CheckerPass(full_check=True),
        ],
        steps=3,
        early_stop=True,
    )
    result = manager(made)
    assert result.modified
    assert not manager(made).modified, "a second run finds nothing to do"
    assert list(made.graph.initializers) == ["w"]
    assert np.count_nonzero(run(made)) == 6


def test_beside_onnxscripts_passes() -> None:
    rewriter = pytest.importorskip("onnxscript.rewriter")
    common_rules = pytest.importorskip("onnxscript.rewriter.rules.common")
    made = model()
    rules = [common_rules.cast_cast_rule, common_rules.dropout_inference_rule]
    manager = ir.passes.PassManager(
        [
            rewriter.RewritePass(rules),
            PruneByMagnitudePass({"w": 6}),
            common.IdentityEliminationPass(),
        ],
        steps=2,
    )
    assert manager(made).modified
    assert np.count_nonzero(run(made)) == 6


def test_before_and_after_onnxscripts_optimizer() -> None:
    optimizer = pytest.importorskip("onnxscript.optimizer")
    made = model()
    PruneByMagnitudePass({"w": 6})(made)
    expected = run(made)
    optimizer.optimize(made)
    assert np.array_equal(run(made), expected)
    (weight,) = collect_weights(made).weights
    assert weight.nonzeros() == 6
    assert PruneByMagnitudePass({weight.name: 3})(made).modified
    assert np.count_nonzero(run(made)) == 3


def test_a_clone_keeps_its_weights() -> None:
    made = model()
    clone = made.clone()
    PruneByMagnitudePass({"w": 6})(clone)
    assert np.count_nonzero(run(made)) == 24
    assert np.count_nonzero(run(clone)) == 6


def test_passes_are_frozen_and_refuse_with_a_sentence() -> None:
    for step in (PruneByMagnitudePass({"w": 6}), ApplyMasksPass({})):
        assert step.in_place
        with pytest.raises(AttributeError):
            step.keep = {}
    wrong = ApplyMasksPass({"w": np.ones((1, 4, 5), np.bool_)})
    with pytest.raises(ir.passes.PreconditionError, match=r"has shape \(1, 4, 5\), its weight"):
        wrong(model())


def test_masks_that_keep_everything_change_nothing() -> None:
    made = model()
    before = ir.to_proto(made).SerializeToString()
    assert not ApplyMasksPass({"w": np.ones((1, 4, 6), np.bool_)})(made).modified
    assert not PruneByMagnitudePass({"w": 24})(made).modified
    assert ir.to_proto(made).SerializeToString() == before


def test_models_written_by_onnx_ir_itself(tmp_path: Path) -> None:
    """A lazily pruned tensor is a tensor like any other to onnx-ir, external data included."""
    made = model()
    PruneByMagnitudePass({"w": 6})(made)
    common.LiftConstantsToInitializersPass()(made)
    ir.save(made, tmp_path / "m.onnx", external_data="m.data", size_threshold_bytes=0)
    x = np.eye(6, dtype=np.float32)
    (y,) = ort.InferenceSession(str(tmp_path / "m.onnx")).run(None, {"x": x})
    assert np.count_nonzero(y) == 6
