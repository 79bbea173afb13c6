"""Position codes: which elements of a stream are stored, as arrays of bytes.

A stream is one weight or several, flattened one after the other. A code turns the positions of the
stored elements into byte arrays that a few standard operators decode (:mod:`passes.pack.chains`).

Costs, in bits, for ``n`` positions among ``N``, and what they take in practice at density d:

- :class:`Bitmask`: N. Best above about 35 % density.
- :class:`Delta`: steps of ``bits`` bits from one position to the next; a longer step is an escape
  that stores a filler value. Quickest to decode.
- :class:`Rice`: the Elias-Fano split (low bits as they are, high bits in unary) taken on the gaps
  between positions instead of the positions: n·(low + 1) + sum of gap >> low. The unary part is
  never longer than that of Elias-Fano, and within 0.1 bit a value of the entropy.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hwmodel.bits import pack_fields, unary_ends

if TYPE_CHECKING:
    from numpy.typing import NDArray

PLANES = (8, 4, 2, 1)
"""Widths that a byte divides into: a field of any width is stored as planes of these widths."""


@dataclass(frozen=True, eq=False)
class Positions:
    """Positions ``at`` (int64, ascending, at least one) among ``elements``."""

    elements: int
    at: NDArray[np.int64]

    @property
    def gaps(self) -> NDArray[np.int64]:
        """Elements that are not stored before each position."""
        return np.diff(self.at, prepend=-1) - 1

    @cached_property
    def gap_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Each gap that occurs, and how often: all that costs depend on."""
        gaps = self.gaps
        if gaps.max() < gaps.size:
            counts = np.bincount(gaps)
            return np.flatnonzero(counts), counts[counts > 0]
        return np.unique(gaps, return_counts=True)


@dataclass(frozen=True, eq=False)
class Coded:
    """Positions as a code stores them.

    Attributes:
        arrays: uint8 arrays by part.
        source: for each value that is stored, the number of its position; -1 for a filler, whose
            value is the stream's fill.
        length: of the bit string, where the code has one.
    """

    arrays: dict[str, NDArray[np.uint8]]
    source: NDArray[np.int64]
    length: int = 0


@dataclass(frozen=True)
class Cost:
    """What positions take: bits of metadata, and how many fillers are stored beside the values."""

    bits: int
    fillers: int


@dataclass(frozen=True)
class PositionCode(abc.ABC):
    """The contract of all codes; ``tests/passes/pack/test_codes.py`` checks it."""

    name: ClassVar[str]
    min_opset: ClassVar[int]
    leading_fill: ClassVar[bool]
    """Whether the values begin with one fill value, which all that is not stored points to."""

    @abc.abstractmethod
    def cost(self, positions: Positions) -> Cost:
        """The exact cost, but for rounding each array up to whole bytes."""

    @abc.abstractmethod
    def encode(self, positions: Positions) -> Coded:
        """The arrays to store."""


@dataclass(frozen=True)
class Bitmask(PositionCode):
    """One bit an element, least significant first."""

    name: ClassVar[str] = "bitmask"
    min_opset: ClassVar[int] = 7
    leading_fill: ClassVar[bool] = True

    def cost(self, positions: Positions) -> Cost:
        """A bit an element."""
        return Cost(positions.elements, 0)

    def encode(self, positions: Positions) -> Coded:
        """Part ``bits``."""
        mask = np.zeros(positions.elements, np.bool_)
        mask[positions.at] = True
        bits = np.packbits(mask, bitorder="little")
        return Coded({"bits": bits}, np.arange(positions.at.size), positions.elements)


