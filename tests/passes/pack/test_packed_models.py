"""Packed models in onnxruntime: the same bits as before, and nothing left to decode once loaded."""

from __future__ import annotations

import itertools
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from hwmodel.entropy import entropy_bound_bits
from onnxprune.model_io import load_model, model_bytes
from passes.layout import columns_first
from passes.pack import PackWeightsPass, chain_nodes, packed_names, read_marks
from passes.pack.codes import QuickDelta
from passes.pack.values import parse_values, prepare
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

DTYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
}
OPSETS = (7, 8, 9, 10, 11, 12, 13, 15, 17, 18, 21, 23, 24)


def sparse(shape, density: float, dtype: str = "float32", seed: int = 0, fill: int = 0):
    rng = np.random.default_rng(seed)
    keep = rng.random(shape) < density
    if dtype in {"int8", "uint8"}:
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max + 1, shape).astype(dtype)
        return np.where(keep, values, np.array(fill, dtype))
    values = rng.standard_normal(shape).astype(getattr(ml_dtypes, dtype, dtype))
    return np.where(keep, values, np.zeros((), values.dtype))


def weights_model(weights: dict[str, np.ndarray], opset: int, ir_version: int = 8) -> ir.Model:
    """A model that hands out its weights: each output is an input with a weight below it."""
    nodes, outputs, tensors = [], [], []
    for name, array in weights.items():
        dtype = DTYPES[array.dtype.name]
        tensors.append(helper.make_tensor(name, dtype, array.shape, array.tobytes(), raw=True))
        nodes.append(helper.make_node("Concat", [f"{name}.in", name], [f"{name}.out"], axis=0))
        outputs.append(
            helper.make_tensor_value_info(f"{name}.out", dtype, [None, *array.shape[1:]])
        )
    inputs = [
        helper.make_tensor_value_info(
            f"{name}.in", DTYPES[array.dtype.name], [None, *array.shape[1:]]
        )
        for name, array in weights.items()
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version
    )
    return ir.from_proto(model)


def folded(content: bytes, path: Path, level: str = "ORT_ENABLE_EXTENDED") -> ir.Model:
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return load_model(path)


def check(weights: dict[str, np.ndarray], model: ir.Model, tmp_path: Path, packed: set[str]):
    """The graph that onnxruntime saves holds the weights, bit for bit, and no decoding step."""
    assert set(packed_names(model)) == packed
    marks = read_marks(model)
    assert marks is not None
    prefix = marks.prefix
    content = model_bytes(model)
    dense = ir.from_proto(onnx.ModelProto.FromString(content))
    UnpackWeightsPass()(dense)
    assert {
        name: value.const_value.tobytes() for name, value in dense.graph.initializers.items()
    } == {
        **{
            name: value.const_value.tobytes()
            for name, value in model.graph.initializers.items()
            if not name.startswith(prefix)
        },
        **{name: weights[name].tobytes() for name in packed},
    }
    onnx.checker.check_model(onnx.ModelProto.FromString(content))
    saved = folded(content, tmp_path / "optimized.onnx")
    assert not chain_nodes(saved, prefix)
    assert not [name for name in saved.graph.initializers if name.startswith(prefix)]
    for name, array in weights.items():
        tensor = saved.graph.initializers[name].const_value
        assert tensor is not None
        assert tensor.shape.numpy() == array.shape
        assert tensor.tobytes() == array.tobytes(), name


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("positions", ["bitmask", "delta", "nested", "rice"])
def test_every_code_folds_wholly_in_every_opset(opset: int, positions: str, tmp_path: Path) -> None:
    if positions in {"delta", "rice"} and opset < 9:
        pytest.skip("opset 7 and 8 have no Scatter, which this code needs")
    weights = {
        "a": sparse((40, 300), 0.1, seed=1),
        "b": sparse((7, 5, 3, 3), 0.3, seed=2),
        "c": sparse((300, 70), 0.02, seed=3),
        "d": np.zeros((30, 30), np.float32),
        "tiny": sparse((2, 3), 0.5, seed=4),
    }
    model = weights_model(weights, opset)
    PackWeightsPass(positions)(model)
    check(weights, model, tmp_path, set(weights) - {"tiny"})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("positions", ["bitmask", "delta", "nested", "rice"])
