"""The weight blob ``.swb``: encoded tensors in one file that hardware can map and read in place.

::

    0   8   magic  89 53 57 42 0D 0A 1A 0A
    8   4   version, 3
    12  4   CRC32 of bytes 16 to 63 and of the index
    16  8   offset of the index, a multiple of 64
    24  8   length of the index; it ends the file
    32  4   number of tensors
    36  28  zero
    64      segments, each at the next multiple of 64 bytes; the bytes between are zero
    ...     index, see :mod:`hwmodel.blob_records`; small tensors lie in it

All numbers are little-endian. The index stands last so that tensors can be written one by one as
they are encoded. ``docs/blob-format.md`` describes everything to the bit.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self, final

from hwmodel.blob_index import (
    ALIGNMENT,
    MAX_EXPANSION,
    BlobTensor,
    Segment,
    read_index,
)
from hwmodel.blob_records import Record, record_of, write_index
from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.tensor import TensorSpec

MAGIC = b"\x89SWB\r\n\x1a\n"
VERSION = 3
PREAMBLE = struct.Struct("<8sIIQQI28x")
CHECKED = 16
"""Bytes of the preamble before this one are not in its checksum."""
MOST_INSIDE = 1024
"""Tensors of up to so many bytes lie in the index, unless their chunks are to be aligned."""


@dataclass(frozen=True, eq=False)
class BlobEntry:
    """A tensor to write: its spec, its array, and how it is encoded."""

    spec: TensorSpec
    array: NDArray[Any]
    encoding: Encoding


def write_blob(file: BinaryIO, entries: Iterable[BlobEntry]) -> None:
    """Write a blob, one tensor at a time; the same entries give the same bytes.

    Args:
        file: open for writing, at its start; it must be able to seek.
        entries: tensors with names that differ; only one is held at a time.

    Raises:
        ValueError: when a name comes twice, or a tensor cannot be stored as it should.
    """
    file.write(bytes(ALIGNMENT))  # the preamble's place
    records: dict[str, Record] = {}
    position, declared = ALIGNMENT, 0
    for entry in entries:
        if entry.spec.name in records:
            msg = f"tensor names must differ, found '{entry.spec.name}' twice"
            raise ValueError(msg)
        segments = entry.encoding.encode(entry.array, entry.spec)
        header, *stored = segments.values()
        inside = entry.encoding.align == 1 and sum(map(len, stored)) <= MOST_INSIDE
        records[entry.spec.name] = record_of(
            entry.spec, entry.encoding, header, stored, [*map(zlib.crc32, stored)], inside=inside
        )
        for data in () if inside else stored:
            position += file.write(data)
            position += file.write(bytes(-position % ALIGNMENT))
        declared += entry.spec.dense_bytes
        del entry, segments, stored  # before the next one is made
    # a reader believes no more than so many bytes of arrays for each byte that is there
    position += file.write(bytes(max(0, -(-declared // MAX_EXPANSION) - position)))
    position += file.write(bytes(-position % ALIGNMENT))
    index = write_index(list(records.values()))
    file.write(index)
    preamble = PREAMBLE.pack(MAGIC, VERSION, 0, position, len(index), len(records))
    checksum = zlib.crc32(index, zlib.crc32(preamble[CHECKED:]))
    file.seek(0)
    file.write(PREAMBLE.pack(MAGIC, VERSION, checksum, position, len(index), len(records)))


@final
class Blob:
    """An open blob. Use it in a ``with`` statement.

    Attributes:
        tensors: what it holds, in file order.
    """

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self.tensors: tuple[BlobTensor, ...] = _read_tensors(content)
        self._by_name = {tensor.spec.name: tensor for tensor in self.tensors}

    def find(self, name: str) -> BlobTensor:
        """A tensor by name.

        Raises:
            BlobError: when there is no such tensor.
        """
        if name not in self._by_name:
            msg = f"there is no tensor '{name}'; it holds {', '.join(self._by_name) or 'none'}"
            raise BlobError(msg)
        return self._by_name[name]

    def segments(self, name: str) -> dict[str, bytes]:
        """The segments of a tensor, their checksums right.

        Raises:
            BlobError: when there is no such tensor, or one is damaged.
        """
        return {one.name: self._segment(name, one) for one in self.find(name).segments}

    def read(self, name: str) -> NDArray[Any]:
        """Decode one tensor; nothing else of the file is read.

        Raises:
            BlobError: when there is no such tensor, or its segments are damaged.
        """
        tensor = self.find(name)
        try:
            return tensor.encoding.decode(self.segments(name), tensor.spec)
        except BlobError as error:
            msg = f"tensor '{name}' is damaged: {error}"
            raise BlobError(msg) from error

    def read_chunk(self, name: str, chunk: int) -> NDArray[Any]:
        """Decode one chunk of a tensor; of its data only the bytes of the chunk are read.

        Header, codebook and pointers are checked by their checksums; the chunk itself only by what
        it says, because the data's checksum covers all chunks.

        Args:
            name: of the tensor.
            chunk: its number, from 0.

        Returns:
            Values ``(elements of the chunk,)`` in stored order; which elements they are,
            ``encoding.chunk_bounds(spec)`` tells.

        Raises:
            BlobError: when there is no such tensor or chunk, or it is damaged.
        """
        tensor = self.find(name)
        spec, encoding = tensor.spec, tensor.encoding
        *tables, data = tensor.segments
        try:
            segments = {one.name: self._segment(name, one) for one in tables}
            starts = encoding.chunk_bytes(spec, segments, data.bytes)
            if not 0 <= chunk < starts.size - 1:
                msg = f"it has chunks 0 to {starts.size - 2}, there is no chunk {chunk}"
                raise BlobError(msg)
            first, last = (data.offset + int(starts[chunk + i]) for i in (0, 1))
            segments["data"] = self._content[first:last]
            return encoding.decode_chunk(segments, spec, chunk)
        except BlobError as error:
            msg = f"tensor '{name}': {error}"
            raise BlobError(msg) from error

    def _segment(self, name: str, segment: Segment) -> bytes:
        data = self._content[segment.offset : segment.offset + segment.bytes]
        if zlib.crc32(data) != segment.crc32:
            msg = f"segment '{segment.name}' of tensor '{name}' is damaged (its checksum differs)"
            raise BlobError(msg)
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._content.close()


def open_blob(path: Path) -> Blob:
    """Map a blob into memory and read its index.

    Raises:
        BlobError: when it is no blob, or any field of its index is not plausible.
        OSError: when the file cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size < ALIGNMENT:
            msg = "it is not a weight blob: it is shorter than one"
            raise BlobError(msg)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return Blob(content)
    except BaseException:
        content.close()
        raise


def is_blob(path: Path) -> bool:
    """Whether a file begins as a blob does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _read_tensors(content: mmap.mmap) -> tuple[BlobTensor, ...]:
    preamble = content[: PREAMBLE.size]
    magic, version, checksum, offset, length, count = PREAMBLE.unpack(preamble)
    if magic != MAGIC:
        msg = "it is not a weight blob: its first bytes are not those of one"
        raise BlobError(msg)
    if version != VERSION:
        msg = f"it has version {version} of the format; this release reads version {VERSION}"
        raise BlobError(msg)
    if offset + length != len(content) or offset < ALIGNMENT or offset % ALIGNMENT:
        msg = f"it is truncated or damaged: its index should end at byte {offset + length}, it has {len(content)}"
        raise BlobError(msg)
    index = content[offset : offset + length]
    if zlib.crc32(index, zlib.crc32(preamble[CHECKED:])) != checksum:
        msg = "its index is damaged (the checksum differs)"
        raise BlobError(msg)
    return read_index(index, count, offset)
