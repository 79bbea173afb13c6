"""External data: in the form in which they came, checked before they are trusted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

import onnxprune.external
import onnxprune.model_io
from onnxprune import api
from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, save_model
from passes.weights import collect_weights

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def written(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


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


@pytest.mark.parametrize("allocation", ["loss", "lamp", "owl"])
def test_calibration_runs_on_models_with_external_data(tmp_path: Path, allocation: str) -> None:
    """From anywhere: the pieces that are run hold what lies beside the model, and the result is the same."""
    (tmp_path / "away").mkdir()
    outside = chain(tmp_path / "away" / "m.onnx", save_as_external_data=True, size_threshold=0)
    inside = tmp_path / "m.onnx"
    onnx.save(onnx.load(outside), inside)
    data = {"x": array(64, 32)}
    for model in (outside, inside):
        api.prune(
            model,
            model.with_name("pruned.onnx"),
            sparsity=0.5,
            method="obs",
            allocation=allocation,
            data=data,
        )
    found = [
        {
            w.name: w.array().tobytes()
            for w in collect_weights(load_model(folder / "pruned.onnx")).weights
        }
        for folder in (outside.parent, tmp_path)
    ]
    assert found[0] == found[1]
    assert (tmp_path / "away" / "pruned.onnx.data").exists()


def test_calibration_runs_on_branches_with_external_data(tmp_path: Path) -> None:
    branches = [
        helper.make_graph(
            [helper.make_node("MatMul", ["x", f"w{name}"], [f"y{name}"])],
            name,
            [],
            [helper.make_tensor_value_info(f"y{name}", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array(32, 24), f"w{name}")],
        )
        for name in ("then", "else")
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["condition"]),
        helper.make_node(
            "If", ["condition"], ["h"], then_branch=branches[0], else_branch=branches[1]
        ),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16])],
        [
            numpy_helper.from_array(array(24, 16), "w"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "away").mkdir()
    path = tmp_path / "away" / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, size_threshold=0)
    report = api.prune(
        path, tmp_path / "pruned.onnx", sparsity=0.5, method="obs", data={"x": array(64, 32)}
    )
    assert {w.name for w in report.weights or ()} == {"w", "wthen", "welse"}
    assert not [w for w in report.warnings if "magnitude" in w and "no batch" not in w]


def test_a_whole_run_works_on_a_model_with_external_data(tmp_path: Path) -> None:
    from onnxprune.recipe import load_recipe

    (tmp_path / "away").mkdir()
    path = chain(tmp_path / "away" / "m.onnx", save_as_external_data=True, size_threshold=0)
    data = {"x": array(200, 32)}
    fields = {"max_drop": 0.9, "search.trials": 8, "search.confidence": 0.5}
    report = api.compress(path, data, tmp_path / "run", load_recipe(None, fields))
    assert report.verification is not None
    assert report.verification.passed
    steps = [
        {"step": "calibrate"},
        {"step": "prune", "sparsity": 0.5},
        {"step": "pack"},
        {"step": "verify"},
    ]
    report = api.compress(
        path, data, tmp_path / "steps", load_recipe(None, {"max_drop": 1.0, "steps": steps})
    )
    assert report.verification is not None
    assert report.verification.passed
    assert any(file.suffix == ".data" for file in (tmp_path / "steps").iterdir())
    ort.InferenceSession(tmp_path / "steps" / "model.onnx")
    ort.InferenceSession(tmp_path / "steps" / "model.packed.onnx")
