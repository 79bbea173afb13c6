from __future__ import annotations

import io
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.blob import ALIGNMENT, PREAMBLE, BlobEntry, is_blob, open_blob, write_blob
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.errors import BlobError
from hwmodel.tensor import DTYPES, TensorSpec

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
            for segment in tensor.segments:
                assert segment.offset % ALIGNMENT == 0
                covered[segment.offset : segment.offset + segment.bytes] = b"\x01" * segment.bytes
    _, _, _, offset, _ = PREAMBLE.unpack(content[: PREAMBLE.size])
    data = range(ALIGNMENT, offset)
    assert all(content[i] == 0 for i in data if not covered[i])
    assert is_blob(path)


def test_names_must_differ() -> None:
    twice = [entries()[0], entries()[0]]
    with pytest.raises(ValueError, match="twice"):
        write_blob(io.BytesIO(), twice)


def rewrite(content: bytes, change: object) -> bytes:
    """The blob with its index changed and all checksums right: a hostile blob."""
    _, version, _, offset, length = PREAMBLE.unpack(content[: PREAMBLE.size])
    index = json.loads(content[offset : offset + length])
    change(index)  # type: ignore[operator]
    new = json.dumps(index).encode()
    head = PREAMBLE.pack(content[:8], version, zlib.crc32(new), offset, len(new))
    return head + content[PREAMBLE.size : offset] + new


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i["tensors"][0].update(shape=[2**40, 2**20]), "more than a blob"),
        (lambda i: i["tensors"][0].update(shape=[-1]), "natural number"),
        (lambda i: i["tensors"][0].update(shape="wide"), "natural number"),
        (lambda i: i["tensors"][0].update(dtype="object"), "known are float16"),
        (lambda i: i["tensors"][0].update(zero_point=7), "zero point 7"),
        (lambda i: i["tensors"][0].update(encoding="pickle"), "no encoding 'pickle'"),
        (lambda i: i["tensors"][0].update(config={"bits": 5}), "cannot have the configuration"),
        (lambda i: i["tensors"][8].update(config={"bits": 10**9}), "cannot have the configuration"),
        (lambda i: i["tensors"][0]["segments"][0].update(offset=0), "outside the data"),
        (lambda i: i["tensors"][0]["segments"][0].update(offset=2**50), "outside the data"),
        (lambda i: i["tensors"][0]["segments"][0].update(bytes=2**50), "outside the data"),
        (lambda i: i["tensors"][0]["segments"][0].update(offset=65), "not aligned"),
        (lambda i: i["tensors"][1].update(name="layer0.weight"), "names a tensor twice"),
        (lambda i: i["tensors"][0].pop("segments"), "index is damaged"),
        (lambda i: i.clear(), "index is damaged"),
    ],
)
def test_hostile_indices_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "b.swb"
    path.write_bytes(rewrite(written(), change))
    with pytest.raises(BlobError, match=message):
        open_blob(path)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
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
    for cut in range(0, len(content), 7):
        path.write_bytes(content[:cut])
        with pytest.raises(BlobError):
            open_blob(path)
