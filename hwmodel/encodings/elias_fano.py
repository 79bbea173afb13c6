"""Positions in two parts: lower bits as they are, upper bits in unary (Elias, Fano)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.decoding import words_cycles
from hwmodel.encoding import Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class EliasFano(Encoding):
    """About n·(2 + log2(N/n)) + n·V bits; decodes many positions at once.

    The header is one byte, l, the lower bits. A chunk of N elements is the number n of its values in
    ceil(log2(elements of a whole chunk + 1)) bits; n fields of l bits, the lower bits of the
    positions p; n + ((N - 1) >> l) bits of which bit (p_i >> l) + i is set for the i-th position;
    and the values.

    Attributes:
        lower: bits, 0 to 32; -1 takes the best for each tensor.
    """

    name: ClassVar[str] = "elias_fano"
    lower: int = -1

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("lower", -1, 32)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        counts = codes.counts(frame.bounds)
        choices = range(33) if self.lower < 0 else (self.lower,)
        totals = [int(self._metadata(counts, frame, lower).sum()) for lower in choices]
        lower = choices[int(np.argmin(totals))]
        return Plan(bytes([lower]), counts * codes.bits, self._metadata(counts, frame, lower))

    @staticmethod
    def _metadata(counts: NDArray[np.int64], frame: Frame, lower: int) -> NDArray[np.int64]:
        upper = counts + (np.maximum(frame.sizes - 1, 0) >> lower)
        return width_of(frame.full + 1) + counts * lower + upper

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        lower, counts = header[0], codes.counts(frame.bounds)
        ones, bounds = self._upper(codes, frame, lower)
        upper = np.zeros(int(bounds[-1]), np.uint8)
        upper[ones] = 1
        low = (codes.positions - np.repeat(frame.bounds[:-1], counts)) & ((1 << lower) - 1)
        writer.fields(counts, 1, width_of(frame.full + 1))
        writer.fields(low, counts, lower)
        writer.bits(upper, np.diff(bounds))
        writer.fields(codes.values, counts, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        from hwmodel import kernels

        expect_header(header, 1)
        lower = header[0]
        if lower > 32 or self.lower not in (-1, lower):
            msg = f"elias_fano cannot have {lower} lower bits"
            raise BlobError(msg)
        counts = reader.fields(1, width_of(frame.full + 1))
        low = reader.fields(counts, lower)
        sizes = counts + (np.maximum(frame.sizes - 1, 0) >> lower)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        upper, ones = reader.bits(sizes)
        if (ones != counts).any():
            msg = "a chunk's upper bits and its number of values differ"
            raise BlobError(msg)
        high = np.flatnonzero(upper.view(np.bool_))
        values = reader.fields(counts, frame.bits, frame.dtype)
        codes = np.zeros(frame.elements, frame.dtype)
        chunks = (counts, bounds[:-1], frame.bounds)
        if kernels.scatter_split(high, low, lower, values, chunks, codes):
            msg = "positions do not rise inside their chunk"
            raise BlobError(msg)
        return codes

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """Each word of the upper bits takes ``max(1, ceil(ones in it / width))``."""
        lower = self._plan(codes, frame).header[0]
        return words_cycles(*self._upper(codes, frame, lower), decoder)

    @staticmethod
    def _upper(
        codes: Codes, frame: Frame, lower: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Set bits of all chunks' upper parts, and where each part begins."""
        counts = codes.counts(frame.bounds)
        sizes = counts + (np.maximum(frame.sizes - 1, 0) >> lower)
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        first = np.concatenate([[0], np.cumsum(counts)])[:-1]
        inside = codes.positions - np.repeat(frame.bounds[:-1], counts)
        order = np.arange(inside.size) - np.repeat(first - bounds[:-1], counts)
        return (inside >> lower) + order, bounds
