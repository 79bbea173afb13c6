"""The codes of a tensor as encodings see them: a matrix of unsigned integers in which 0 is pruned."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec

_SHORT = 2**16
LARGEST_CODEBOOK = 2**12
"""Distinct nonzero values that a codebook may hold."""


@dataclass(frozen=True)
class Symbol:
    """The bits of a code that are worth an entropy code; all others look random.

    Of a float it is the exponent, of an integer the whole code.

    Attributes:
        shift: place of its lowest bit.
        bits: 1 to 8.
    """

    shift: int
    bits: int


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of a tensor; what is computed from them is kept, so that encodings can be compared fast.

    Attributes:
        numbers: unsigned integers ``(rows * columns,)``, row after row.
        bits: of one code.
        rows: of the matrix view.
        columns: of the matrix view.
        symbol: see :class:`Symbol`.
    """

    numbers: NDArray[Any]
    bits: int
    rows: int
    columns: int
    symbol: Symbol
    _kept: dict[tuple[int, int], tuple[NDArray[Any], ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, array: NDArray[Any], spec: TensorSpec) -> Self:
        """The codes of an array.

        Raises:
            ValueError: when the array does not fit the spec.
        """
        return cls(spec.codes(array), spec.value_bits, spec.rows, spec.columns, spec.symbol)

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(self.numbers.size)

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Where the nonzero codes are, int64 ``(nonzeros,)``."""
        return np.flatnonzero(self.mask.view(np.bool_)).astype(np.int64, copy=False)

    @cached_property
    def mask(self) -> NDArray[np.uint8]:
        """1 where the code is not zero, else 0, uint8 ``(rows * columns,)``."""
        mask: NDArray[np.bool_] = np.not_equal(self.numbers, 0)
        return mask.view(np.uint8)

    @cached_property
    def values(self) -> NDArray[Any]:
        """The nonzero codes ``(nonzeros,)``."""
        return self.numbers[self.positions]

    @property
    def transposed(self) -> Codes:
        """The same codes column after column; made anew each time, for it is as large as the tensor."""
        turned = np.ascontiguousarray(self.numbers.reshape(self.rows, self.columns).T).ravel()
        codes = Codes(turned, self.bits, self.columns, self.rows, self.symbol)
        # by way of a mask that is not kept beside the copy
        codes.__dict__["positions"] = np.flatnonzero(turned != 0).astype(np.int64, copy=False)
        return codes

    @cached_property
    def codebook(self) -> tuple[NDArray[Any], Codes] | None:
        """Distinct nonzero codes, rising, and the codes as numbers of them counted from 1.

        ``None`` where there are more than ``LARGEST_CODEBOOK``.
        """
        sample = np.unique(self.values[: 4 * LARGEST_CODEBOOK])
        if sample.size > LARGEST_CODEBOOK:
            return None
        entries, which = np.unique(self.values, return_inverse=True)
        if entries.size > LARGEST_CODEBOOK:
            return None
        bits = codebook_bits(entries.size)
        numbers = np.zeros(self.size, np.uint8 if bits <= 8 else np.uint16)
        numbers[self.positions] = which + 1
        return entries, Codes(numbers, bits, self.rows, self.columns, indexed_symbol(bits))

    def counts(self, bounds: NDArray[np.int64]) -> NDArray[np.int64]:
        """Nonzero codes between each bound and the next, int64 ``(chunks,)``."""
        if bounds.size == 2:
            return np.array([self.positions.size])
        return np.diff(np.searchsorted(self.positions, bounds))

    def gaps(self, bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Zeros before each nonzero code, and zeros after the last of each chunk.

        Args:
            bounds: first element of each chunk, and the end; gaps do not reach across them.

        Returns:
            int64 ``(nonzeros,)`` and int64 ``(chunks,)``.
        """
        key = (bounds.size, int(bounds[1]) if bounds.size > 1 else 0)
        if key not in self._kept:
            self._kept[key] = self._gaps(bounds)
        gaps, rest = self._kept[key]
        return gaps, rest

    def gap_counts(
        self, bounds: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What lengths of gaps there are, and how often.

        Args:
            bounds: as for :meth:`gaps`.

        Returns:
            Distinct gaps, rising; how often each stands before a nonzero code; how often (not for 0)
            behind the last of a chunk.
        """
        key = (-bounds.size, int(bounds[1]) if bounds.size > 1 else 0)
        if key not in self._kept:
            gaps, rest = self.gaps(bounds)
            rest = rest[rest > 0]
            few = gaps if gaps.max(initial=0) < _SHORT else gaps[gaps < _SHORT]
            short, long = np.bincount(few), gaps[:0]
            if few.size < gaps.size:
                long = gaps[gaps >= _SHORT]
            distinct = np.unique(np.concatenate([np.flatnonzero(short), long, rest]))
            often, ends = np.zeros(distinct.size, np.int64), np.zeros(distinct.size, np.int64)
            counted = int(np.searchsorted(distinct, short.size))
            often[:counted] = short[distinct[:counted]]
            np.add.at(often, np.searchsorted(distinct, long), 1)
            np.add.at(ends, np.searchsorted(distinct, rest), 1)
            self._kept[key] = (distinct, often, ends)
        distinct, often, ends = self._kept[key]
        return distinct, often, ends

    def _gaps(self, bounds: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        after = np.zeros(self.positions.size + 1, np.int64)  # the element after the one before
        after[1:] = self.positions + 1
        ends = np.searchsorted(self.positions, bounds)
        rest = bounds[1:] - np.maximum(after[ends[1:]], bounds[:-1])
        filled = ends[1:] > ends[:-1]
        after[ends[:-1][filled]] = bounds[:-1][filled]
        gaps = after[:-1]
        return np.subtract(self.positions, gaps, out=gaps), rest


def codebook_bytes(book: NDArray[Any] | None) -> bytes:
    """A codebook as it is stored: its entries, little-endian."""
    return b"" if book is None else book.astype(book.dtype.newbyteorder("<")).tobytes()


def from_codebook(
    numbers: NDArray[Any], book: bytes, dtype: np.dtype[Any], bits: int
) -> NDArray[Any]:
    """Codes of ``bits`` bits from their numbers in a stored codebook; 0 stays 0.

    Raises:
        BlobError: when the codebook is not whole, does not rise or has wider codes, or a number points
            beyond it.
    """
    if len(book) % dtype.itemsize:
        msg = f"a codebook of {len(book)} bytes does not hold whole codes of {dtype.itemsize}"
        raise BlobError(msg)
    table = np.zeros(len(book) // dtype.itemsize + 1, dtype)
    table[1:] = np.frombuffer(book, dtype.newbyteorder("<"))
    if (table[1:] <= table[:-1]).any() or int(table[-1]) >> bits:
        msg = f"the codebook does not rise, or has codes of more than {bits} bits"
        raise BlobError(msg)
    if numbers.size and int(numbers.max()) >= table.size:
        msg = f"a codebook of {table.size - 1} entries has no entry {int(numbers.max())}"
        raise BlobError(msg)
    return np.take(table, numbers)


def codebook_bits(entries: int) -> int:
    """Bits of a code that is 0 or the number of a codebook entry counted from 1; at least 1."""
    return max(1, entries.bit_length())


def indexed_symbol(bits: int) -> Symbol:
    """The symbol of a codebook's indices: all bits, or the upper 8."""
    return Symbol(max(0, bits - 8), min(8, bits))
