"""The commands ``pack``, ``unpack`` and ``shrink`` as a user meets them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune import api
from onnxprune.errors import ModelError, RecipeError


def make_pruned(folder: Path, opset: int = 17, sizes: tuple[int, ...] = (64, 128, 96, 10)) -> Path:
    """A pruned network in which one hidden unit of the first layer is dead."""
    from onnx import TensorProto, helper

    rng = np.random.default_rng(0)
    nodes, tensors, value = [], [], "x"
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((fan_in, fan_out)).astype(np.float32)
        weight[rng.random(weight.shape) < 0.9] = 0
        if index == 0:
            weight[:, 5] = 0
        tensors += [
            numpy_helper.from_array(weight, f"w{index}"),
            numpy_helper.from_array(rng.standard_normal(fan_out).astype(np.float32), f"b{index}"),
        ]
        out = "y" if index == len(sizes) - 2 else f"h{index}"
        nodes.append(helper.make_node("Gemm", [value, f"w{index}", f"b{index}"], [f"g{index}"]))
        nodes.append(helper.make_node("Relu", [f"g{index}"], [out]))
        value = out
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", sizes[-1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    path = folder / "pruned.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


@pytest.fixture
def pruned(tmp_path: Path) -> Path:
    return make_pruned(tmp_path)


def test_packing_and_unpacking_a_file(pruned: Path, tmp_path: Path) -> None:
    packed, again = tmp_path / "packed.onnx", tmp_path / "again.onnx"
    report = api.pack(pruned, packed)
    assert report.succeeded
    assert report.totals.packed_bytes == packed.stat().st_size < 0.4 * pruned.stat().st_size
    assert {skipped.name for skipped in report.skipped} == {"b0", "b1", "b2"}
    assert "with graph optimizations disabled" in report.warnings[0]
    assert api.verify(pruned, packed, rtol=0, atol=0).succeeded
    api.unpack(packed, again)
    before, after = (onnx.load(path).graph.initializer for path in (pruned, again))
    assert [t.name for t in before] == [t.name for t in after]
    for old, new in zip(before, after, strict=True):
        assert numpy_helper.to_array(old).tobytes() == numpy_helper.to_array(new).tobytes()


@pytest.mark.parametrize("values", ["float16", "int8", "codebook8"])
def test_a_loss_is_measured_and_said(pruned: Path, tmp_path: Path, values: str) -> None:
    report = api.pack(pruned, tmp_path / "packed.onnx", values=values)
    assert report.verification is not None
    assert report.verification.passed
    assert report.verification.max_abs_error > 0
    assert report.verification.checks == {
        "packed_outputs_equal_unpacked": True,
        "packed_folds_wholly": True,
    }
    assert f"values are stored as {values}" in report.warnings[1]
    assert report.methods == {"values": values, "positions": "auto"}


def test_an_old_opset_is_converted_on_request(tmp_path: Path) -> None:
    pruned, packed = make_pruned(tmp_path, opset=7), tmp_path / "packed.onnx"
    old = api.pack(pruned, packed).totals.packed_bytes
    new = api.pack(pruned, packed, opset=13).totals.packed_bytes
    assert new < old
    assert onnx.load(packed).opset_import[0].version == 13
    assert api.verify(pruned, packed, rtol=0, atol=0).succeeded


@pytest.mark.parametrize("runtime", ["openvino", "reference"])
def test_files_for_other_runtimes_have_no_cumsum(
    pruned: Path, tmp_path: Path, runtime: str
) -> None:
    packed = tmp_path / "packed.onnx"
    api.pack(pruned, packed, runtime=runtime)
    kinds = {node.op_type for node in onnx.load(packed).graph.node}
    assert not kinds & {"CumSum", "GatherElements"}
    assert api.verify(pruned, packed, rtol=0, atol=0).succeeded


def test_requests_that_cannot_be_met(pruned: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.onnx"
    with pytest.raises(RecipeError, match="values cannot be stored as 'int4'"):
        api.pack(pruned, packed, values="int4")
    with pytest.raises(
        RecipeError, match="there is no 'runs' for positions; allowed are auto, bit"
    ):
        api.pack(pruned, packed, positions="runs")
    with pytest.raises(RecipeError, match="there is no 'tvm' for runtime"):
        api.pack(pruned, packed, runtime="tvm")
    with pytest.raises(ModelError, match="cannot be converted to opset 99"):
        api.pack(pruned, packed, opset=99)
    with pytest.raises(ModelError, match="is not packed"):
        api.unpack(pruned, packed)
    assert not packed.exists()
    api.pack(pruned, packed)
    with pytest.raises(ModelError, match="is packed already"):
        api.pack(packed, tmp_path / "twice.onnx")
    with pytest.raises(ModelError, match="unpack it first"):
        api.shrink(packed, tmp_path / "small.onnx")


def test_weights_that_are_inputs_too_need_to_be_frozen(pruned: Path, tmp_path: Path) -> None:
    proto = onnx.load(pruned)
    for tensor in proto.graph.initializer:
        proto.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        )
    pruned.write_bytes(proto.SerializeToString())
    packed = tmp_path / "packed.onnx"
    report = api.pack(pruned, packed)
    assert packed.stat().st_size > 0.9 * pruned.stat().st_size
    assert any("--freeze-inputs" in warning for warning in report.warnings)
    assert not any("is the model pruned" in warning for warning in report.warnings)
    api.pack(pruned, packed, freeze_inputs=True)
    assert packed.stat().st_size < 0.5 * pruned.stat().st_size
    assert api.verify(pruned, packed).succeeded  # constants let onnxruntime fuse what it could not


def test_shrinking_reports_what_it_saved(pruned: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.onnx"
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "shrink", pruned, "-o", small, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    before, after = report["shrunk"]["parameters"]
    assert before - after >= 64 + 1 + 96  # and units of the second layer that nobody reads
    assert report["shrunk"]["multiply_adds"][0] > report["shrunk"]["multiply_adds"][1]
    assert len(report["shrunk"]["latency_ms"]) == 2
    assert report["verification"]["passed"]
    assert api.verify(pruned, small).succeeded


def test_shapes_that_a_file_states_are_those_that_shrinking_left(
    models_folder: Path, tmp_path: Path
) -> None:
    """torch's exporter states the shape of every initializer too; what is stale misleads runtimes."""
    source, pruned = models_folder / "lenet5.onnx", tmp_path / "pruned.onnx"
    small, packed = tmp_path / "small.onnx", tmp_path / "packed.onnx"
    stated = {value.name for value in onnx.load(source).graph.value_info}
    assert "fc1.weight" in stated, "this test can fail"
    api.prune(source, pruned, sparsity=0.5, pattern="channel", nodes_to_exclude=["conv1.weight"])
    api.shrink(pruned, small)
    api.pack(small, packed)
    for path in (small, packed):
        model = onnx.load(path)
        shapes = {t.name: list(t.dims) for t in onnx.load(small).graph.initializer}
        for value in model.graph.value_info:
            if value.name in shapes:
                said = [size.dim_value for size in value.type.tensor_type.shape.dim]
                assert said == shapes[value.name], value.name
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
