"""The index of a weight blob: a record for each tensor, one after the other, as short as they can be.

``docs/blob-format.md`` describes a record to the bit. Everything in one is checked before it is used.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from hwmodel.encoding import VALUES, Encoding
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.errors import BlobError
from hwmodel.layout import SEGMENTS
from hwmodel.tensor import TensorSpec
from hwmodel.varint import Cursor, put_signed, put_unsigned

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNMENT = 64
"""Segments in the data and the index begin at multiples of so many bytes."""
MAX_EXPANSION = 2**16
"""All tensors together may declare at most so many times the bytes that stand before the index."""
MAX_RANK = 8
MAX_AXIS = 2**40
DTYPE_NUMBERS = {
    "float16": 1,
    "bfloat16": 2,
    "float32": 3,
    "float64": 4,
    "int8": 5,
    "uint8": 6,
    "int4": 7,
    "uint4": 8,
}
ENCODING_NUMBERS = {
    "dense": 1,
    "bitmask": 2,
    "two_level": 3,
    "nm": 4,
    "block": 5,
    "ellpack": 6,
    "csr": 7,
    "csc": 8,
    "run_length": 9,
    "relative_index": 10,
    "elias_fano": 11,
    "rice": 12,
    "entropy": 13,
}
assert ENCODING_NUMBERS.keys() == set(encoding_names())


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
        segments: ``header``, ``codebook``, ``pointers`` and ``data``.
    """

    spec: TensorSpec
    encoding: Encoding
    segments: tuple[Segment, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all its segments, without alignment."""
        return sum(segment.bytes for segment in self.segments)


@dataclass(frozen=True)
class Record:
    """What a record says, as it says it: numbers that nobody has believed yet.

    Attributes:
        dtype: its number.
        encoding: its number.
        values: 0 for raw values, 1 for a codebook.
        align: log2 of the alignment of chunks.
        zero_point: of the tensor.
        own: the encoding's own fields.
        chunk: elements of a chunk.
        shape: of the tensor.
        name: of the tensor, UTF-8.
        header: the segment.
        lengths: of codebook, pointers and data.
        crcs: of the same, 0 where they are empty.
    """

    dtype: int
    encoding: int
    values: int
    align: int
    zero_point: int
    own: tuple[int, ...]
    chunk: int
    shape: tuple[int, ...]
    name: bytes
    header: bytes
    lengths: tuple[int, ...]
    crcs: tuple[int, ...]


def own_fields(encoding: Encoding | type[Encoding]) -> list[str]:
    """The fields that an encoding has beyond those that all have, in order."""
    shared = {one.name for one in fields(Encoding)}
    return [one.name for one in fields(encoding) if one.name not in shared]


def record_of(
    spec: TensorSpec, encoding: Encoding, header: bytes, lengths: Sequence[int], crcs: Sequence[int]
) -> Record:
    """The record of a tensor.

    Raises:
        ValueError: when it has more axes than a record holds.
    """
    if len(spec.shape) > MAX_RANK:
        msg = f"tensor '{spec.name}' has {len(spec.shape)} axes; a blob holds up to {MAX_RANK}"
        raise ValueError(msg)
    return Record(
        DTYPE_NUMBERS[spec.dtype],
        ENCODING_NUMBERS[encoding.name],
        VALUES.index(encoding.values),
        encoding.align.bit_length() - 1,
        spec.zero_point,
        tuple(getattr(encoding, field) for field in own_fields(encoding)),
        encoding.chunk,
        spec.shape,
        spec.name.encode(),
        header,
        tuple(lengths),
        tuple(crcs),
    )


def write_index(records: Sequence[Record]) -> bytes:
    """Records in the order of the file; a name says only how it differs from the one before."""
    index, before = bytearray(), b""
    for record in records:
        index += bytes((record.dtype, record.encoding))
        index += bytes((record.values | len(record.shape) << 4, record.align))
        put_signed(index, record.zero_point, *record.own)
        put_unsigned(index, record.chunk, *record.shape)
        shared = 0
        while record.name[shared : shared + 1] == before[shared : shared + 1] != b"":
            shared += 1
        put_unsigned(index, shared, len(record.name) - shared)
        index += record.name[shared:]
        put_unsigned(index, len(record.header))
        index += record.header
        put_unsigned(index, *record.lengths)
        for length, crc in zip(record.lengths, record.crcs, strict=True):
            if length:
                index += crc.to_bytes(4, "little")
        before = record.name
    return bytes(index)


def read_record(cursor: Cursor, before: bytes) -> tuple[Record, int]:
    """The record at a cursor, and where in the index its header begins.

    Args:
        cursor: in the index.
        before: the name in the record before.

    Raises:
        BlobError: when the index ends inside it, or names an encoding that there is not.
    """
    dtype, encoding, flags, align = cursor.bytes(4)
    own = len(own_fields(type(get_encoding(_key(ENCODING_NUMBERS, "encoding", encoding)))))
    zero_point, *parameters = (cursor.signed() for _ in range(1 + own))
    chunk, *shape = (cursor.unsigned() for _ in range(1 + (flags >> 4)))
    shared, more = cursor.unsigned(), cursor.unsigned()
    if shared > len(before):
        msg = f"its name shares {shared} bytes with one of {len(before)}"
        raise BlobError(msg)
    name = before[:shared] + cursor.bytes(more)
    header = cursor.bytes(cursor.unsigned())
    place = cursor.place - len(header)
    lengths = tuple(cursor.unsigned() for _ in SEGMENTS[1:])
    crcs = tuple(int.from_bytes(cursor.bytes(4), "little") if one else 0 for one in lengths)
    record = Record(
        dtype,
        encoding,
        flags & 15,
        align,
        zero_point,
        tuple(parameters),
        chunk,
        tuple(shape),
        name,
        header,
        lengths,
        crcs,
    )
    return record, place


def read_index(index: bytes, count: int, end: int) -> tuple[BlobTensor, ...]:
    """The tensors that an index names.

    Args:
        index: its bytes, of which the checksum is right.
        count: of tensors.
        end: where the index begins in the file.

    Raises:
        BlobError: when any field is not plausible.
    """
    cursor, tensors = Cursor(index), list[BlobTensor]()
    name, stored, declared = b"", ALIGNMENT, 0
    for number in range(count):
        try:
            record, place = read_record(cursor, name)
            tensor, stored = _tensor(record, end + place, stored, end)
        except ValueError as error:
            msg = f"its index is damaged at tensor {number}: {error}"
            raise BlobError(msg) from error
        name, declared = record.name, declared + tensor.spec.dense_bytes
        if declared > MAX_EXPANSION * end:
            msg = f"tensor '{tensor.spec.name}' of shape {list(tensor.spec.shape)} brings what is declared to {declared} bytes, more than a blob of {end} bytes can hold"
            raise BlobError(msg)
        tensors.append(tensor)
    if cursor.place != len(index):
        msg = f"its index is damaged: {len(index) - cursor.place} bytes follow the last tensor"
        raise BlobError(msg)
    if len({tensor.spec.name for tensor in tensors}) < len(tensors):
        msg = "its index names a tensor twice"
        raise BlobError(msg)
    return tuple(tensors)


def _tensor(record: Record, header_place: int, stored: int, end: int) -> tuple[BlobTensor, int]:
    """The tensor of a record, and where its last segment ends."""
    if len(record.shape) > MAX_RANK or record.values >= len(VALUES) or record.align > 16:
        msg = f"rank {len(record.shape)}, values {record.values} and alignment 2**{record.align} are not allowed"
        raise BlobError(msg)
    if max(record.shape, default=0) > MAX_AXIS:
        msg = f"an axis of {max(record.shape)} is longer than {MAX_AXIS}"
        raise BlobError(msg)
    dtype = _key(DTYPE_NUMBERS, "dtype", record.dtype)
    spec = TensorSpec(record.name.decode(), record.shape, dtype, record.zero_point)
    encoding = _encoding(record)
    segments = [Segment("header", header_place, len(record.header), zlib.crc32(record.header))]
    for name, length, crc in zip(SEGMENTS[1:], record.lengths, record.crcs, strict=True):
        place = -(-stored // ALIGNMENT) * ALIGNMENT if length else 0
        if place + length > end:
            msg = f"segment '{name}' of {length} bytes lies outside the data"
            raise BlobError(msg)
        segments.append(Segment(name, place, length, crc))
        stored = place + length if length else stored
    return BlobTensor(spec, encoding, tuple(segments)), stored


def _encoding(record: Record) -> Encoding:
    name = _key(ENCODING_NUMBERS, "encoding", record.encoding)
    shared: dict[str, Any] = {
        "chunk": record.chunk,
        "align": 1 << record.align,
        "values": VALUES[record.values],
    }
    own = dict(zip(own_fields(type(get_encoding(name))), record.own, strict=True))
    return get_encoding(name, {**shared, **own})


def _key(numbers: dict[str, int], what: str, number: int) -> str:
    for name, known in numbers.items():
        if known == number:
            return name
    msg = f"there is no {what} of number {number}"
    raise BlobError(msg)
