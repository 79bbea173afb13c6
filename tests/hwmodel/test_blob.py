from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.blob import CHECKED, PREAMBLE, BlobEntry, is_blob, open_blob, write_blob
from hwmodel.blob_index import ALIGNMENT, MAX_NAMES
from hwmodel.blob_records import Record, RecordReader, Settings, write_index
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.encodings.rice import Rice
from hwmodel.errors import BlobError
from hwmodel.select import best_encoding, share_tables
from hwmodel.tensor import DTYPES, TensorSpec
from hwmodel.varint import Cursor, put_signed, put_unsigned

if TYPE_CHECKING:
    from collections.abc import Sequence

GOLDEN = Path(__file__).parents[1] / "golden" / "every_encoding.swb"
LATER = {"segments": GOLDEN.with_name("segments.swb")}
"""Encodings that came after the blob of them all, each with a blob of its own."""
FIRST = [name for name in encoding_names() if name not in LATER]


def entries(names: Sequence[str] = FIRST) -> list[BlobEntry]:
    """Two tensors for each encoding, drawn from fixed integers so that their bytes never change."""
    result = []
    dtypes = [DTYPES[name] for name in sorted(DTYPES)]
    for number, name in enumerate([*names, *names]):
        dtype = dtypes[number % len(dtypes)]
        values = np.arange(60) * 7 % 8 * (np.arange(60) % (number % 7 + 2) == 0)
        array = values.reshape(5, 3, 4).astype(dtype)
        spec = TensorSpec(f"layer{number}.weight", array.shape, array.dtype.name, 0)
        config = {"chunk": 25, "align": 4, "values": "codebook"} if number >= len(names) else {}
        result.append(BlobEntry(spec, array, get_encoding(name, config)))
    return result


def written(names: Sequence[str] = FIRST) -> bytes:
    file = io.BytesIO()
    write_blob(file, entries(names))
    return file.getvalue()


GOLDENS = pytest.mark.parametrize(
    ("names", "path"),
    [(FIRST, GOLDEN), *(([name], path) for name, path in LATER.items())],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)


@GOLDENS
def test_the_format_does_not_change_by_accident(names: list[str], path: Path) -> None:
    assert written(names) == path.read_bytes()


@GOLDENS
def test_old_blobs_are_still_read(names: list[str], path: Path) -> None:
    with open_blob(path) as blob:
        for entry in entries(names):
            assert blob.read(entry.spec.name).tobytes() == entry.array.tobytes()


def test_segments_are_aligned_and_the_gaps_are_zero(tmp_path: Path) -> None:
    content = written()
    path = tmp_path / "b.swb"
    path.write_bytes(content)
    covered = bytearray(len(content))
    _, _, _, index, _, _ = PREAMBLE.unpack(content[: PREAMBLE.size])
    with open_blob(path) as blob:
        assert any(tensor.segments[-1].offset < index for tensor in blob.tensors)
        assert any(tensor.segments[-1].offset > index for tensor in blob.tensors)
        for tensor in blob.tensors:
            for segment in filter(lambda one: one.bytes, tensor.segments[1:]):
                if segment.offset >= index:  # small tensors lie in the index
                    assert tensor.encoding.align == 1
                    continue
                assert segment.offset % ALIGNMENT == 0
                covered[segment.offset : segment.offset + segment.bytes] = b"\x01" * segment.bytes
    data = range(ALIGNMENT, index)
    assert all(content[i] == 0 for i in data if not covered[i])
    assert is_blob(path)


def test_names_must_differ() -> None:
    twice = [entries()[0], entries()[0]]
    with pytest.raises(ValueError, match="twice"):
        write_blob(io.BytesIO(), twice)


def rewrite(content: bytes, change: object, count: int = 0, spoil: object = bytes) -> bytes:
    """The blob with its records changed and the checksum right: a hostile blob."""
    _, version, _, offset, length, tensors = PREAMBLE.unpack(content[: PREAMBLE.size])
    reader = RecordReader(content[offset : offset + length])
    records = [reader.next()[0] for _ in range(tensors)]
    change(records)  # type: ignore[operator]
    index = spoil(write_index(records))  # type: ignore[operator]
    fields = (offset, len(index), count or len(records))
    head = PREAMBLE.pack(content[:8], version, 0, *fields)
    checksum = zlib.crc32(index, zlib.crc32(head[CHECKED:]))
    return PREAMBLE.pack(content[:8], version, checksum, *fields) + content[64:offset] + index


def nothing(records: list[Record]) -> None:
    del records


SETTINGS = {one.name for one in fields(Settings)}