def test_every_dtype_comes_back_bit_for_bit(dtype: str, positions: str, tmp_path: Path) -> None:
    weights = {
        "a": sparse((64, 200), 0.1, dtype, seed=1, fill=3),
        "b": sparse((100, 90), 0.25, dtype, seed=2, fill=3),
    }
    if dtype.startswith(("float", "bfloat")):
        weights["a"][0, :4] = [-0.0, np.nan, np.inf, 5e-8]
    model = weights_model(weights, 21 if dtype == "bfloat16" else 13, ir_version=10)
    PackWeightsPass(positions)(model)
    check(weights, model, tmp_path, {"a", "b"})


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_is_left_out_of_a_quantised_weight_is_its_zero_point(
    dtype: str, per_channel: bool, tmp_path: Path
) -> None:
    """Pruning writes the zero point of each channel; the most frequent one is not stored."""
    rng = np.random.default_rng(0)
    shape = (128, 64)
    info = np.iinfo(dtype)
    points = np.array([7] * 56 + [9] * 8 if per_channel else 7, dtype)
    array = rng.integers(info.min, info.max + 1, shape).astype(dtype)
    array = np.where(rng.random(shape) < 0.1, array, points)
    scale = np.full(points.shape, 0.02, np.float32)
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = [
        onnx.numpy_helper.from_array(one, name)
        for one, name in ((array, "q"), (scale, "s"), (points, "z"))
    ]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in zip("xy", shape, strict=True)
    ]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model = ir.from_proto(proto)
    (weight,) = collect_weights(model).weights
    before = len(model_bytes(model))
    PackWeightsPass()(model)
    stored = np.count_nonzero(array != 7)  # the eight channels of another zero point are stored
    assert per_channel == (stored > weight.nonzeros())
    limit = 1.05 * entropy_bound_bits(array.size, stored, 8) / 8 + 150 + 4096
    assert len(model_bytes(model)) - (before - array.nbytes) < limit
    sessions = [
        ort.InferenceSession(content) for content in (proto.SerializeToString(), model_bytes(model))
    ]
    x = rng.standard_normal((2, 128)).astype(np.float32)
    outputs = [session.run(None, {"x": x})[0].tobytes() for session in sessions]
    assert outputs[0] == outputs[1]
    UnpackWeightsPass()(model)
    assert model.graph.initializers["q"].const_value.tobytes() == array.tobytes()


