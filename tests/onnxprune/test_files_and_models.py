from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import ModelError, OutputError
from onnxprune.files import replacing, write_text
from onnxprune.model_io import load_model, save_model


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")

    def fail() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [p.name for p in tmp_path.iterdir()] == ["out.txt"]
    assert target.read_text() == "old"


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"

    def fill() -> None:
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*out\.txt': No space left on device"):
        fill()
    assert not list(tmp_path.iterdir())


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"folder .* does not exist"):
        write_text(tmp_path / "missing" / "out.txt", "x")
    with pytest.raises(OutputError, match="it is a folder"):
        write_text(tmp_path, "x")


def test_models_read_and_write(mlp: Path, tmp_path: Path) -> None:
    model = load_model(mlp)
    save_model(model, tmp_path / "copy.onnx")
    original, copy = onnx.load(mlp), onnx.load(tmp_path / "copy.onnx")
    assert [n.name for n in copy.graph.node] == [n.name for n in original.graph.node]
    for left, right in zip(original.graph.initializer, copy.graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(left), numpy_helper.to_array(right))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file", "is not an ONNX model"),
        (b"\x00" * 100, "is not an ONNX model"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_files_that_are_no_models(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_truncated_models_never_pass_for_whole_ones(mlp: Path, tmp_path: Path) -> None:
    content = mlp.read_bytes()
    path = tmp_path / "cut.onnx"
    for cut in range(0, len(content) - 1, max(1, len(content) // 60)):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelError):
            load_model(path)


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no file"):
        load_model(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load_model(tmp_path)


def external(mlp: Path, folder: Path) -> Path:
    folder.mkdir()
    path = folder / "model.onnx"
    onnx.save(
        onnx.load(mlp), path, save_as_external_data=True, location="model.data", size_threshold=0
    )
    return path


def relocate(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(proto.SerializeToString())


def test_external_data_must_lie_inside_the_models_folder(mlp: Path, tmp_path: Path) -> None:
    path = external(mlp, tmp_path / "m")
    load_model(path)
    (tmp_path / "secret").write_bytes(b"\x00" * 10_000)
    for location in ("../secret", str(tmp_path / "secret")):
        relocate(path, location)
        with pytest.raises(ModelError, match="outside the model's folder"):
            load_model(path)
    (tmp_path / "m" / "link").symlink_to(tmp_path / "secret")
    relocate(path, "link")
    with pytest.raises(ModelError, match="outside the model's folder"):
        load_model(path)


def test_external_data_must_be_there_and_long_enough(mlp: Path, tmp_path: Path) -> None:
    path = external(mlp, tmp_path / "m")
    data = path.with_name("model.data")
    data.write_bytes(data.read_bytes()[:-100])
    with pytest.raises(ModelError, match="copy that file again"):
        load_model(path)
    data.unlink()
    with pytest.raises(ModelError, match="which is not there"):
        load_model(path)
