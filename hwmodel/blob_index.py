"""The index of a weight blob: from records to tensors, everything checked before it is used."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwmodel.blob_records import (
    DTYPE_NUMBERS,
    ENCODING_NUMBERS,
    MAX_RANK,
    RecordReader,
    key_of,
    own_fields,
)
from hwmodel.encoding import VALUES, Encoding
from hwmodel.encodings import get_encoding
from hwmodel.errors import BlobError
from hwmodel.layout import SEGMENTS
from hwmodel.tensor import TensorSpec

if TYPE_CHECKING:
    from hwmodel.blob_records import Record

ALIGNMENT = 64
"""Segments in the data and the index begin at multiples of so many bytes."""
MAX_EXPANSION = 2**16
"""All tensors together may declare at most so many times the bytes that stand before the index."""
MAX_NAMES = 256
"""All names together may be so many times as long as the index."""
MAX_AXIS = 2**40


@dataclass(frozen=True)
class Segment:
    """Where a segment lies in the file; that of ``header`` is inside the index."""

    name: str
    offset: int
    bytes: int
    crc32: int


@dataclass(frozen=True)
class BlobTensor:
    """A tensor in a blob.

    Attributes:
        spec: its name, shape, dtype and zero point.
        encoding: how it is stored.
        segments: ``header``, ``codebook``, ``pointers`` and ``data``; tensors may share a header.
    """

    spec: TensorSpec
    encoding: Encoding
    segments: tuple[Segment, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all its segments, without alignment."""
        return sum(segment.bytes for segment in self.segments)


def read_index(index: bytes, count: int, end: int) -> tuple[BlobTensor, ...]:
    """The tensors that an index names.

    Args:
        index: its bytes, of which the checksum is right.
        count: of tensors.
        end: where the index begins in the file.

    Raises:
        BlobError: when any field is not plausible.
    """
    reader, tensors = RecordReader(index), list[BlobTensor]()
    stored, declared, names = ALIGNMENT, 0, 0
    for number in range(count):
        try:
            record, header, inside = reader.next()
            tensor, stored = _tensor(record, end + header, end + inside, stored, end)
        except ValueError as error:
            msg = f"its index is damaged at tensor {number}: {error}"
            raise BlobError(msg) from error
        declared += tensor.spec.dense_bytes
        if declared > MAX_EXPANSION * end:
            msg = f"tensor '{tensor.spec.name}' of shape {list(tensor.spec.shape)} brings what is declared to {declared} bytes, more than a blob of {end} bytes can hold"
            raise BlobError(msg)
        names += len(record.name)
        if names // MAX_NAMES > len(index):
            msg = f"its names together have more than {MAX_NAMES} times the {len(index)} bytes of its index"
            raise BlobError(msg)
        tensors.append(tensor)
    if reader.cursor.place != len(index):
        msg = (
            f"its index is damaged: {len(index) - reader.cursor.place} bytes follow the last tensor"
        )
        raise BlobError(msg)
    if len({tensor.spec.name for tensor in tensors}) < len(tensors):
        msg = "its index names a tensor twice"
        raise BlobError(msg)
    return tuple(tensors)


def _tensor(
    record: Record, header: int, inside: int, stored: int, end: int
) -> tuple[BlobTensor, int]:
    """The tensor of a record, and where the last segment before the index ends.

    Args:
        record: what is said of it.
        header: where its header lies in the file,
        inside: and its segments, if they lie in the record.
        stored: where the last segment before ends.
        end: of the segments that lie before the index.
    """
    if len(record.shape) > MAX_RANK or record.settings.align > 16:
        msg = f"rank {len(record.shape)} and alignment 2**{record.settings.align} are not allowed"
        raise BlobError(msg)
    if max(record.shape, default=0) > MAX_AXIS:
        msg = f"an axis of {max(record.shape)} is longer than {MAX_AXIS}"
        raise BlobError(msg)
    dtype = key_of(DTYPE_NUMBERS, "dtype", record.dtype)
    spec = TensorSpec(record.name.decode(), record.shape, dtype, record.settings.zero_point)
    encoding = _encoding(record)
    segments = [Segment("header", header, len(record.header), zlib.crc32(record.header))]
    for name, length, crc in zip(SEGMENTS[1:], record.lengths, record.crcs, strict=True):
        if record.inside is not None:
            begin = sum(segment.bytes for segment in segments[1:])
            checksum = zlib.crc32(record.inside[begin : begin + length])
            segments.append(Segment(name, inside + begin, length, checksum))
            continue
        place = -(-stored // ALIGNMENT) * ALIGNMENT if length else 0
        if place + length > end:
            msg = f"segment '{name}' of {length} bytes lies outside the data"
            raise BlobError(msg)
        segments.append(Segment(name, place, length, crc))
        stored = place + length if length else stored
    return BlobTensor(spec, encoding, tuple(segments)), stored


def _encoding(record: Record) -> Encoding:
    name = key_of(ENCODING_NUMBERS, "encoding", record.encoding)
    config: dict[str, Any] = {
        "chunk": record.settings.chunk,
        "align": 1 << record.settings.align,
        "values": VALUES[record.codebook],
    }
    kind = type(get_encoding(name))
    config |= dict(zip(own_fields(kind), record.settings.own, strict=True))
    return get_encoding(name, config | kind.config_of(record.header))
