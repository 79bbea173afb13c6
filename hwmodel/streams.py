"""Chunks of bits: written and read side by side, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel import gap_kernels, kernels, slot_kernels
from hwmodel.bits import width_of
from hwmodel.errors import BlobError
from hwmodel.golomb import gap_words

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.layout import Frame

_SPARE = 24
"""Zero bytes behind the last: two words, and what fills up the last one."""


class Writer:
    """Chunks that grow side by side.

    Attributes:
        words: all bits, little-endian 64-bit words.
        places: the next bit of each chunk, int64 ``(chunks,)``.
    """

    def __init__(self, starts: NDArray[np.int64]) -> None:
        """Begin.

        Args:
            starts: first byte of each chunk, and the end, ``(chunks + 1,)``.
        """
        self._bytes = int(starts[-1])
        self.words = np.zeros((self._bytes + _SPARE) // 8, "<u8")
        self.places = starts[:-1] * 8

    def fields(self, numbers: NDArray[Any], counts: NDArray[np.int64] | int, width: int) -> None:
        """Append to each chunk its share of numbers.

        Args:
            numbers: unsigned or not negative, one chunk's after the other's.
            counts: how many each chunk takes, ``(chunks,)``.
            width: bits of each, 0 to 64.
        """
        counts = np.broadcast_to(counts, self.places.shape).astype(np.int64)
        if width:
            kernels.write_fields(self.words, self.places, counts, width, numbers)
        self.places = self.places + counts * width

    def bits(self, bits: NDArray[np.uint8], counts: NDArray[np.int64]) -> None:
        """Append to each chunk its share of bits, ``(bits,)``, each 0 or 1."""
        kernels.write_bits(self.words, self.places, counts, bits)
        self.places = self.places + counts

    def gaps(
        self,
        codes: Codes,
        bounds: NDArray[np.int64],
        divisor: int,
        code_words: NDArray[np.uint64] | None = None,
        code_lengths: NDArray[np.uint8] | None = None,
    ) -> None:
        """Append the gaps and values of each chunk; nothing may follow.

        Args:
            codes: of the tensor.
            bounds: first element of each chunk, and the end.
            divisor: of the Golomb code of gaps; 0 writes all codes, zeros too, without gaps.
            code_words: of the symbols; without them values are written as they are.
            code_lengths: of the code words.
        """
        code = (np.zeros(1, np.uint64), np.zeros(1, np.uint8))
        form = (0, 0, codes.bits)
        if code_words is not None and code_lengths is not None:
            code = (code_words, code_lengths)
            form = (codes.symbol.shift, codes.symbol.bits, codes.bits)
        if divisor == 0:
            gap_kernels.write_symbols(self.words, self.places, bounds, codes.numbers, code, form)
            return
        gap_kernels.write_codes(
            self.words,
            self.places,
            bounds,
            (codes.positions, codes.values),
            (divisor, width_of(divisor)),
            gap_words(divisor),
            code,
            form,
        )

    def data(self) -> bytes:
        """All chunks."""
        return self.words.tobytes()[: self._bytes]


class Reader:
    """Chunks that are read side by side.

    Attributes:
        words: all bits, little-endian 64-bit words.
        places: the next bit of each chunk, int64 ``(chunks,)``.
        ends: the bit after the last of each chunk, int64 ``(chunks,)``.
    """

    def __init__(self, data: bytes, starts: NDArray[np.int64]) -> None:
        """Begin.

        Args:
            data: all chunks.
            starts: first byte of each chunk, and the end, rising and inside the data.
        """
        spare = _SPARE - len(data) % 8
        self.words = np.frombuffer(data + bytes(spare), "<u8")
        self.places = starts[:-1] * 8
        self.ends = starts[1:] * 8

    def fields(
        self, counts: NDArray[np.int64] | int, width: int, dtype: np.dtype[Any] | type | None = None
    ) -> NDArray[Any]:
        """The next numbers of each chunk, one chunk's after the other's.

        Args:
            counts: how many of each chunk, ``(chunks,)``, not negative.
            width: bits of each, 0 to 64.
            dtype: of the result; int64 if not given.

        Raises:
            BlobError: when a chunk has fewer bits left.
        """
        counts = np.broadcast_to(counts, self.places.shape).astype(np.int64)
        self.require(counts, width)
        numbers = np.zeros(int(counts.sum()), dtype or np.int64)
        if width:
            kernels.read_fields(self.words, self.places, counts, width, numbers)
        self.places = self.places + counts * width
        return numbers

    def bits(self, counts: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The next bits of each chunk, and how many of them are 1.

        Args:
            counts: how many of each chunk, ``(chunks,)``, not negative.

        Returns:
            Bits, each 0 or 1, one chunk's after the other's; ones of each chunk, ``(chunks,)``.

        Raises:
            BlobError: when a chunk has fewer left.
        """
        self.require(counts, 1)
        bits = np.empty(int(counts.sum()), np.uint8)
        ones = np.zeros(counts.size, np.int64)
        kernels.read_bits(self.words, self.places, counts, bits, ones)
        self.places = self.places + counts
        return bits, ones

    def expand(
        self, mask: NDArray[np.uint8], counts: NDArray[np.int64], frame: Frame
    ) -> NDArray[Any]:
        """Codes from a mask over all elements and the next ``counts`` values of each chunk."""
        values = self.fields(counts, frame.bits, frame.dtype)
        codes = np.empty(mask.size, frame.dtype)
        kernels.expand(mask, np.append(values, frame.dtype.type(0)), codes)
        return codes

    def groups(self, slots: int, size: int, frame: Frame) -> NDArray[Any]:
        """Codes from places and values of groups that run along rows and all have equally many slots.

        Args:
            slots: of a group.
            size: elements of a group; the last of a row may have fewer.
            frame: of the codes; chunks are whole rows.

        Raises:
            BlobError: when a chunk has too few bits, places do not rise inside a group, or slots that
                hold no value are not last.
        """
        counts = np.diff(frame.row_bounds) * -(-frame.columns // size) * slots
        width = width_of(size)
        self.require(counts, width + frame.bits)
        codes = np.zeros(frame.elements, frame.dtype)
        form = (slots, size, width, frame.bits, frame.columns)
        if slot_kernels.read_groups(self.words, self.places, frame.row_bounds, form, codes):
            msg = "places do not rise inside a group, or slots that hold no value are not last"
            raise BlobError(msg)
        self.places = self.places + counts * (width + frame.bits)
        return codes

    def require(self, counts: NDArray[np.int64], width: int) -> None:
        """Check that each chunk still holds so many fields.

        Raises:
            BlobError: when one does not.
        """
        left = self.ends - self.places
        short = counts > (left // width if width else counts)
        if short.any():
            chunk = int(np.argmax(short))
            msg = f"chunk {chunk} should hold {int(counts[chunk])} more fields of {width} bits, but has {int(left[chunk])} bits left"
            raise BlobError(msg)

    def finish(self, align: int) -> None:
        """Check that nothing but padding is left: fewer than ``align`` bytes, all bits zero.

        Raises:
            BlobError: when there is more.
        """
        if (self.ends - self.places >= 8 * align).any():
            msg = "a chunk is longer than what it holds"
            raise BlobError(msg)
        if not kernels.all_clear(self.words, self.places, self.ends):
            msg = "the bits after the last of a chunk are not zero"
            raise BlobError(msg)
