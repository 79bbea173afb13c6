"""What encodings tell about sizes and places: frames, plans, layouts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.codes import Symbol

SEGMENTS = ("header", "codebook", "pointers", "data")


@dataclass(frozen=True)
class Size:
    """What an encoded tensor takes, before the container aligns its segments.

    Attributes:
        payload_bits: values.
        metadata_bits: coordinates, counts, pointers and tables.
        padding_bits: zero bits that fill chunks and segments up.
        bytes: all segments; ``8 * bytes`` is the sum of the three above.
    """

    payload_bits: int
    metadata_bits: int
    padding_bits: int
    bytes: int


@dataclass(frozen=True, eq=False)
class Frame:
    """The form of what a decoder must bring back: known before the first bit of data is read.

    Attributes:
        bits: of one code.
        rows: of the matrix (of its transpose where chunks are columns).
        columns: of the same.
        bounds: first element of each chunk, and the end, int64 ``(chunks + 1,)``.
        full: elements of a whole chunk; the last may have fewer.
        symbol: the bits worth an entropy code.
    """

    bits: int
    rows: int
    columns: int
    bounds: NDArray[np.int64]
    full: int
    symbol: Symbol

    @property
    def elements(self) -> int:
        """How many there are."""
        return int(self.bounds[-1])

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Elements of each chunk."""
        return np.diff(self.bounds)

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return int(self.bounds.size) - 1

    @property
    def row_bounds(self) -> NDArray[np.int64]:
        """First row of each chunk, and the end, for chunks of whole rows."""
        return self.bounds // max(1, self.columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The least unsigned integer that holds a code."""
        return np.dtype(f"u{1 << max(0, (self.bits - 1).bit_length() - 3)}")

    def only(self, chunk: int) -> Frame:
        """The frame of one chunk alone."""
        size = int(self.bounds[chunk + 1] - self.bounds[chunk])
        rows = size // max(1, self.columns)
        bounds = np.array([0, size])
        return Frame(self.bits, rows, self.columns, bounds, self.full, self.symbol)


@dataclass(frozen=True, eq=False)
class Plan:
    """What encoding will write: enough to know every size.

    Attributes:
        header: the segment.
        payload_bits: of each chunk, int64 ``(chunks,)``.
        metadata_bits: of each chunk, int64 ``(chunks,)``.
    """

    header: bytes
    payload_bits: NDArray[np.int64]
    metadata_bits: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything lies in an encoded tensor; what a fetch model needs to know.

    Attributes:
        header_bytes: length of the segment.
        codebook_bytes: length of the segment.
        pointers_bytes: length of the segment.
        pointer_bits: of one chunk's pointer; 0 where chunks are found without.
        chunk_starts: first byte of each chunk in ``data``, and the end, int64 ``(chunks + 1,)``.
        chunk_elements: elements of each chunk, int64 ``(chunks,)``.
        payload_bits: values in each chunk, int64 ``(chunks,)``.
        metadata_bits: all else that a chunk says, int64 ``(chunks,)``; what is left of its bytes is
            padding.
    """

    header_bytes: int
    codebook_bytes: int
    pointers_bytes: int
    pointer_bits: int
    chunk_starts: NDArray[np.int64]
    chunk_elements: NDArray[np.int64]
    payload_bits: NDArray[np.int64]
    metadata_bits: NDArray[np.int64]

    @property
    def segment_bytes(self) -> dict[str, int]:
        """Length of each segment, in stored order."""
        data = int(self.chunk_starts[-1])
        lengths = (self.header_bytes, self.codebook_bytes, self.pointers_bytes, data)
        return dict(zip(SEGMENTS, lengths, strict=True))

    @cached_property
    def size(self) -> Size:
        """The sums."""
        total = sum(self.segment_bytes.values())
        payload = int(self.payload_bits.sum())
        pointers = self.pointer_bits * max(0, self.payload_bits.size - 1)
        tables = 8 * (self.header_bytes + self.codebook_bytes)
        metadata = int(self.metadata_bits.sum()) + pointers + tables
        return Size(payload, metadata, 8 * total - payload - metadata, total)


def take_segments(segments: Mapping[str, bytes]) -> list[bytes]:
    """The four segments, which must be all there are.

    Raises:
        BlobError: when one is missing or unknown.
    """
    if set(segments) != set(SEGMENTS):
        msg = f"expected segments {sorted(SEGMENTS)}, found {sorted(segments)}"
        raise BlobError(msg)
    return [segments[name] for name in SEGMENTS]
