from __future__ import annotations

import io
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.blob import CHECKED, PREAMBLE, BlobEntry, is_blob, open_blob, write_blob
from hwmodel.blob_index import ALIGNMENT, Record, read_record, write_index
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.encodings.rice import Rice
from hwmodel.errors import BlobError
from hwmodel.tensor import DTYPES, TensorSpec
from hwmodel.varint import Cursor, put_signed, put_unsigned

GOLDEN = Path(__file__).parents[1] / "golden" / "every_encoding.swb"


def entries() -> list[BlobEntry]:
    """Two tensors for each encoding, drawn from fixed integers so that their bytes never change."""
    result = []
    dtypes = [DTYPES[name] for name in sorted(DTYPES)]
    for number, name in enumerate([*encoding_names(), *encoding_names()]):
        dtype = dtypes[number % len(dtypes)]
        values = np.arange(60) * 7 % 8 * (np.arange(60) % (number % 7 + 2) == 0)
        array = values.reshape(5, 3, 4).astype(dtype)
        spec = TensorSpec(f"layer{number}.weight", array.shape, array.dtype.name, 0)
        config = {"chunk": 25, "align": 4, "values": "codebook"} if number >= 13 else {}
        result.append(BlobEntry(spec, array, get_encoding(name, config)))
    return result


def written() -> bytes:
    file = io.BytesIO()
    write_blob(file, entries())
    return file.getvalue()


def test_the_format_does_not_change_by_accident() -> None:
    assert written() == GOLDEN.read_bytes()


def test_old_blobs_are_still_read() -> None:
    with open_blob(GOLDEN) as blob:
        for entry in entries():
            assert blob.read(entry.spec.name).tobytes() == entry.array.tobytes()


def test_segments_are_aligned_and_the_gaps_are_zero(tmp_path: Path) -> None:
    content = written()
    path = tmp_path / "b.swb"
    path.write_bytes(content)
    covered = bytearray(len(content))
    with open_blob(path) as blob:
        for tensor in blob.tensors:
            for segment in filter(lambda one: one.bytes, tensor.segments[1:]):
                assert segment.offset % ALIGNMENT == 0
                covered[segment.offset : segment.offset + segment.bytes] = b"\x01" * segment.bytes
    _, _, _, offset, _, _ = PREAMBLE.unpack(content[: PREAMBLE.size])
    data = range(ALIGNMENT, offset)
    assert all(content[i] == 0 for i in data if not covered[i])
    assert is_blob(path)


def test_names_must_differ() -> None:
    twice = [entries()[0], entries()[0]]
    with pytest.raises(ValueError, match="twice"):
        write_blob(io.BytesIO(), twice)


def rewrite(content: bytes, change: object, count: int = 0, spoil: object = bytes) -> bytes:
    """The blob with its records changed and the checksum right: a hostile blob."""
    _, version, _, offset, length, tensors = PREAMBLE.unpack(content[: PREAMBLE.size])
    cursor, records = Cursor(content[offset : offset + length]), []
    for _ in range(tensors):
        records.append(read_record(cursor, records[-1].name if records else b"")[0])
    change(records)  # type: ignore[operator]
    index = spoil(write_index(records))  # type: ignore[operator]
    fields = (offset, len(index), count or len(records))
    head = PREAMBLE.pack(content[:8], version, 0, *fields)
    checksum = zlib.crc32(index, zlib.crc32(head[CHECKED:]))
    return PREAMBLE.pack(content[:8], version, checksum, *fields) + content[64:offset] + index


def nothing(records: list[Record]) -> None:
    del records


def set_first(**changes: object) -> object:
    """Change the record of the first tensor, a dense one."""

    def change(records: list[Record]) -> None:
        records[0] = replace(records[0], **changes)

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (2**40, 2**20)}, "more than a blob"),
        ({"shape": (2**40, 2**40, 2**40)}, "more than a blob"),
        ({"shape": (2**63, 0)}, "is longer than"),
        ({"shape": (1,) * 9}, "rank 9"),
        ({"dtype": 0}, "no dtype of number 0"),
        ({"zero_point": 7}, "zero point 7"),
        ({"zero_point": -(2**62)}, "zero point -46"),
        ({"encoding": 99}, "no encoding of number 99"),
        ({"values": 2}, "values 2"),
        ({"align": 17}, "alignment 2"),
        ({"chunk": 2**50}, "needs chunk from 0"),
        ({"lengths": (0, 0, 2**50), "crcs": (0, 0, 0)}, "outside the data"),
        ({"lengths": (2**60, 2**60, 2**60)}, "outside the data"),
        ({"name": b"\xff"}, "can't decode"),
        ({"name": b"layer1.weight"}, "names a tensor twice"),
    ],
)
def test_hostile_indices_are_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = tmp_path / "b.swb"
    path.write_bytes(rewrite(written(), set_first(**changes)))
    with pytest.raises(BlobError, match=message):
        open_blob(path)