def set_first(**changes: object) -> object:
    """Change the record of the first tensor that lies before the index."""

    def change(records: list[Record]) -> None:
        [first, *_] = (i for i, record in enumerate(records) if record.inside is None)
        own = {name: value for name, value in changes.items() if name in SETTINGS}
        rest = {name: value for name, value in changes.items() if name not in SETTINGS}
        settings = replace(records[first].settings, **own)
        records[first] = replace(records[first], settings=settings, **rest)

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (2**40, 2**20)}, "more than a blob"),
        ({"shape": (2**40, 2**40, 2**40)}, "more than a blob"),
        ({"shape": (2**63, 0)}, "is longer than"),
        ({"shape": (1,) * 9}, "rank 9"),
        ({"dtype": 0}, "no dtype of number 0"),
        ({"zero_point": 777}, "zero point 777"),
        ({"zero_point": -(2**62)}, "zero point -46"),
        ({"encoding": 15}, "no encoding of number 15"),
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


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\x11\x40\0\0\0", "record before, which is none in dense"),
        (b"\x11\x80\0\0\0", "there is none in its encoding"),
        (b"\x11\0\x80", "begin with the byte 128"),
        (b"\x11\0\x20\0\0\0\0\0", "begin with the byte 32"),
        (b"\x11\0\x40\0\0\0\0\0", "a chunk of 0 elements"),
        (b"\x11\x20\0\0\0\x05\0", "5 bytes should follow"),
    ],
)
def test_records_that_share_what_is_not_there_are_refused(
    tmp_path: Path, record: bytes, message: str
) -> None:
    path = tmp_path / "b.swb"
    path.write_bytes(rewrite(written(), lambda records: records.clear(), 1, lambda _: record))
    with pytest.raises(BlobError, match=message):
        open_blob(path)


def test_names_cannot_grow_beyond_what_is_there(tmp_path: Path) -> None:
    """Each name may be the one before and a byte more: a thousand of those are half a million."""
    first = b"\x11\x20\0" + b"\x04name" + b"\0\0"
    more = bytearray(first)
    for length in range(4, 4 + 6000):
        put_unsigned(more := more + b"\x11\xe0", length, 0, 1)
        more += b"x\0"
    path = tmp_path / "b.swb"
    path.write_bytes(
        rewrite(written(), lambda records: records.clear(), 6001, lambda _: bytes(more))
    )
    with pytest.raises(BlobError, match=f"more than {MAX_NAMES} times"):
        open_blob(path)


def test_tensors_share_settings_headers_and_names(tmp_path: Path) -> None:
    """Twenty tensors that are alike take a few bytes each beside what is stored of them."""
    rng = np.random.default_rng(0)
    tensors = []
    for number in range(20):
        array = rng.standard_normal((8, 9)).astype(np.float32)
        array[rng.random(array.shape) < 0.8] = 0
        tensors.append((array, TensorSpec(f"layer.{number}.attention.weight", (8, 9), "float32")))
    alone = [best_encoding(*tensor) for tensor in tensors]
    shared = share_tables(tensors, alone)
    assert {encoding.name for encoding in shared} == {"entropy"}
    assert len({encoding.table for encoding in shared}) == 1
    path = tmp_path / "b.swb"
    sizes = []
    for encodings in (alone, shared):
        with path.open("wb") as file:
            write_blob(
                file,
                [BlobEntry(s, a, e) for (a, s), e in zip(tensors, encodings, strict=True)],
            )
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]
    with open_blob(path) as blob:
        assert len({tensor.segments[0].offset for tensor in blob.tensors}) == 1
        data = sum(one.bytes for tensor in blob.tensors for one in tensor.segments[1:])
        head = blob.tensors[0].segments[0].bytes
        assert sizes[1] - ALIGNMENT - data - head < 20 * 14
        for (array, spec), tensor, encoding in zip(tensors, blob.tensors, shared, strict=True):
            assert blob.read(spec.name).tobytes() == array.tobytes()
            assert blob.read_chunk(spec.name, 0).tobytes() == array.tobytes()
            assert (tensor.spec, tensor.encoding) == (spec, encoding)
            assert tensor.encoding.size(array, spec).bytes == tensor.bytes


def test_aligned_tensors_do_not_lie_in_the_index(tmp_path: Path) -> None:
    path = tmp_path / "b.swb"
    array = np.eye(6, dtype=np.int8)
    for align, inside in ((1, True), (8, False)):
        with path.open("wb") as file:
            write_blob(file, [BlobEntry(TensorSpec("w", (6, 6), "int8"), array, Rice(align=align))])
        with open_blob(path) as blob:
            *_, data = blob.find("w").segments
            assert (data.offset % ALIGNMENT != 0) == inside
            assert blob.read("w").tobytes() == array.tobytes()


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
import tracemalloc
sys.modules["numba"] = None
import importlib.util
spec = importlib.util.spec_from_file_location("blobs", {__file__!r})
blobs = importlib.util.module_from_spec(spec)
spec.loader.exec_module(blobs)
assert blobs.written() == blobs.GOLDEN.read_bytes()
blobs.test_old_blobs_are_still_read(blobs.FIRST, blobs.GOLDEN)
blobs.test_the_format_does_not_change_by_accident(["segments"], blobs.LATER["segments"])
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


@pytest.mark.parametrize("name", encoding_names())
@pytest.mark.parametrize("shape", [(2**20,), (1, 2**20), (2**20, 1)])
def test_what_reading_allocates_is_a_small_multiple_of_what_is_declared(
    tmp_path: Path, name: str, shape: tuple[int, ...]
) -> None:
    """Tensors of zeros, of which some encodings store nearly nothing: the worst a blob can do."""
    array, spec = np.zeros(shape, np.float32), TensorSpec("w", shape, "float32")
    path = tmp_path / "b.swb"
    with path.open("wb") as file:
        write_blob(file, [BlobEntry(spec, array, get_encoding(name))])
    with open_blob(path) as blob:
        blob.read("w")  # what is compiled does not count
        tracemalloc.start()
        try:
            assert not blob.read("w").any()
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 16 * array.nbytes