@pytest.mark.parametrize("values", ["float16", "int8", "codebook2", "codebook5", "codebook256"])
@pytest.mark.parametrize("opset", [8, 9, 13])
def test_lossy_values_fold_to_what_unpacking_gives(values: str, opset: int, tmp_path: Path) -> None:
    array = sparse((60, 300), 0.1, seed=1)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in (("x", 60), ("y", 300))
    ]
    graph = helper.make_graph(
        nodes, "g", info[:1], info[1:], [onnx.numpy_helper.from_array(array, "w")]
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    sizes = {}
    for form in ("keep", values):
        model = ir.from_proto(proto)
        PackWeightsPass(values=form)(model)
        assert packed_names(model) == ("w",)
        sizes[form] = len(model_bytes(model))
    assert sizes[values] < sizes["keep"]
    marks = read_marks(model)
    assert marks is not None
    saved = folded(model_bytes(model), tmp_path / "optimized.onnx")
    assert not chain_nodes(saved, marks.prefix)
    UnpackWeightsPass()(model)
    dense = model.graph.initializers["w"].const_value.numpy()
    assert dense.dtype == np.float32
    assert saved.graph.initializers["w"].const_value.tobytes() == dense.tobytes()
    prepared = prepare(array, parse_values(values), columns_first(array.shape))
    expected = prepared.array.astype(np.float32)
    if prepared.scale is not None:
        expected = expected * prepared.scale
    assert dense.tobytes() == expected.tobytes()
    assert (dense[array == 0] == 0).all()
    if values.startswith("codebook"):
        assert np.unique(dense).size <= int(values.removeprefix("codebook")) + 1


def test_auto_takes_what_is_smallest(tmp_path: Path) -> None:
    weights = {"w": sparse((300, 400), 0.1)}
    sizes = {}
    for positions in ("auto", "bitmask", "delta", "rice"):
        model = weights_model(weights, 17)
        PackWeightsPass(positions)(model)
        sizes[positions] = len(model_bytes(model))
        check(weights, model, tmp_path, {"w"})
    assert sizes["auto"] == min(sizes.values())
    assert len(set(sizes.values())) == 3


def test_passing_twice_changes_nothing_more() -> None:
    model = weights_model({"w": sparse((300, 400), 0.1)}, 17)
    assert PackWeightsPass()(model).modified
    content = model_bytes(model)
    assert not PackWeightsPass()(model).modified
    assert model_bytes(model) == content


def test_names_never_collide(tmp_path: Path) -> None:
    weights = {"~0": sparse((300, 400), 0.1), "~~1": sparse((300, 400), 0.1, seed=1)}
    model = weights_model(weights, 17)
    PackWeightsPass()(model)
    marks = read_marks(model)
    assert marks is not None
    assert marks.prefix == "~~~"
    check(weights, model, tmp_path, set(weights))


def test_dense_weights_stay_and_nothing_is_claimed() -> None:
    model = weights_model({"w": sparse((300, 400), 1.0)}, 17)
    before = model_bytes(model)
    assert not PackWeightsPass()(model).modified
    assert model_bytes(model) == before


def test_what_the_caller_may_override_stays() -> None:
    for ir_version, stays in ((3, False), (8, True)):
        model = weights_model({"w": sparse((300, 400), 0.1)}, 9, ir_version)
        model.graph.inputs.append(model.graph.initializers["w"])
        PackWeightsPass()(model)
        assert (packed_names(model) == ()) == stays
        onnx.checker.check_model(onnx.ModelProto.FromString(model_bytes(model)))


@pytest.mark.parametrize("ir_version", [4, 8, 10])
def test_unpacking_gives_the_file_back(ir_version: int) -> None:
    weights = {
        "a": sparse((40, 300), 0.1, seed=1),
        "dense": sparse((30, 30), 1, seed=2),
        "b": sparse((300, 70), 0.02, seed=3),
        "small": sparse((2, 3), 0.5, seed=4),
        "c": sparse((300, 70), 0.5, "float16", seed=3),
    }
    model = weights_model(weights, 17, ir_version)
    before = model_bytes(model)
    assert PackWeightsPass()(model).modified
    assert len(model_bytes(model)) < len(before)
    UnpackWeightsPass()(model)
    assert model_bytes(model) == before


def test_unpacking_a_model_that_is_not_packed_is_refused() -> None:
    with pytest.raises(ir.passes.PreconditionError, match="not packed"):
        UnpackWeightsPass()(weights_model({"w": sparse((300, 400), 0.1)}, 17))


@pytest.mark.parametrize("shape", [(1, 64), (64, 1), (257, 255), (2, 3, 5, 7, 11)])
@pytest.mark.parametrize("opset", [9, 13])
def test_odd_shapes(shape: tuple[int, ...], opset: int, tmp_path: Path) -> None:
    weights = {
        f"w{number}": sparse((16 * shape[0], *shape[1:]), density, seed=number)
        for number, density in enumerate((0.003, 0.05, 0.4))
    }
    for positions in ("bitmask", "delta", "rice"):
        model = weights_model(weights, opset)
        PackWeightsPass(positions)(model)
        check(weights, model, tmp_path, set(packed_names(model)))


def test_a_stream_past_what_float_counts_exactly(tmp_path: Path) -> None:
    """More than 2^24 elements in an opset whose running sums are products with triangles."""
    weights = {"w": np.zeros((4097, 4097), np.float32)}
    rng = np.random.default_rng(0)
    weights["w"].ravel()[rng.integers(0, 4097**2, 30_000)] = 1.5
    weights["w"][-1, -1] = 2
    model = weights_model(weights, 9)
    PackWeightsPass()(model)
    check(weights, model, tmp_path, {"w"})


def test_every_level_of_optimization_computes_the_same() -> None:
    weights = {"a": sparse((64, 200), 0.1), "b": sparse((100, 90), 0.5, seed=1)}
    model = weights_model(weights, 17)
    PackWeightsPass()(model)
    feeds = {f"{name}.in": array[:1] for name, array in weights.items()}
    for level, (name, array) in itertools.product(
        ("DISABLE_ALL", "ENABLE_BASIC", "ENABLE_EXTENDED", "ENABLE_ALL"), weights.items()
    ):
        options = ort.SessionOptions()
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, f"ORT_{level}")
        session = ort.InferenceSession(model_bytes(model), options)
        (output,) = session.run([f"{name}.out"], feeds)
        assert output[1:].tobytes() == array.tobytes()


