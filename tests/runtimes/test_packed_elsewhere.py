"""Packed models outside onnxruntime: each runtime computes the bits that it computes for the dense."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxprune.model_io import load_model, save_model
from passes.apply import ApplyMasksPass
from passes.masks import keep_count, keep_largest
from passes.pack import PackWeightsPass, packed_names
from passes.weights import collect_weights

HERE = Path(__file__).parent

MODELS = (
    "cifar10_resnet20_bn.onnx",
    "mnist_fc_256x2.onnx",
    "mnist_self_attention_pgd_medium.onnx",
    "superres_espcn_pytorch.onnx",
)


def prepare(source: Path, folder: Path, sparsity: float = 0.9, **options) -> tuple[Path, Path]:
    """A pruned model and the same one packed."""
    model = load_model(source)
    masks = {
        weight.name: keep_largest(
            np.abs(weight.matrices().astype(np.float32)), keep_count(weight.elements, sparsity)
        )
        for weight in collect_weights(model).weights
    }
    ApplyMasksPass(masks)(model)
    dense, packed = folder / "dense.onnx", folder / "packed.onnx"
    save_model(model, dense)
    PackWeightsPass(**options)(model)
    assert packed_names(model)
    save_model(model, packed)
    return dense, packed


def feeds_for(path: Path) -> dict[str, np.ndarray]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    sizes = {
        value.name: [size if isinstance(size, int) else 1 for size in value.shape]
        for value in session.get_inputs()
    }
    return {name: rng.random(shape, np.float32) for name, shape in sizes.items()}


def openvino_outputs(path: Path, feeds: dict[str, np.ndarray]) -> tuple[list[np.ndarray], int]:
    """Outputs, and how many operations are left after OpenVINO's own folding."""
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra: bench)")
    core = openvino.Core()
    # By default it computes in bfloat16 where the processor can.
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(path), "CPU")
    results = compiled(feeds)
    left = len(compiled.get_runtime_model().get_ops())
    return [np.array(results[output]) for output in compiled.outputs], left


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cumsum", [True, False])
def test_openvino(name: str, cumsum: bool, shared_models: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (extra: bench)")
    dense, packed = prepare(shared_models / name, tmp_path, cumsum=cumsum)
    feeds = feeds_for(dense)
    expected, nodes = openvino_outputs(dense, feeds)
    outputs, left = openvino_outputs(packed, feeds)
    for old, new in zip(expected, outputs, strict=True):
        assert new.tobytes() == old.tobytes()
    if not cumsum:
        assert left == nodes, "sums by matrix products are folded wholly"


@pytest.mark.parametrize("name", ["dtln_1_lstm.onnx", "cms_deepjet_run3.onnx"])
def test_openvino_takes_recurrent_weights_that_it_can_fold(
    name: str, shared_models: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed (extra: bench)")
    dense, packed = prepare(shared_models / name, tmp_path, cumsum=False)
    feeds = feeds_for(dense)
    expected, nodes = openvino_outputs(dense, feeds)
    outputs, left = openvino_outputs(packed, feeds)
    assert left == nodes
    for old, new in zip(expected, outputs, strict=True):
        assert new.tobytes() == old.tobytes()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar10_resnet20_bn.onnx", {}),
        ("cifar10_resnet20_bn.onnx", {"cumsum": False}),
        ("dtln_1_lstm.onnx", {}),
        ("mnist_self_attention_pgd_medium.onnx", {}),
        # The evaluator has no Scatter, which opset 9 and 10 have in place of ScatterElements.
        ("mnist_fc_256x2.onnx", {"positions": "bitmask"}),
        ("mnist_cntk.onnx", {}),
    ],
)
def test_reference_evaluator(name: str, options, shared_models: Path, tmp_path: Path) -> None:
    from onnx.reference import ReferenceEvaluator

    dense, packed = prepare(shared_models / name, tmp_path, **options)
    feeds = feeds_for(dense)
    expected = ReferenceEvaluator(str(dense)).run(None, feeds)
    outputs = ReferenceEvaluator(str(packed)).run(None, feeds)
    for old, new in zip(expected, outputs, strict=True):
        assert new.tobytes() == old.tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "cifar10_resnet20_bn.onnx",
        "dtln_1_lstm.onnx",
        *(pytest.param(name, marks=pytest.mark.slow) for name in (*MODELS[1:], "mnist_cntk.onnx")),
    ],
)
def test_onnxruntime_web_under_node(name: str, shared_models: Path, tmp_path: Path) -> None:
    dense, packed = prepare(shared_models / name, tmp_path)
    assert_same_on_the_web(dense, packed, tmp_path)


