"""Packing models with external data, of more than 2 GB, and weights that onnxruntime does not fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from onnxprune import api
from onnxprune.errors import ModelError
from onnxprune.verify import folds_wholly
from passes.pack import FOLD_LIMIT_OPTION

TYPES = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.float64): TensorProto.DOUBLE}


def write_products(
    path: Path, shapes: list[tuple[int, int]], densities: list[float], dtype: type = np.float32
) -> None:
    """A chain of products whose weights are written one by one to a file beside the model."""
    rng = np.random.default_rng(0)
    kind, data = TYPES[np.dtype(dtype)], path.with_suffix(".data")
    tensors = []
    with data.open("wb") as file:
        for number, (shape, density) in enumerate(zip(shapes, densities, strict=True)):
            if density < 1:
                array = np.zeros(shape, dtype)
                size = int(array.size * density)
                array.ravel()[rng.integers(0, array.size, size)] = rng.standard_normal(size)
            else:
                array = rng.random(shape, dtype) + 1
            tensor = onnx.TensorProto(name=f"w{number}", dims=shape, data_type=kind)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": data.name, "offset": file.tell(), "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensors.append(tensor)
            array.tofile(file)
    nodes = [
        helper.make_node("MatMul", [f"h{number}", f"w{number}"], [f"h{number + 1}"])
        for number in range(len(shapes))
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("h0", kind, [1, shapes[0][0]])],
        [helper.make_tensor_value_info(f"h{len(shapes)}", kind, [1, shapes[-1][1]])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString(deterministic=True))


def outputs(path: Path, limit: str | None = None, saved: Path | None = None) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if limit is not None:
        options.add_session_config_entry(FOLD_LIMIT_OPTION, limit)
    if saved is not None:
        options.optimized_model_filepath = str(saved)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", saved.name + ".data"
        )
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_min_size_in_bytes", "1024"
        )
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (feed,) = session.get_inputs()
    kind = np.float64 if "double" in feed.type else np.float32
    x = np.random.default_rng(1).standard_normal(feed.shape).astype(kind)
    return session.run(None, {feed.name: x})[0]


def data_of(path: Path) -> dict[str, bytes]:
    """The weights of a model by name, and that they all stand in its data file."""
    model = onnx.load(path, load_external_data=False)
    assert {t.external_data[0].value for t in model.graph.initializer} == {f"{path.name}.data"}
    return {t.name: t.raw_data for t in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("opset", [None, 18])
def test_external_data_stays_external(tmp_path: Path, opset: int | None) -> None:
    dense, packed, again = (tmp_path / f"{name}.onnx" for name in ("dense", "packed", "again"))
    write_products(dense, [(300, 200), (200, 250), (250, 100)], [0.1, 0.05, 1.0])
    report = api.pack(dense, packed, opset=opset)
    data = tmp_path / "packed.onnx.data"
    assert report.totals.packed_bytes == packed.stat().st_size + data.stat().st_size
    assert report.totals.packed_bytes < 0.5 * dense.with_suffix(".data").stat().st_size
    assert packed.stat().st_size < 4000, "what is large stands in the data file"
    assert folds_wholly(packed)
    assert api.verify(dense, packed, rtol=0, atol=0).succeeded
    api.unpack(packed, again)
    assert data_of(again) == {t.name: t.raw_data for t in onnx.load(dense).graph.initializer}
    dense.with_suffix(".data").unlink()
    with pytest.raises(ModelError, match=r"dense\.data"):
        api.pack(dense, tmp_path / "other.onnx")
    assert not list(tmp_path.glob("other*"))


def test_what_onnxruntime_does_not_fold_stays_dense_or_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is lowered from 1 GiB on both sides; see the slow test for the limit itself."""
    monkeypatch.setattr("onnxprune.packing.FOLD_LIMIT_BYTES", 1 << 18)
    dense, packed = tmp_path / "dense.onnx", tmp_path / "packed.onnx"
    write_products(dense, [(300, 300), (300, 100)], [0.1, 0.1])
    report = api.pack(dense, packed)
    (reason,) = [skipped.reason for skipped in report.skipped if skipped.name == "w0"]
    assert "262144 bytes" in reason
    assert "--large" in reason
    assert FOLD_LIMIT_OPTION in reason
    assert any("--large" in warning for warning in report.warnings)
    expected = outputs(dense)
    assert outputs(packed).tobytes() == expected.tobytes()
    report = api.pack(dense, packed, large=True)
    assert not [skipped for skipped in report.skipped if skipped.name == "w0"]
    assert any(FOLD_LIMIT_OPTION in warning for warning in report.warnings)
    for limit, left in (("262144", True), ("0", False)):
        saved = tmp_path / "saved.onnx"
        # A weight that is no constant is multiplied by another kernel, which rounds otherwise.
        np.testing.assert_allclose(outputs(packed, limit, saved), expected, rtol=1e-4, atol=1e-4)
        kinds = {node.op_type for node in onnx.load(saved, load_external_data=False).graph.node}
        assert (kinds != {"MatMul"}) == left


@pytest.mark.slow
def test_a_weight_of_more_than_a_gibibyte(tmp_path: Path) -> None:
    dense, packed = tmp_path / "dense.onnx", tmp_path / "packed.onnx"
    write_products(dense, [(11_700, 11_700), (11_700, 64)], [0.01, 0.1], np.float64)
    report = api.pack(dense, packed)
    assert [s.name for s in report.skipped] == ["w0"]
    assert FOLD_LIMIT_OPTION in report.skipped[0].reason
    assert report.totals.packed_bytes > 11_700**2 * 8
    report = api.pack(dense, packed, large=True)
    assert not report.skipped
    assert report.totals.packed_bytes < 0.02 * 11_700**2 * 8
    saved = tmp_path / "saved.onnx"
    assert outputs(packed, "0", saved).tobytes() == outputs(dense).tobytes()
    kinds = {node.op_type for node in onnx.load(saved, load_external_data=False).graph.node}
    assert kinds == {"MatMul"}


@pytest.mark.slow
def test_a_model_of_more_than_two_gigabytes(tmp_path: Path) -> None:
    """Nine weights of 265 MB; most of it stays dense, so that the packed model is large too."""
    dense, packed, again = (tmp_path / f"{name}.onnx" for name in ("dense", "packed", "again"))
    write_products(dense, [(5760, 5760)] * 9, [0.02, *[1.0] * 8], np.float64)
    assert dense.with_suffix(".data").stat().st_size > 2**31
    report = api.pack(dense, packed)
    assert report.totals.packed_bytes > 2**30 * 1.9
    assert packed.stat().st_size < 10_000
    api.unpack(packed, again)
    one, other = (
        path.with_name(path.stem + end) for path, end in ((dense, ".data"), (again, ".onnx.data"))
    )
    assert one.stat().st_size <= other.stat().st_size < 1.001 * one.stat().st_size
    assert outputs(again).tobytes() == outputs(packed).tobytes()