def test_old_opsets_are_refused_with_a_way_out() -> None:
    model = weights_model({"w": sparse((300, 400), 0.1)}, 6)
    with pytest.raises(ir.passes.PreconditionError, match=r"opset 6.*--opset"):
        PackWeightsPass()(model)


def matmul_model(array: np.ndarray, opset: int = 17) -> ir.Model:
    """x times a constant, so that the weight has a layout."""
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size])
        for name, size in zip("xy", array.shape, strict=True)
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        info[:1],
        info[1:],
        [onnx.numpy_helper.from_array(array, "w")],
    )
    return ir.from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    )


@pytest.mark.parametrize("opset", [8, 9, 17])
@pytest.mark.parametrize(("keep", "size"), [(2, 4), (1, 4), (1, 8), (3, 4)])
def test_n_of_m_along_the_reduction_takes_less_than_a_bitmask(
    keep: int, size: int, opset: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    groups = rng.standard_normal((200, 64, size)).astype(np.float32)
    groups[np.argsort(rng.random(groups.shape), axis=2) >= keep] = 0
    groups[3, 5] = 0  # a group may hold fewer
    array = np.ascontiguousarray(groups.reshape(200, -1).T)  # (inputs, outputs)
    sizes = {}
    for positions in ("auto", "groups", "bitmask"):
        model = matmul_model(array, opset)
        PackWeightsPass(positions)(model)
        sizes[positions] = len(model_bytes(model))
        check({"w": array}, model, tmp_path, {"w"})
    assert sizes["auto"] == sizes["groups"] < sizes["bitmask"]


@pytest.mark.parametrize("block", [(1, 4), (4, 1), (8, 8), (1, 256), (128, 1)])
def test_blocks_take_less_than_a_bitmask(block: tuple[int, int], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tall, wide = block
    keep = rng.random((128 // tall, 256 // wide)) < 0.3
    matrix = rng.standard_normal((128, 256)).astype(np.float32)
    matrix *= np.repeat(np.repeat(keep, tall, axis=0), wide, axis=1)
    array = np.ascontiguousarray(matrix.T)
    sizes = {}
    for positions in ("auto", "bitmask"):
        model = matmul_model(array + np.float32(0))
        PackWeightsPass(positions)(model)
        sizes[positions] = len(model_bytes(model))
        check({"w": array + np.float32(0)}, model, tmp_path, {"w"})
    assert sizes["auto"] < sizes["bitmask"]
    values = 4 * np.count_nonzero(array)
    # One bit a block, and a block of zeros that all others point to.
    assert sizes["auto"] < values + 128 * 256 / 8 / (tall * wide) + 4 * tall * wide + 1400


@pytest.mark.parametrize(("ir_version", "functions"), [(7, 0), (8, 1), (10, 1)])
def test_chains_of_one_form_become_calls_of_one_function(
    ir_version: int, functions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("passes.pack.plan.LARGE_ELEMENTS", 10_000)
    monkeypatch.setattr("passes.pack.plan.QUICK_CODES", (QuickDelta(6),))
    monkeypatch.setattr("passes.pack.plan.SLOWER_BYTES", 0.2)
    weights = {f"w{at}": sparse((150, 100 + at), 0.1, "float16", seed=at) for at in range(6)}
    weights["other"] = sparse((150, 100), 0.5, seed=9)
    model = weights_model(weights, 17, ir_version)
    before = model_bytes(model)
    PackWeightsPass()(model)
    assert len(model.functions) == functions
    check(weights, model, tmp_path, set(weights))
    for level in ("ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"):
        saved = folded(model_bytes(model), tmp_path / "optimized.onnx", level)
        assert not [node for node in saved.graph if node.op_type != "Concat"]
    UnpackWeightsPass()(model)
    assert model_bytes(model) == before


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_large_weights_of_every_width_of_steps(
    bits: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """float32 is put in place by MaxUnpool, other dtypes by ScatterElements."""
    monkeypatch.setattr("passes.pack.plan.LARGE_ELEMENTS", 10_000)
    monkeypatch.setattr("passes.pack.plan.QUICK_CODES", (QuickDelta(bits),))
    monkeypatch.setattr("passes.pack.plan.SLOWER_BYTES", 10)
    weights = {"w": sparse((150, 101), 0.2, dtype, seed=bits, fill=3)}
    if dtype == "float32":
        weights["w"][0, :4] = [-0.0, np.nan, np.inf, 5e-8]
    for opset in (11, 17, 21):
        model = weights_model(weights, opset, ir_version=7)
        PackWeightsPass()(model)
        kinds = {node.op_type for node in model.graph}
        assert "BitShift" in kinds or bits == 8
        assert ("MaxUnpool" in kinds) == (dtype == "float32")
        check(weights, model, tmp_path, {"w"})


def test_one_array_of_the_size_of_a_large_weight_is_made_on_the_way(tmp_path: Path) -> None:
    """By MaxUnpool; the rest of the chain is as small as what is stored, so that loading is quick."""
    weights = {"w": sparse((1024, 1024), 0.1)}
    model = weights_model(weights, 17)
    PackWeightsPass()(model)
    inferred = onnx.shape_inference.infer_shapes(
        onnx.ModelProto.FromString(model_bytes(model)), data_prop=True
    )
    sizes = [
        int(np.prod([axis.dim_value for axis in value.type.tensor_type.shape.dim]))
        for value in inferred.graph.value_info
        if value.name.startswith("~")
    ]
    assert sum(size >= 1 << 20 for size in sizes) == 1
    check(weights, model, tmp_path, {"w"})


def damaged(change) -> ir.Model:
    """A packed model whose file was changed by hand."""
    model = weights_model({"w": sparse((300, 400), 0.1)}, 17)
    PackWeightsPass("delta")(model)
    proto = onnx.ModelProto.FromString(model_bytes(model))
    change(proto)
    return ir.from_proto(proto)


def enlarge(proto: onnx.ModelProto) -> None:
    expand = next(node for node in proto.graph.node if node.op_type == "Expand")
    size = next(t for t in proto.graph.initializer if t.name == expand.input[1])
    size.raw_data = np.array([1 << 40], np.int64).tobytes()


def misplace(proto: onnx.ModelProto) -> None:
    values = next(t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT)
    values.dims[0] -= 1
    values.raw_data = values.raw_data[:-4]


def smuggle(proto: onnx.ModelProto) -> None:
    next(node for node in proto.graph.node if node.op_type == "CumSum").op_type = "NonZero"


def orphan(proto: onnx.ModelProto) -> None:
    del proto.graph.node[2]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [enlarge, misplace, smuggle, orphan])
def test_damaged_and_hostile_chains_are_refused(change) -> None:
    with pytest.raises(ir.passes.PreconditionError, match="a packed weight is damaged"):
        UnpackWeightsPass()(damaged(change))
