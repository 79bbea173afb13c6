"""The index of a weight blob: a record of 200 bytes for each tensor, then their names.

``docs/blob-format.md`` describes it to the bit. Everything in a record is checked before it is used.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, fields
from typing import Any

from hwmodel.encoding import VALUES, Encoding
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.errors import BlobError
from hwmodel.layout import SEGMENTS
from hwmodel.tensor import TensorSpec

ALIGNMENT = 64
"""Segments and the index begin at multiples of so many bytes."""
MAX_EXPANSION = 2**16
"""All tensors together may declare at most so many times the bytes that stand before the index."""
MAX_RANK = 8
MAX_AXIS = 2**40
RECORD = struct.Struct("<IIBBBBiQI3i8Q" + "QQII" * len(SEGMENTS))
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
    """Where a segment lies in the file; ``offset`` is 0 where it is empty."""

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


def own_fields(encoding: Encoding | type[Encoding]) -> list[str]:
    """The fields that an encoding has beyond those that all have, in order."""
    shared = {one.name for one in fields(Encoding)}
    return [one.name for one in fields(encoding) if one.name not in shared]


def check_writable(spec: TensorSpec) -> None:
    """Check that a record can hold what a spec says.

    Raises:
        ValueError: when it cannot.
    """
    if len(spec.shape) > MAX_RANK:
        msg = f"tensor '{spec.name}' has {len(spec.shape)} axes; a blob holds up to {MAX_RANK}"
        raise ValueError(msg)


def write_index(tensors: list[BlobTensor]) -> bytes:
    """Records in the order of the file, then all names."""
    names = [tensor.spec.name.encode() for tensor in tensors]
    ends = itertools.accumulate(map(len, names), initial=RECORD.size * len(tensors))
    records = [_record(*pair) for pair in zip(tensors, names, ends, strict=False)]
    return b"".join([*records, *names])


def _record(tensor: BlobTensor, name: bytes, offset: int) -> bytes:
    spec, encoding = tensor.spec, tensor.encoding
    own = [getattr(encoding, field) for field in own_fields(encoding)]
    places = [(one.offset, one.bytes, one.crc32, 0) for one in tensor.segments]
    return RECORD.pack(
        offset,
        len(name),
        DTYPE_NUMBERS[spec.dtype],
        ENCODING_NUMBERS[encoding.name],
        VALUES.index(encoding.values),
        len(spec.shape),
        spec.zero_point,
        encoding.chunk,
        encoding.align,
        *own,
        *[0] * (3 - len(own)),
        *spec.shape,
        *[0] * (MAX_RANK - len(spec.shape)),
        *itertools.chain(*places),
    )


def read_index(index: bytes, count: int, end: int) -> tuple[BlobTensor, ...]:
    """The tensors that an index names.

    Args:
        index: its bytes, of which the checksum is right.
        count: of tensors.
        end: where the index begins in the file.

    Raises:
        BlobError: when any field is not plausible.
    """
    if RECORD.size * count > len(index):
        msg = f"its index of {len(index)} bytes cannot hold {count} tensors"
        raise BlobError(msg)
    tensors: list[BlobTensor] = []
    named, stored, declared = RECORD.size * count, ALIGNMENT, 0
    for number in range(count):
        try:
            tensor, named, stored = _read(index, number, named, stored, end)
        except ValueError as error:
            msg = f"its index is damaged at tensor {number}: {error}"
            raise BlobError(msg) from error
        declared += tensor.spec.dense_bytes
        if declared > MAX_EXPANSION * end:
            msg = f"tensor '{tensor.spec.name}' of shape {list(tensor.spec.shape)} brings what is declared to {declared} bytes, more than a blob of {end} bytes can hold"
            raise BlobError(msg)
        tensors.append(tensor)
    if named != len(index):
        msg = f"its index is damaged: {len(index) - named} bytes follow the last name"
        raise BlobError(msg)
    if len({tensor.spec.name for tensor in tensors}) < len(tensors):
        msg = "its index names a tensor twice"
        raise BlobError(msg)
    return tuple(tensors)


def _read(
    index: bytes, number: int, named: int, stored: int, end: int
) -> tuple[BlobTensor, int, int]:
    """One record: the tensor, where its name ends, and where its last segment ends."""
    record = RECORD.unpack_from(index, RECORD.size * number)
    offset, length, dtype, kind, values, rank, zero_point, chunk, align = record[:9]
    own, shape, places = record[9:12], record[12:20], record[20:]
    if offset != named or offset + length > len(index):
        msg = "its name does not follow the one before"
        raise BlobError(msg)
    if max(shape) > MAX_AXIS:
        msg = f"an axis of {max(shape)} is longer than {MAX_AXIS}"
        raise BlobError(msg)
    if rank > MAX_RANK or any(shape[rank:]) or values >= len(VALUES):
        msg = f"rank {rank} and values {values} are not allowed, or axes beyond the rank are not 0"
        raise BlobError(msg)
    name = index[offset : offset + length].decode()
    spec = TensorSpec(name, shape[:rank], _key(DTYPE_NUMBERS, "dtype", dtype), zero_point)
    config = {"chunk": chunk, "align": align, "values": VALUES[values]}
    encoding = _encoding(_key(ENCODING_NUMBERS, "encoding", kind), config, own)
    segments = []
    for i, segment_name in enumerate(SEGMENTS):
        segment = Segment(segment_name, *places[4 * i : 4 * i + 3])
        stored = _check_place(segment, stored, end, reserved=places[4 * i + 3])
        segments.append(segment)
    return BlobTensor(spec, encoding, tuple(segments)), offset + length, stored


def _encoding(name: str, config: dict[str, Any], own: tuple[int, ...]) -> Encoding:
    names = own_fields(type(get_encoding(name)))
    if any(own[len(names) :]):
        msg = f"encoding '{name}' has {len(names)} parameters, but others are not 0"
        raise BlobError(msg)
    return get_encoding(name, {**config, **dict(zip(names, own, strict=False))})


def _check_place(segment: Segment, stored: int, end: int, reserved: int) -> int:
    """Where the segment ends, which is where the next may begin."""
    if reserved or (not segment.bytes and (segment.offset or segment.crc32)):
        msg = f"segment '{segment.name}' has values where zeros should be"
        raise BlobError(msg)
    if not segment.bytes:
        return stored
    last = segment.offset + segment.bytes
    if segment.offset < stored or segment.offset % ALIGNMENT or last > end:
        msg = f"segment '{segment.name}' lies outside the data, over another, or is not aligned"
        raise BlobError(msg)
    return last


def _key(numbers: dict[str, int], what: str, number: int) -> str:
    for name, known in numbers.items():
        if known == number:
            return name
    msg = f"there is no {what} of number {number}"
    raise BlobError(msg)
