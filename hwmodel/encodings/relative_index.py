"""Columns of short gaps and values, as EIE stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import unary_ends, width_of
from hwmodel.decoding import sums
from hwmodel.encoding import ChunkedBy, Encoding, expect_header
from hwmodel.encodings.csr import row_starts
from hwmodel.encodings.run_length import WIDTHS, scatter_steps
from hwmodel.layout import Frame, Plan
from hwmodel.running import read_running, write_running

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class RelativeIndex(Encoding):
    """(n + fillers)·(V + bits) and a pointer for each column (Han et al., EIE, 2016).

    As ``run_length``, but down the columns of the matrix, each starting afresh, so that a column can
    be read alone. EIE has 4 bits and a codebook of 16 entries (``values="codebook"``) with 16-bit
    pointers; here a pointer is as wide as the largest chunk needs, which the header's byte says. A
    chunk is its column pointers, counted in entries from 0 to all, then the gaps, then the values.

    Attributes:
        bits: of a gap, 1 to 16.
    """

    name: ClassVar[str] = "relative_index"
    chunked_by: ClassVar[ChunkedBy] = "columns"
    bits: int = 4

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("bits", 1, WIDTHS[-1])

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        entries = sums(self._entries(codes, frame), frame.row_bounds)
        width = max(1, width_of(int(entries.max(initial=0)) + 1))
        pointers = (np.diff(frame.row_bounds) + 1) * width
        return Plan(bytes([width]), entries * codes.bits, pointers + entries * self.bits)

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        gaps, _ = codes.gaps(row_starts(frame))
        ends = unary_ends(gaps >> self.bits)  # the entry of each value
        total = int(ends[-1]) + 1 if ends.size else 0
        runs = np.full(total, (1 << self.bits) - 1, np.uint16)
        runs[ends] = gaps & ((1 << self.bits) - 1)
        values = np.zeros(total, codes.values.dtype)
        values[ends] = codes.values
        by_column = self._entries(codes, frame)
        entries = sums(by_column, frame.row_bounds)
        write_running(by_column, frame.row_bounds, header[0], writer)
        writer.fields(runs, entries, self.bits)
        writer.fields(values, entries, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        by_column = read_running(header[0], frame.row_bounds, frame.columns, reader)
        entries = sums(by_column, frame.row_bounds)
        steps = reader.fields(entries, self.bits)
        steps += 1
        values = reader.fields(entries, frame.bits, frame.dtype)
        single = Frame(
            frame.bits, frame.rows, frame.columns, row_starts(frame), frame.columns, frame.symbol
        )
        return scatter_steps(steps, by_column, single, values)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each column ``max(1, ceil(entries / width))``, fillers included."""
        clocks = np.maximum(1, -(-self._entries(codes, frame) // decoder.width))
        return sums(clocks, frame.row_bounds)

    def _entries(self, codes: Codes, frame: Frame) -> NDArray[np.int64]:
        """Entries of each column, fillers included."""
        bounds = row_starts(frame)
        gaps, _ = codes.gaps(bounds)
        counts = codes.counts(bounds)
        far = np.flatnonzero(gaps >> self.bits)  # only these need fillers
        column = np.searchsorted(np.cumsum(counts), far, side="right")
        fillers = np.bincount(column, weights=gaps[far] >> self.bits, minlength=counts.size)
        return counts + fillers.astype(np.int64)