@pytest.mark.parametrize("count", [1, 25, 27, 2**32 - 1])
def test_a_wrong_number_of_tensors_is_refused(tmp_path: Path, count: int) -> None:
    path = tmp_path / "b.swb"
    path.write_bytes(rewrite(written(), nothing, count))
    with pytest.raises(BlobError, match="its index"):
        open_blob(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda index: index[:-1], "should follow byte"),
        (lambda index: index + b"\0", "follow the last tensor"),
        (lambda index: index[:4] + b"\x80\0" + index[5:], "as short as it can be"),
        (lambda index: index[:4] + b"\xff" * 11 + index[5:], "as short as it can be"),
    ],
)
def test_a_spoilt_index_is_refused(tmp_path: Path, spoil: object, message: str) -> None:
    path = tmp_path / "b.swb"
    path.write_bytes(rewrite(written(), nothing, spoil=spoil))
    with pytest.raises(BlobError, match=message):
        open_blob(path)


@given(numbers=st.lists(st.integers(-(2**63) + 1, 2**63 - 1)))
def test_numbers_come_back(numbers: list[int]) -> None:
    content = bytearray()
    put_signed(content, *numbers)
    put_unsigned(content, *map(abs, numbers))
    cursor = Cursor(bytes(content))
    assert [cursor.signed() for _ in numbers] == numbers
    assert [cursor.unsigned() for _ in numbers] == [*map(abs, numbers)]
    assert cursor.place == len(content)


def test_a_chunk_is_read_without_the_rest(tmp_path: Path) -> None:
    """All data but the chunk's own may be wrong."""
    array = (np.arange(5000) % 13 == 0).astype(np.int8)
    path = tmp_path / "b.swb"
    for name in encoding_names():
        encoding = get_encoding(name, {"chunk": 512, "align": 16})
        file = io.BytesIO()
        shape = (50, 100)
        spec = TensorSpec("w", shape, "int8")
        write_blob(file, [BlobEntry(spec, array.reshape(shape), encoding)])
        path.write_bytes(file.getvalue())
        with open_blob(path) as blob:
            *tables, data = blob.find("w").segments
            segments = {one.name: blob.segments("w")[one.name] for one in tables}
            starts = encoding.chunk_bytes(spec, segments, data.bytes)
            chunk = blob.read_chunk("w", 3)
        content = bytearray(file.getvalue())
        for place in range(data.bytes):
            if not starts[3] <= place < starts[4]:
                content[data.offset + place] ^= 0xFF
        path.write_bytes(content)
        with open_blob(path) as blob:
            assert blob.read_chunk("w", 3).tobytes() == chunk.tobytes()
            with pytest.raises(BlobError, match="checksum"):
                blob.read("w")
            with pytest.raises(BlobError, match="there is no chunk"):
                blob.read_chunk("w", starts.size - 1)


def test_a_tensor_of_zeros_that_takes_no_bytes_can_be_read(tmp_path: Path) -> None:
    """A reader believes 65536 bytes for each that is there, so a writer fills the file up."""
    path = tmp_path / "b.swb"
    array = np.zeros((1000, 5000), np.float32)
    with path.open("wb") as file:
        write_blob(file, [BlobEntry(TensorSpec("w", array.shape, "float32"), array, Rice())])
    assert path.stat().st_size < 1000
    with open_blob(path) as blob:
        assert not blob.read("w").any()


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_damage_anywhere_is_noticed(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A flipped bit is refused, or lies in the zero bytes between segments and changes nothing."""
    content = bytearray(written())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("blob") / "b.swb"
    path.write_bytes(content)
    try:
        with open_blob(path) as blob:
            for entry in entries():
                assert blob.read(entry.spec.name).tobytes() == entry.array.tobytes()
    except BlobError:
        pass


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = written()
    path = tmp_path / "b.swb"
    for cut in range(0, len(content), 29):
        path.write_bytes(content[:cut])
        with pytest.raises(BlobError):
            open_blob(path)


def test_without_numba_the_bytes_are_the_same(tmp_path: Path) -> None:
    """The loops that numba compiles are plain Python where it is missing."""
    code = f"""
import sys
sys.modules["numba"] = None
import importlib.util
spec = importlib.util.spec_from_file_location("blobs", {__file__!r})
blobs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blobs)
assert blobs.written() == blobs.GOLDEN.read_bytes()
blobs.test_old_blobs_are_still_read()
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
