"""The records of a blob's index, as short as they can be: numbers that nobody has believed yet.

A record says only what differs from those before: its name shares both ends with the name before,
its settings may be those of the record before, its header that of the last record in its encoding.
``docs/blob-format.md`` describes a record to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from hwmodel.encoding import VALUES, Encoding
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.errors import BlobError
from hwmodel.varint import Cursor, put_signed, put_unsigned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwmodel.tensor import TensorSpec

MAX_RANK = 8
CODEBOOK, INSIDE, SAME, SHARED = 16, 32, 64, 128
"""Flags beside the number of axes: values are numbers of a codebook's entries; the segments lie in
the record; settings are those of the record before; the header is that of the last record in this
encoding."""
ALIGN, ZERO_POINT, CHUNK = 31, 32, 64
"""Of the byte that settings begin with: log2 of the alignment; whether a zero point follows, and a
chunk, which are 0 otherwise."""
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
    "segments": 14,
}
assert ENCODING_NUMBERS.keys() == set(encoding_names())


@dataclass(frozen=True)
class Settings:
    """What records often have alike.

    Attributes:
        align: log2 of the alignment of chunks.
        zero_point: of the tensor.
        own: the encoding's own fields.
        chunk: elements of a chunk.
    """

    align: int
    zero_point: int
    own: tuple[int, ...]
    chunk: int


@dataclass(frozen=True)
class Record:
    """What a record says.

    Attributes:
        dtype: its number.
        encoding: its number.
        codebook: whether values are numbers of a codebook's entries.
        settings: alignment, zero point, the encoding's own fields, chunks.
        shape: of the tensor.
        name: of the tensor, UTF-8.
        header: the segment.
        lengths: of codebook, pointers and data.
        crcs: of the same, 0 where they are empty or ``inside``.
        inside: codebook, pointers and data, where they lie in the record; else None.
    """

    dtype: int
    encoding: int
    codebook: bool
    settings: Settings
    shape: tuple[int, ...]
    name: bytes
    header: bytes
    lengths: tuple[int, ...]
    crcs: tuple[int, ...]
    inside: bytes | None = None


def own_fields(encoding: Encoding | type[Encoding]) -> list[str]:
    """The numbers that an encoding has beyond the fields that all have, in order."""
    shared = {one.name for one in fields(Encoding)}
    return [one.name for one in fields(encoding) if one.name not in shared and one.type == "int"]


def record_of(
    spec: TensorSpec,
    encoding: Encoding,
    header: bytes,
    stored: Sequence[bytes],
    crcs: Sequence[int],
    *,
    inside: bool,
) -> Record:
    """The record of a tensor.

    Args:
        spec: of the tensor.
        encoding: of the tensor.
        header: the segment.
        stored: codebook, pointers and data.
        crcs: of these.
        inside: whether they lie in the record.

    Raises:
        ValueError: when it has more axes than a record holds.
    """
    if len(spec.shape) > MAX_RANK:
        msg = f"tensor '{spec.name}' has {len(spec.shape)} axes; a blob holds up to {MAX_RANK}"
        raise ValueError(msg)
    return Record(
        DTYPE_NUMBERS[spec.dtype],
        ENCODING_NUMBERS[encoding.name],
        encoding.values == VALUES[1],
        Settings(
            encoding.align.bit_length() - 1,
            spec.zero_point,
            tuple(getattr(encoding, field) for field in own_fields(encoding)),
            encoding.chunk,
        ),
        spec.shape,
        spec.name.encode(),
        header,
        tuple(map(len, stored)),
        (0, 0, 0) if inside else tuple(crcs),
        b"".join(stored) if inside else None,
    )


def write_index(records: Sequence[Record]) -> bytes:
    """Records in the order of the file."""
    index, headers = bytearray(), dict[int, bytes]()
    before: Record | None = None
    for record in records:
        same = before is not None and before.encoding == record.encoding
        same = same and before is not None and before.settings == record.settings
        shared = headers.get(record.encoding) == record.header
        flags = CODEBOOK * record.codebook | INSIDE * (record.inside is not None)
        flags |= SAME * same | SHARED * shared
        index += bytes((record.dtype | record.encoding << 4, len(record.shape) | flags))
        if not same:
            _put_settings(index, record.settings)
        put_unsigned(index, *record.shape)
        _put_name(index, record.name, before)
        if not shared:
            put_unsigned(index, len(record.header))
            index += record.header
        there = _lengths_there(record.encoding, record.settings, codebook=record.codebook)
        put_unsigned(index, *(n for n, one in zip(record.lengths, there, strict=True) if one))
        for length, crc in zip(record.lengths, record.crcs, strict=True):
            if length and record.inside is None:
                index += crc.to_bytes(4, "little")
        index += record.inside or b""
        headers[record.encoding] = record.header
        before = record
    return bytes(index)


def _lengths_there(encoding: int, settings: Settings, *, codebook: bool) -> tuple[bool, ...]:
    """Which segments have a length: those that can have bytes. A ``block`` may have chunks unasked."""
    return codebook, settings.chunk > 0 or encoding == ENCODING_NUMBERS["block"], True


def _put_settings(index: bytearray, settings: Settings) -> None:
    there = ZERO_POINT * (settings.zero_point != 0) | CHUNK * (settings.chunk > 0)
    index.append(settings.align | there)
    if settings.zero_point:
        put_signed(index, settings.zero_point)
    put_signed(index, *settings.own)
    if settings.chunk:
        put_unsigned(index, settings.chunk)


def _put_name(index: bytearray, name: bytes, before: Record | None) -> None:
    """A name by the bytes that it begins and ends with as the one before, and those between."""
    begins = ends = 0
    if before:
        begins = _shared(name, before.name)
        ends = _shared(name[begins:][::-1], before.name[begins:][::-1])
        put_unsigned(index, begins, ends)
    between = name[begins : len(name) - ends]
    put_unsigned(index, len(between))
    index += between


def _shared(left: bytes, right: bytes) -> int:
    """How many bytes two strings have alike from their start."""
    for place, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return place
    return min(len(left), len(right))


class RecordReader:
    """Reads one record after the other.

    Attributes:
        cursor: in the index.
    """

    def __init__(self, index: bytes) -> None:
        self.cursor = Cursor(index)
        self._before: Record | None = None
        self._headers: dict[int, tuple[bytes, int]] = {}

    def next(self) -> tuple[Record, int, int]:
        """The next record, and where in the index its header and what is ``inside`` begin.

        Raises:
            BlobError: when the index ends inside it, it names an encoding that there is not, or it
                shares what there was not.
        """
        cursor, before = self.cursor, self._before
        kinds, flags = cursor.bytes(2)
        encoding = kinds >> 4
        settings = self._settings(encoding, same=bool(flags & SAME))
        shape = tuple(cursor.unsigned() for _ in range(flags & 15))
        name = self._name(before)
        header, header_place = self._header(encoding, shared=bool(flags & SHARED))
        there = _lengths_there(encoding, settings, codebook=bool(flags & CODEBOOK))
        lengths = tuple(cursor.unsigned() if one else 0 for one in there)
        place, inside = cursor.place, None
        crcs: tuple[int, ...] = (0, 0, 0)
        if flags & INSIDE:
            inside = cursor.bytes(sum(lengths))
        else:
            crcs = tuple(int.from_bytes(cursor.bytes(4), "little") if n else 0 for n in lengths)
        self._before = Record(
            kinds & 15,
            encoding,
            bool(flags & CODEBOOK),
            settings,
            shape,
            name,
            header,
            lengths,
            crcs,
            inside,
        )
        self._headers[encoding] = header, header_place
        return self._before, header_place, place

    def _settings(self, encoding: int, *, same: bool) -> Settings:
        kind = type(get_encoding(key_of(ENCODING_NUMBERS, "encoding", encoding)))
        if not same:
            [first] = self.cursor.bytes(1)
            zero_point = self.cursor.signed() if first & ZERO_POINT else 0
            own = tuple(self.cursor.signed() for _ in own_fields(kind))
            chunk = self.cursor.unsigned() if first & CHUNK else 0
            if first > ALIGN | ZERO_POINT | CHUNK or (first & ZERO_POINT and not zero_point):
                msg = f"its settings begin with the byte {first}, which says what does not follow"
                raise BlobError(msg)
            if first & CHUNK and not chunk:
                msg = "a chunk of 0 elements stands where none should"
                raise BlobError(msg)
            return Settings(first & ALIGN, zero_point, own, chunk)
        if self._before is None or self._before.encoding != encoding:
            msg = f"its settings should be those of the record before, which is none in {kind.name}"
            raise BlobError(msg)
        return self._before.settings

    def _name(self, before: Record | None) -> bytes:
        begins = self.cursor.unsigned() if before else 0
        ends = self.cursor.unsigned() if before else 0
        name = before.name if before else b""
        if begins + ends > len(name):
            msg = f"its name shares {begins} and {ends} bytes with one of {len(name)}"
            raise BlobError(msg)
        between = self.cursor.bytes(self.cursor.unsigned())
        return name[:begins] + between + name[len(name) - ends :]

    def _header(self, encoding: int, *, shared: bool) -> tuple[bytes, int]:
        if not shared:
            header = self.cursor.bytes(self.cursor.unsigned())
            return header, self.cursor.place - len(header)
        if encoding not in self._headers:
            msg = "its header should be that of a record before, but there is none in its encoding"
            raise BlobError(msg)
        return self._headers[encoding]


def key_of(numbers: dict[str, int], what: str, number: int) -> str:
    """The name behind a number.

    Raises:
        BlobError: when there is none.
    """
    for name, known in numbers.items():
        if known == number:
            return name
    msg = f"there is no {what} of number {number}"
    raise BlobError(msg)
