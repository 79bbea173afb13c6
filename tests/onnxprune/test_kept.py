"""What pruning keeps: everything but the weights, in the form in which it came."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

import onnxprune.model_io
from onnxprune import api
from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, model_bytes, save_model
from passes.weights import collect_weights

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def odd_model() -> onnx.ModelProto:
    """A model with everything in it that tools like to lose."""
    weight = numpy_helper.from_array(array(12, 8), "w")
    weight.doc_string = "a weight"
    weight.metadata_props.add(key="tensor", value="kept")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="named", doc_string="with words"),
        helper.make_node("Blur", ["h"], ["b"], domain="custom.ops", strength=0.25),
        helper.make_node("local", ["b"], ["y"], domain="mine"),
    ]
    nodes[0].metadata_props.add(key="node", value="kept")
    nodes[1].attribute.append(
        helper.make_attribute(
            "kernel",
            helper.make_sparse_tensor(
                numpy_helper.from_array(array(1), "values"),
                numpy_helper.from_array(np.array([2]), "indices"),
                [4],
            ),
        )
    )
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8], "an output")],
        [weight],
        doc_string="a graph",
    )
    graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["N", 8]))
    graph.value_info.append(helper.make_tensor_value_info("left_over", TensorProto.INT8, [3]))
    graph.quantization_annotation.add(tensor_name="h").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="nowhere"
    )
    function = helper.make_function(
        "mine", "local", ["a"], ["c"], [helper.make_node("Relu", ["a"], ["c"], doc_string="in")],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    function.doc_string = "a function"
    model = helper.make_model(
        graph,
        functions=[function],
        opset_imports=[
            helper.make_opsetid("custom.ops", 3),
            helper.make_opsetid("", 17),
            helper.make_opsetid("mine", 1),
        ],
        ir_version=8,
        producer_name="somebody",
        doc_string="a model",
    )
    model.metadata_props.add(key="author", value="nobody")
    model.model_version = 7
    model.training_info.add().algorithm.name = "sgd"
    return model


def written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def test_a_round_trip_loses_nothing(tmp_path: Path) -> None:
    path = written(odd_model(), tmp_path / "m.onnx")
    model = load_model(path)
    size = save_model(model, tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == path.read_bytes() == model_bytes(model)
    assert size == path.stat().st_size


def test_pruning_changes_the_bytes_of_the_weight_and_nothing_else(tmp_path: Path) -> None:
    path = written(odd_model(), tmp_path / "m.onnx")
    api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    before, after = onnx.load(path), onnx.load(tmp_path / "p.onnx")
    pruned = after.graph.initializer[0].raw_data
    assert np.count_nonzero(np.frombuffer(pruned, np.float32)) == 48
    after.graph.initializer[0].raw_data = before.graph.initializer[0].raw_data
    assert after.SerializeToString(deterministic=True) == path.read_bytes()


def test_what_a_pass_changes_is_written_and_the_rest_is_kept(tmp_path: Path) -> None:
    path = written(odd_model(), tmp_path / "m.onnx")
    model = load_model(path)
    node = model.graph[0]
    new = ir.node("Relu", [node.outputs[0]], name="added")
    new.outputs[0].name = "relu"
    node.outputs[0].replace_all_uses_with(new.outputs[0])
    new.replace_input_with(0, node.outputs[0])
    model.graph.insert_after(node, [new])
    model.metadata_props["step"] = "two"
    save_model(model, tmp_path / "o.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "o.onnx")
    assert [n.op_type for n in after.graph.node] == ["MatMul", "Relu", "Blur", "local"]
    assert after.graph.node[2].input == ["relu"]
    assert after.graph.node[2].attribute == before.graph.node[1].attribute
    assert after.graph.node[0] == before.graph.node[0]
    assert after.training_info == before.training_info
    assert list(after.graph.value_info) == list(before.graph.value_info)
    assert {p.key: p.value for p in after.metadata_props} == {"author": "nobody", "step": "two"}


def test_real_models_survive_a_round_trip_byte_by_byte(shared_models: Path, tmp_path: Path) -> None:
    paths = sorted(shared_models.rglob("*.onnx"))
    assert len(paths) >= 49
    for path in paths:
        save_model(load_model(path), tmp_path / "copy.onnx")
        before, after = (
            onnx.load(p, load_external_data=False) for p in (path, tmp_path / "copy.onnx")
        )
        for tensor in [*before.graph.initializer, *after.graph.initializer]:
            for entry in tensor.external_data:
                entry.value = "data" if entry.key == "location" else entry.value
        assert before == after, path.name


def test_sparse_initializers_and_constants_become_dense(tmp_path: Path) -> None:
    dense = np.zeros((4, 3), np.float32)
    dense[[0, 2, 3], [1, 0, 2]] = [1.5, -2.0, 3.0]
    pairs = np.argwhere(dense)
    values = dense[dense != 0]

    def sparse(name: str, indices: np.ndarray) -> onnx.SparseTensorProto:
        return helper.make_sparse_tensor(
            numpy_helper.from_array(values, name), numpy_helper.from_array(indices), [4, 3]
        )

    flat = np.ravel_multi_index(tuple(pairs.T), (4, 3))
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], sparse_value=sparse("c", pairs)),
            helper.make_node("MatMul", ["x", "a"], ["p"]),
            helper.make_node("MatMul", ["x", "c"], ["q"]),
            helper.make_node("Add", ["p", "q"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 3])],
        sparse_initializer=[sparse("a", flat)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = written(model, tmp_path / "m.onnx")
    loaded = load_model(path)
    found = {w.name: w.array() for w in collect_weights(loaded).weights}
    assert found.keys() == {"a", "c"}
    assert all(np.array_equal(w, dense) for w in found.values())
    save_model(loaded, tmp_path / "o.onnx")
    x = array(2, 4)
    outputs = [
        ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (path, tmp_path / "o.onnx")
    ]
    assert outputs[0].tobytes() == outputs[1].tobytes()


@pytest.mark.parametrize(
    ("dims", "indices", "message"),
    [
        ([2**40, 2**20], [[0, 0]], "more than an ONNX file can hold"),
        ([4, 3], [[4, 0]], "has an index outside its shape"),
        ([4, 3], [[-1, 0]], "has an index outside its shape"),
        ([-4, 3], [[0, 0]], "has shape"),
        ([4, 3], [[0, 0], [1, 1]], "has 1 values and indices of shape"),
    ],
)
def test_hostile_sparse_tensors_are_refused(
    tmp_path: Path, dims: list[int], indices: list, message: str
) -> None:
    model = odd_model()
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(numpy_helper.from_array(array(1), "s"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices)))
    sparse.dims.extend(dims)
    with pytest.raises(ModelError, match=message):
        load_model(written(model, tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("raw_data", b"1234", "wants 384 bytes and has 4"),
        ("dims", [-1, 8], r"has shape \[-1, 8\]"),
        ("dims", [2**40, 2**20], "wants"),
    ],
)
def test_tensors_that_contradict_their_shape_are_refused(
    tmp_path: Path, field: str, value: object, message: str
) -> None:
    model = odd_model()
    tensor = model.graph.initializer[0]
    if field == "dims":
        tensor.dims[:] = value
    else:
        setattr(tensor, field, value)
    with pytest.raises(ModelError, match=message):
        load_model(written(model, tmp_path / "m.onnx"))


def chain(path: Path, **save: object) -> Path:
    """Three MatMuls, saved with external data."""
    sizes = [32, 40, 24, 16]
    names = ["a", "b", "c"]
    tensors = [
        numpy_helper.from_array(array(i, o), n)
        for n, i, o in zip(names, sizes, sizes[1:], strict=False)
    ]
    nodes = [
        helper.make_node("MatMul", [source, n], [target])
        for n, source, target in zip(names, ["x", "h1", "h2"], ["h1", "h2", "y"], strict=True)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, **save)
    return path


def layout(path: Path) -> list[tuple[str, int, int]]:
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    infos = [ExternalDataInfo(t) for t in tensors]
    return [(i.location, i.offset or 0, i.length or 0) for i in infos]


def outputs_of(path: Path) -> bytes:
    x = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    return ort.InferenceSession(str(path)).run(None, {"x": x})[0].tobytes()


def test_one_data_file_stays_one_with_the_same_offsets(tmp_path: Path) -> None:
    path = chain(
        tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    report = api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    before, after = layout(path), layout(tmp_path / "p.onnx")
    assert [place[1:] for place in before] == [place[1:] for place in after]
    assert {place[0] for place in after} == {"p.onnx.data"}
    assert report.model.bytes == path.stat().st_size + (tmp_path / "weights.bin").stat().st_size
    api.prune(path, tmp_path / "q.onnx", sparsity=0.0)
    assert outputs_of(tmp_path / "q.onnx") == outputs_of(path), "two results share no data file"
    assert outputs_of(tmp_path / "p.onnx") != outputs_of(path)
    pruned = collect_weights(load_model(tmp_path / "p.onnx"))
    assert sum(w.nonzeros() for w in pruned.weights) == pruned.elements // 2


def test_a_model_may_be_written_over_itself(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data",
                 size_threshold=0)  # fmt: skip
    api.prune(path, path, sparsity=0.75)
    collection = collect_weights(load_model(path))
    assert sum(w.nonzeros() for w in collection.weights) * 4 == collection.elements
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "m.onnx.data"]


def test_a_data_file_for_each_tensor_stays_so(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = chain(
        tmp_path / "in" / "m.onnx", save_as_external_data=True, all_tensors_to_one_file=False,
        size_threshold=0,
    )  # fmt: skip
    for _ in range(2):  # the second time over what is there
        api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    assert len({place[0] for place in layout(path)}) == 3
    assert [place[0] for place in layout(tmp_path / "p.onnx")] == [
        f"p.onnx.data/{name}" for name in "abc"
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "p.onnx", "p.onnx.data"]
    outputs_of(tmp_path / "p.onnx")


def test_checksums_are_those_of_the_new_bytes(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data.add(key="checksum", value="0" * 40)
    written(model, path)
    api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    data = (tmp_path / "p.onnx.data").read_bytes()
    for tensor in onnx.load(tmp_path / "p.onnx", load_external_data=False).graph.initializer:
        info = ExternalDataInfo(tensor)
        part = data[info.offset : info.offset + info.length]
        assert info.checksum == hashlib.sha1(part, usedforsecurity=False).hexdigest()


def test_tensors_that_share_their_bytes_go_on_sharing_them(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    copy = model.graph.initializer.add()
    copy.CopyFrom(model.graph.initializer[0])
    copy.name = "twin"
    model.graph.node.append(helper.make_node("MatMul", ["x", "twin"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 40]))
    written(model, path)
    save_model(load_model(path), tmp_path / "same.onnx")
    assert layout(tmp_path / "same.onnx")[3] == layout(tmp_path / "same.onnx")[0]
    api.prune(path, tmp_path / "p.onnx", sparsity=0.5, nodes_to_exclude=["twin"])
    assert layout(tmp_path / "p.onnx")[3] != layout(tmp_path / "p.onnx")[0]
    kept = {w.name: w.nonzeros() for w in collect_weights(load_model(tmp_path / "p.onnx")).weights}
    assert (kept["a"], kept["twin"]) == (640, 1280)


def test_one_file_becomes_two_only_when_it_grows_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = chain(tmp_path / "m.onnx")
    api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    assert not (tmp_path / "p.onnx.data").exists()
    monkeypatch.setattr(onnxprune.model_io, "MAX_FILE_BYTES", 10_000)
    api.prune(path, tmp_path / "q.onnx", sparsity=0.5)
    assert (tmp_path / "q.onnx.data").exists()
    assert outputs_of(tmp_path / "q.onnx") == outputs_of(tmp_path / "p.onnx")


def test_a_failed_write_leaves_no_data_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = chain(tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    before = sorted(p.name for p in tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnxprune.external, "_copy", fail)
    with pytest.raises(onnxprune.errors.OutputError, match="No space left on device"):
        api.prune(path, tmp_path / "p.onnx", sparsity=0.5)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_hard_links_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    path = chain(tmp_path / "m.onnx", save_as_external_data=True, location="d", size_threshold=0)
    (tmp_path / "elsewhere").hardlink_to(tmp_path / "d")
    with pytest.raises(ModelError, match="has several hard links"):
        load_model(path)


def test_what_goes_wrong_elsewhere_goes_right_here(tmp_path: Path) -> None:
    """Weights renamed, ties broken into copies, the old weight left beside the new one."""
    embedding = array(64, 32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["shared", "ids"], ["e"]),
            helper.make_node("MatMul", ["e", "first"], ["h"]),
            helper.make_node("Transpose", ["shared"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["h", "t"], ["logits"]),
            helper.make_node("MatMul", ["h", "first"], ["again"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [3])],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [3, 64]),
            helper.make_tensor_value_info("again", TensorProto.FLOAT, [3, 32]),
        ],
        [
            numpy_helper.from_array(embedding, "shared"),
            numpy_helper.from_array(array(32, 32), "first"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = written(model, tmp_path / "m.onnx")
    api.prune(path, tmp_path / "p.onnx", sparsity=0.5, embeddings=True)
    after = onnx.load(tmp_path / "p.onnx")
    assert [t.name for t in after.graph.initializer] == ["shared", "first"]
    assert after.graph.node == model.graph.node
    assert (tmp_path / "p.onnx").stat().st_size <= path.stat().st_size
    shared, first = (numpy_helper.to_array(t) for t in after.graph.initializer)
    assert (np.count_nonzero(shared), np.count_nonzero(first)) == (1024, 512)
    ids = np.array([1, 5, 60])
    logits, again = ort.InferenceSession(str(tmp_path / "p.onnx")).run(None, {"ids": ids})
    hidden = shared[ids] @ first
    assert np.allclose(logits, hidden @ shared.T, atol=1e-4)
    assert np.allclose(again, hidden @ first, atol=1e-4)


def test_pruned_models_stay_pruned_through_pack_and_encode(tmp_path: Path) -> None:
    """int8 behind DequantizeLinear, in a Constant node and as an initializer."""
    quantized = RNG.integers(-128, 128, (16, 8)).astype(np.int8)
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(array(8, 8))),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"]),
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("MatMul", ["h", "c"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [
            numpy_helper.from_array(quantized, "q"),
            numpy_helper.from_array(np.float32(0.1), "s"),
            numpy_helper.from_array(np.int8(5), "z"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = written(model, tmp_path / "m.onnx")
    pruned = tmp_path / "p.onnx"
    report = api.prune(path, pruned, sparsity=0.75)
    assert report.totals is not None
    assert report.totals.nonzeros == 48
    api.encode(pruned, tmp_path / "b.swb")
    api.decode(tmp_path / "b.swb", tmp_path / "b.npz")
    with np.load(tmp_path / "b.npz") as decoded:
        assert np.count_nonzero(decoded["q"] != 5) == 32
        assert np.count_nonzero(decoded["c"]) == 16
    api.pack(pruned, tmp_path / "k.onnx")
    checked = api.verify(pruned, tmp_path / "k.onnx", rtol=0, atol=0).verification
    assert checked is not None
    assert checked.passed
