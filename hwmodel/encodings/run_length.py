"""How many zeros come before each value, in a few bits; longer runs take fillers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import unary_ends, width_of
from hwmodel.decoding import sums
from hwmodel.encoding import Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer

WIDTHS = range(1, 17)


@dataclass(frozen=True)
class RunLength(Encoding):
    """(n + fillers)·(V + bits), fillers = sum of floor(gap / 2^bits); wins at densities below 1/4.

    An entry is a gap of up to 2^bits - 1 zeros and a value. A longer gap begins with fillers, each
    of 2^bits - 1 zeros and a stored zero. Zeros after the last value of a chunk are not stored. The
    header is one byte, the bits of a gap. A chunk is the number of its entries in
    ceil(log2(elements of a whole chunk + 1)) bits, the gaps, and the values with the fillers' zeros.

    Attributes:
        bits: of a gap, 1 to 16; 0 takes the best for each tensor.
    """

    name: ClassVar[str] = "run_length"
    bits: int = 0

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("bits", 0, WIDTHS[-1])

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        bits = self.bits or _best_width(codes, frame)
        entries = codes.counts(frame.bounds) + _fillers(codes, frame, bits)
        count_bits = width_of(frame.full + 1)
        return Plan(bytes([bits]), entries * codes.bits, count_bits + entries * bits)

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        bits = header[0]
        gaps, _ = codes.gaps(frame.bounds)
        ends = unary_ends(gaps >> bits)  # the entry of each value
        total = int(ends[-1]) + 1 if ends.size else 0
        runs = np.full(total, (1 << bits) - 1, np.uint16)
        runs[ends] = gaps & ((1 << bits) - 1)
        values = np.zeros(total, codes.values.dtype)
        values[ends] = codes.values
        entries = codes.counts(frame.bounds) + _fillers(codes, frame, bits)
        writer.fields(entries, 1, width_of(frame.full + 1))
        writer.fields(runs, entries, bits)
        writer.fields(values, entries, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        bits = header[0]
        if bits not in WIDTHS or self.bits not in (0, bits):
            msg = f"run_length cannot have gaps of {bits} bits"
            raise BlobError(msg)
        entries = reader.fields(1, width_of(frame.full + 1))
        if (entries > frame.sizes).any():
            msg = "a chunk has more entries than elements"
            raise BlobError(msg)
        steps = reader.fields(entries, bits)
        steps += 1
        values = reader.fields(entries, frame.bits, frame.dtype)
        return scatter_steps(steps, entries, frame, values)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """``ceil(entries / width)``, fillers included."""
        bits = self._plan(codes, frame).header[0]
        entries = codes.counts(frame.bounds) + _fillers(codes, frame, bits)
        return -(-entries // decoder.width)


def scatter_steps(
    steps: NDArray[np.int64], entries: NDArray[np.int64], frame: Frame, values: NDArray[Any]
) -> NDArray[Any]:
    """Codes from values that each lie so many elements behind the one before, or the chunk's start.

    Raises:
        BlobError: when a chunk's steps lead out of it.
    """
    first = np.concatenate([[0], np.cumsum(entries)])
    reached = frame.bounds[:-1] + sums(steps, first)
    if (reached > frame.bounds[1:]).any():
        chunk = int(np.argmax(reached > frame.bounds[1:]))
        msg = f"gaps of chunk {chunk} lead {int((reached - frame.bounds[1:])[chunk])} elements beyond its end"
        raise BlobError(msg)
    # one running sum for all chunks: the first step of each also closes what the last left open
    filled = np.flatnonzero(entries)
    steps[first[filled]] += frame.bounds[filled] - np.concatenate([[0], reached[filled]])[:-1]
    positions = np.cumsum(steps)
    positions -= 1
    codes = np.zeros(frame.elements, values.dtype)
    codes[positions] = values
    return codes


def _fillers(codes: Codes, frame: Frame, bits: int) -> NDArray[np.int64]:
    if frame.chunks == 1:
        distinct, often, _ = codes.gap_counts(frame.bounds)
        return np.array([int((distinct >> bits) @ often)])
    gaps, _ = codes.gaps(frame.bounds)
    return sums(gaps >> bits, np.concatenate([[0], np.cumsum(codes.counts(frame.bounds))]))


def _best_width(codes: Codes, frame: Frame) -> int:
    """The bits that make the entries smallest."""
    gaps, often, _ = codes.gap_counts(frame.bounds)
    sizes = [int(((gaps >> bits) + 1) @ often) * (codes.bits + bits) for bits in WIDTHS]
    return WIDTHS[int(np.argmin(sizes))]
