"""The weight blob ``.swb``: encoded tensors in one file that hardware can map and read in place.

::

    0   8   magic  89 53 57 42 0D 0A 1A 0A
    8   4   version, 1
    12  4   CRC32 of the index
    16  8   offset of the index
    24  8   length of the index; it ends the file
    32  32  zero
    64      segments, each at a multiple of 64 bytes; the bytes between are zero
    ...     index: JSON in UTF-8

The index is an object with ``tensors``, a list in file order of ``name``, ``shape``, ``dtype``,
``zero_point``, ``encoding``, ``config`` and ``segments``; a segment has ``name``, ``offset``, ``bytes`` and
``crc32``. All numbers are little-endian. The index stands last so that tensors can be written one
by one as they are encoded.
"""

from __future__ import annotations

import json
import mmap
import struct
import zlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Self, final

from hwmodel.encodings import get_encoding
from hwmodel.errors import BlobError
from hwmodel.tensor import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding

MAGIC = b"\x89SWB\r\n\x1a\n"
VERSION = 1
ALIGNMENT = 64
PREAMBLE = struct.Struct("<8sIIQQ")
MAX_EXPANSION = 2**16
"""A tensor may declare at most so many times the bytes that stand before the index."""


@dataclass(frozen=True, eq=False)
class BlobEntry:
    """A tensor to write: its spec, its array, and how it is encoded."""

    spec: TensorSpec
    array: NDArray[Any]
    encoding: Encoding


@dataclass(frozen=True)
class Segment:
    """Where a segment lies in the file."""

    name: str
    offset: int
    bytes: int
    crc32: int


@dataclass(frozen=True)
class BlobTensor:
    """A tensor in a blob."""

    spec: TensorSpec
    encoding: Encoding
    segments: tuple[Segment, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all its segments, without alignment."""
        return sum(segment.bytes for segment in self.segments)


def write_blob(file: BinaryIO, entries: Iterable[BlobEntry]) -> None:
    """Write a blob, one tensor at a time; the same entries give the same bytes.

    Args:
        file: open for writing, at its start; it must be able to seek.
        entries: tensors with names that differ; only one is held at a time.

    Raises:
        ValueError: when a name comes twice.
    """
    file.write(bytes(ALIGNMENT))  # the preamble's place
    tensors: dict[str, dict[str, Any]] = {}
    position = ALIGNMENT
    for entry in entries:
        if entry.spec.name in tensors:
            msg = f"tensor names must differ, found '{entry.spec.name}' twice"
            raise ValueError(msg)
        segments = []
        for name, data in entry.encoding.encode(entry.array, entry.spec).items():
            segments.append(Segment(name, position, len(data), zlib.crc32(data)))
            position += file.write(data)
            position += file.write(bytes(-position % ALIGNMENT))
        tensors[entry.spec.name] = _describe(
            BlobTensor(entry.spec, entry.encoding, tuple(segments))
        )
    index = json.dumps({"tensors": list(tensors.values())}, separators=(",", ":")).encode()
    file.write(index)
    file.seek(0)
    file.write(PREAMBLE.pack(MAGIC, VERSION, zlib.crc32(index), position, len(index)))


@final
class Blob:
    """An open blob. Use it in a ``with`` statement.

    Attributes:
        tensors: what it holds, in file order.
    """

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self.tensors: tuple[BlobTensor, ...] = _read_index(content)
        self._by_name = {tensor.spec.name: tensor for tensor in self.tensors}

    def read(self, name: str) -> NDArray[Any]:
        """Decode one tensor; nothing else of the file is read.

        Raises:
            BlobError: when there is no such tensor, or its segments are damaged.
        """
        if name not in self._by_name:
            msg = f"there is no tensor '{name}'; it holds {', '.join(self._by_name)}"
            raise BlobError(msg)
        tensor = self._by_name[name]
        segments = {}
        for segment in tensor.segments:
            data = self._content[segment.offset : segment.offset + segment.bytes]
            if zlib.crc32(data) != segment.crc32:
                msg = (
                    f"segment '{segment.name}' of tensor '{name}' is damaged (its checksum differs)"
                )
                raise BlobError(msg)
            segments[segment.name] = data
        try:
            return tensor.encoding.decode(segments, tensor.spec)
        except BlobError as error:
            msg = f"tensor '{name}' is damaged: {error}"
            raise BlobError(msg) from error

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


def _describe(tensor: BlobTensor) -> dict[str, Any]:
    return {
        **asdict(tensor.spec),
        "encoding": tensor.encoding.name,
        "config": tensor.encoding.to_config(),
        "segments": [asdict(segment) for segment in tensor.segments],
    }


def _read_index(content: mmap.mmap) -> tuple[BlobTensor, ...]:
    magic, version, checksum, offset, length = PREAMBLE.unpack(content[: PREAMBLE.size])
    if magic != MAGIC:
        msg = "it is not a weight blob: its first bytes are not those of one"
        raise BlobError(msg)
    if version != VERSION:
        msg = f"it has version {version} of the format; this release reads version {VERSION}"
        raise BlobError(msg)
    if offset + length != len(content):
        msg = f"it is truncated or damaged: its index should end at byte {offset + length}, it has {len(content)}"
        raise BlobError(msg)
    index = content[offset : offset + length]
    if zlib.crc32(index) != checksum:
        msg = "its index is damaged (the checksum differs)"
        raise BlobError(msg)
    try:
        tensors = tuple(_read_tensor(record, offset) for record in json.loads(index)["tensors"])
    except BlobError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        msg = f"its index is damaged ({type(error).__name__}: {error})"
        raise BlobError(msg) from error
    if len({tensor.spec.name for tensor in tensors}) < len(tensors):
        msg = "its index names a tensor twice"
        raise BlobError(msg)
    return tensors


def _read_tensor(record: dict[str, Any], end: int) -> BlobTensor:
    shape = tuple(_natural(size) for size in record["shape"])
    spec = TensorSpec(str(record["name"]), shape, record["dtype"], record["zero_point"])
    segments = tuple(
        Segment(str(s["name"]), _natural(s["offset"]), _natural(s["bytes"]), _natural(s["crc32"]))
        for s in record["segments"]
    )
    for segment in segments:
        inside = ALIGNMENT <= segment.offset <= segment.offset + segment.bytes <= end
        if not inside or segment.offset % ALIGNMENT:
            msg = f"segment '{segment.name}' of tensor '{spec.name}' lies outside the data or is not aligned"
            raise BlobError(msg)
    if spec.dense_bytes > MAX_EXPANSION * end:
        msg = f"tensor '{spec.name}' declares {spec.dense_bytes} bytes, more than a blob of {end} bytes can hold"
        raise BlobError(msg)
    return BlobTensor(spec, get_encoding(record["encoding"], record["config"]), segments)


def _natural(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        msg = f"expected a natural number, found {number!r}"
        raise BlobError(msg)
    return number
