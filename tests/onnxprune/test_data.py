from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnxprune.data import load_data, random_data
from onnxprune.errors import DataError
from onnxprune.runtime import InputSpec

FLOAT = np.dtype(np.float32)
X = InputSpec("x", FLOAT, (None, 3))
MASK = InputSpec("mask", np.dtype(np.int64), (None, 2))


def save(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def floats(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_arrays_by_name_with_labels(tmp_path: Path) -> None:
    path = save(
        tmp_path / "d.npz", mask=np.ones((5, 2), np.int64), x=floats(5, 3), labels=np.arange(5)
    )
    data = load_data(path, (X, MASK))
    assert len(data) == 5
    assert list(data.inputs) == ["x", "mask"]
    assert data.labels is not None
    assert [len(feeds["x"]) for feeds in data.batches(2)] == [2, 2, 1]


def test_a_lone_array_stands_for_a_lone_input(tmp_path: Path) -> None:
    data = load_data(save(tmp_path / "d.npz", images=floats(4, 3)), (X,))
    assert list(data.inputs) == ["x"]


def test_a_folder_is_read_in_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    save(folder / "b.npz", x=floats(1, 3) + 100)
    save(folder / "a.npz", x=floats(2, 3))
    data = load_data(folder, (X,))
    assert data.inputs["x"][:, 0].tolist() == [0, 3, 100]


class Reader:
    """The duck type of onnxruntime's CalibrationDataReader."""

    def __init__(self) -> None:
        self.left = 3

    def get_next(self) -> dict[str, np.ndarray] | None:
        self.left -= 1
        return {"x": floats(2, 3)} if self.left >= 0 else None


def feeds_for_test() -> list[dict[str, np.ndarray]]:
    return [{"x": floats(1, 3)} for _ in range(4)]


def test_python_sources() -> None:
    assert len(load_data(Reader(), (X,))) == 6
    assert len(load_data(feeds_for_test(), (X,))) == 4
    assert len(load_data({"x": floats(7, 3)}, (X,))) == 7


def test_module_and_function(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "my_feeds.py").write_text(
        "import numpy as np\ndef feeds():\n    yield {'x': np.ones((2, 3), np.float32)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(load_data("my_feeds:feeds", (X,))) == 2
    with pytest.raises(DataError, match="my_feeds:nothing"):
        load_data("my_feeds:nothing", (X,))


def test_samples_may_carry_the_models_own_batch_axis() -> None:
    spec = InputSpec("state", FLOAT, (2, 1, 4))
    data = load_data({"state": floats(5, 2, 1, 4)}, (spec,))
    assert data.stacked
    assert [feeds["state"].shape for feeds in data.batches(3)] == [(2, 1, 4)] * 5


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": floats(4, 3), "mask": np.ones((4, 2), np.int64)}, r"arrays \['y', 'mask'\]"),
        ({"x": floats(4, 3)}, r"inputs are \['x', 'mask'\]"),
        (
            {"x": floats(4, 3), "mask": np.ones((3, 2), np.int64)},
            "differ in their number of samples",
        ),
        ({"x": floats(4, 3), "mask": np.ones((4, 2), np.int32)}, "'mask' is int32.*takes int64"),
        ({"x": floats(4, 5), "mask": np.ones((4, 2), np.int64)}, r"shape \(4, 5\).*\[any, 3\]"),
        ({"x": floats(0, 3), "mask": np.ones((0, 2), np.int64)}, "no samples"),
        ({"x": np.full((4, 3), np.nan, np.float32), "mask": np.ones((4, 2), np.int64)}, "NaN"),
        ({"x": np.float32(1), "mask": np.ones((4, 2), np.int64)}, "single number"),
    ],
)
def test_data_that_do_not_fit_are_named(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load_data(save(tmp_path / "d.npz", **arrays), (X, MASK))


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "evil.npz"
    np.savez(path, x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="pickled"):
        load_data(path, (X,))


def test_an_array_cannot_declare_more_than_it_holds(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 3)}
    )
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue())
    with pytest.raises(DataError, match="more than the file holds"):
        load_data(path, (X,))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 torn"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz' is not an \.npz"):
        load_data(path, (X,))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        load_data(tmp_path / "nothing.npz", (X,))


def test_fingerprints_tell_data_apart() -> None:
    first = load_data({"x": floats(4, 3)}, (X,))
    again = load_data({"x": floats(4, 3)}, (X,))
    other = load_data({"x": floats(4, 3) + 1}, (X,))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()


def test_random_data_are_seeded_and_fit() -> None:
    specs = (X, MASK, InputSpec("image", np.dtype(np.uint8), (1, None)))
    data = random_data(specs, 3, seed=5)
    again = random_data(specs, 3, seed=5)
    assert data.fingerprint() == again.fingerprint()
    assert {name: array.shape for name, array in data.inputs.items()} == {
        "x": (3, 1, 3),
        "mask": (3, 1, 2),
        "image": (3, 1, 1),
    }