def test_large_weights_on_the_web(tmp_path: Path) -> None:
    """They are rebuilt by operators that small ones do not use: BitShift, MatMulInteger, MaxUnpool."""
    dense, packed = tmp_path / "dense.onnx", tmp_path / "packed.onnx"
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((1200, 1000)).astype(np.float32)
    weight[rng.random(weight.shape) < 0.9] = 0
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 1200])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 1000])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )
    opsets = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    dense.write_bytes(model.SerializeToString())
    packing = load_model(dense)
    PackWeightsPass()(packing)
    assert "MaxUnpool" in {node.op_type for node in packing.graph}
    save_model(packing, packed)
    assert_same_on_the_web(dense, packed, tmp_path)


def assert_same_on_the_web(dense: Path, packed: Path, tmp_path: Path) -> None:
    if not (HERE / "node_modules" / "onnxruntime-web").is_dir():
        if "node" in os.environ.get("ONNXPRUNE_REQUIRE", "").split():
            pytest.fail("onnxruntime-web is not installed: npm install --prefix tests/runtimes")
        pytest.skip("onnxruntime-web is not installed: npm install --prefix tests/runtimes")
    feeds = feeds_for(dense)
    listed = []
    for number, (key, array) in enumerate(feeds.items()):
        array.tofile(tmp_path / f"feed{number}.bin")
        listed.append(
            {
                "name": key,
                "type": "float32",
                "dims": list(array.shape),
                "path": str(tmp_path / f"feed{number}.bin"),
            }
        )
    job = {"models": [str(dense), str(packed)], "feeds": listed, "out": str(tmp_path)}
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run(
        ["node", HERE / "web.mjs", tmp_path / "job.json"],
        check=True,
        capture_output=True,
        timeout=120,
    )
    outputs = [(tmp_path / f"{number}.bin").read_bytes() for number in (0, 1)]
    assert outputs[0]
    assert outputs[0] == outputs[1]


def same_in_onnxruntime(dense: Path, other: Path, feeds: dict[str, np.ndarray]) -> bool:
    outputs = [
        ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)
        for path in (dense, other)
    ]
    return all(
        np.allclose(old, new, rtol=1e-4, atol=1e-5) for old, new in zip(*outputs, strict=True)
    )


@pytest.mark.parametrize("tool", ["onnxslim", pytest.param("onnxsim", marks=pytest.mark.slow)])
def test_simplifiers_expand_what_is_packed(tool: str, shared_models: Path, tmp_path: Path) -> None:
    """They compute constants and write them out: right, and as large as before packing."""
    pytest.importorskip(tool, reason=f"{tool} is not installed (extra: bench)")
    dense, packed = prepare(shared_models / "cifar10_resnet20_bn.onnx", tmp_path)
    slim = tmp_path / "slim.onnx"
    # In a process of its own: these tools change global state and warn.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", tool, packed, slim],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert same_in_onnxruntime(dense, slim, feeds_for(dense))
    assert slim.stat().st_size > 0.9 * dense.stat().st_size > 3 * packed.stat().st_size


@pytest.mark.filterwarnings("ignore")
def test_dynamic_quantization_of_a_packed_model(shared_models: Path, tmp_path: Path) -> None:
    """Weights are found once the file is preprocessed, which folds the chains."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dense, packed = prepare(shared_models / "mnist_self_attention_pgd_medium.onnx", tmp_path)
    sizes = {}
    for path in (dense, packed):
        ready, small = path.with_suffix(".ready.onnx"), path.with_suffix(".int8.onnx")
        quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        quantize_dynamic(str(ready), str(small), weight_type=QuantType.QInt8)
        sizes[path] = small.stat().st_size
        onnx.checker.check_model(str(small))
    assert same_in_onnxruntime(
        dense.with_suffix(".int8.onnx"), packed.with_suffix(".int8.onnx"), feeds_for(dense)
    )
    assert sizes[packed] < 1.05 * sizes[dense]


@pytest.mark.filterwarnings("ignore")
def test_static_quantization_of_a_packed_model(shared_models: Path, tmp_path: Path) -> None:
    """Preprocessing makes of it what it makes of the dense model, so the rest is the same too."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    dense, packed = prepare(shared_models / "cifar10_resnet20_bn.onnx", tmp_path)
    feeds = feeds_for(dense)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter([feeds])

        def get_next(self):
            return next(self.left, None)

    quantized = []
    for path in (dense, packed):
        ready, small = path.with_suffix(".ready.onnx"), path.with_suffix(".int8.onnx")
        quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
        quantize_static(str(ready), str(small), Reader(), weight_type=QuantType.QInt8)
        quantized.append(small)
    outputs = [ort.InferenceSession(path).run(None, feeds) for path in quantized]
    for old, new in zip(*outputs, strict=True):
        assert new.tobytes() == old.tobytes()
    # And what is quantised can be packed in turn, without loss.
    model = load_model(quantized[0])
    again = quantized[0].with_suffix(".packed.onnx")
    PackWeightsPass()(model)
    save_model(model, again)
    assert again.stat().st_size < 0.6 * quantized[0].stat().st_size
    for old, new in zip(outputs[0], ort.InferenceSession(again).run(None, feeds), strict=True):
        assert new.tobytes() == old.tobytes()