@dataclass(frozen=True)
class Delta(PositionCode):
    """Steps of a fixed width; a step that does not fit begins with fillers of the widest step.

    Attributes:
        bits: width of a step, 1 to 16.
    """

    name: ClassVar[str] = "delta"
    min_opset: ClassVar[int] = 9
    leading_fill: ClassVar[bool] = False
    bits: int = 8

    def cost(self, positions: Positions) -> Cost:
        """Values and fillers take a step each."""
        gaps, counts = positions.gap_counts
        first = int(positions.at[0])  # its step is a gap, all others are one more
        fillers = int((gaps // self._widest * counts).sum())
        fillers += max(first - 1, 0) // self._widest - first // self._widest
        return Cost((positions.at.size + fillers) * self.bits, fillers)

    def encode(self, positions: Positions) -> Coded:
        """Parts ``step0``, ``step1``, ...: the planes of the steps, padded with steps of zero."""
        fillers = self._fillers(positions)
        ends = unary_ends(fillers)
        entries = int(ends[-1]) + 1
        padded = entries + -entries % alignment(self.bits)
        steps = np.full(padded, self._widest, np.int64)
        steps[ends] = np.diff(positions.at, prepend=0) - fillers * self._widest
        steps[entries:] = 0
        source = np.full(padded, -1, np.int64)
        source[ends] = np.arange(ends.size)
        source[entries:] = ends.size - 1  # a step of zero stores the last value once more
        return Coded(self._layout(steps), source)

    def _layout(self, steps: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
        return to_planes("step", steps, self.bits)

    @property
    def _widest(self) -> int:
        return (1 << self.bits) - 1

    def _fillers(self, positions: Positions) -> NDArray[np.int64]:
        steps = np.diff(positions.at, prepend=0)
        fillers: NDArray[np.int64] = np.maximum(steps - 1, 0) // self._widest
        return fillers


@dataclass(frozen=True)
class QuickDelta(Delta):
    """The same steps, laid out for the operators that onnxruntime is quickest at.

    In each plane field k of byte i belongs to entry ``k * bytes + i``, so that shifts of the whole
    plane give runs of entries.
    """

    min_opset: ClassVar[int] = 11

    def _layout(self, steps: NDArray[np.int64]) -> dict[str, NDArray[np.uint8]]:
        arrays, shift = {}, 0
        for number, plane in enumerate(planes_of(self.bits)):
            part = ((steps >> shift) & ((1 << plane) - 1)).astype(np.uint8)
            rows = (
                part.reshape(8 // plane, -1)
                << (plane * np.arange(8 // plane, dtype=np.uint8))[:, None]
            )
            arrays[f"step{number}"] = np.bitwise_or.reduce(rows, axis=0)
            shift += plane
        return arrays


@dataclass(frozen=True)
class Rice(PositionCode):
    """Low bits of each gap as they are, the rest in unary (Rice 1979; Elias-Fano on gaps).

    Attributes:
        low: bits stored as they are, 1 to 15.
    """

    name: ClassVar[str] = "rice"
    min_opset: ClassVar[int] = 9
    leading_fill: ClassVar[bool] = True
    low: int = 4

    def cost(self, positions: Positions) -> Cost:
        """A low field and a one for each value, and a zero for each 2^low elements skipped."""
        gaps, counts = positions.gap_counts
        zeros = int(((gaps >> self.low) * counts).sum())
        return Cost(positions.at.size * (self.low + 1) + zeros, 0)

    def encode(self, positions: Positions) -> Coded:
        """Part ``unary``, zeros and a one for each gap, and the planes ``low0``, ..., of the fields."""
        gaps = positions.gaps
        ends = unary_ends(gaps >> self.low)
        unary = np.zeros(int(ends[-1]) + 1, np.bool_)
        unary[ends] = True
        widest = (1 << self.low) - 1
        fields = gaps.size + 1
        lows = np.zeros(fields + -fields % alignment(self.low), np.int64)
        lows[0] = widest  # the field of every zero of the unary string
        lows[1:fields] = gaps & widest
        arrays = {"unary": np.packbits(unary, bitorder="little")}
        return Coded(
            arrays | to_planes("low", lows, self.low), np.arange(gaps.size), int(unary.size)
        )


ALL_CODES: tuple[PositionCode, ...] = (
    Bitmask(),
    *(Delta(bits) for bits in range(2, 17)),
    *(Rice(low) for low in range(1, 16)),
)


QUICK_CODES: tuple[QuickDelta, ...] = tuple(QuickDelta(bits) for bits in range(2, 9))
"""For large weights, which they load fastest; for small ones their chains take more bytes."""


def planes_of(width: int) -> tuple[int, ...]:
    """The plane widths that a field of ``width`` bits is stored in, lowest bits first."""
    planes = []
    for plane in PLANES:
        while width >= plane:
            planes.append(plane)
            width -= plane
    return tuple(planes)


def alignment(width: int) -> int:
    """Fields of ``width`` bits come in multiples of this, so that each plane ends with a byte."""
    return 8 // planes_of(width)[-1]


def to_planes(name: str, fields: NDArray[np.int64], width: int) -> dict[str, NDArray[np.uint8]]:
    """Fields as planes of whole bytes, by ``name`` and number."""
    arrays, shift = {}, 0
    for number, plane in enumerate(planes_of(width)):
        part = (fields >> shift) & ((1 << plane) - 1)
        arrays[f"{name}{number}"] = np.frombuffer(pack_fields(part, plane), np.uint8)
        shift += plane
    return arrays
