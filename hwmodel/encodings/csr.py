"""Compressed sparse rows: a column index with each value, and where each row starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.decoding import sums
from hwmodel.encoding import ChunkedBy, Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.layout import Plan
from hwmodel.running import read_running, write_running

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class CSR(Encoding):
    """n·(V + L(C)) + (R + 1)·L(n + 1) bits, L(x) = ceil(log2 x); wins below densities of 1/L(C).

    Rows are the first axis. The header is one byte, the bits of a row pointer: those that the chunk
    of most values needs, at least 1. A chunk is its row pointers, counted in values from 0 to all,
    then the columns, then the values.
    """

    name: ClassVar[str] = "csr"
    chunked_by: ClassVar[ChunkedBy] = "rows"

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        counts = codes.counts(frame.bounds)
        width = max(1, width_of(int(counts.max(initial=0)) + 1))
        pointers = (np.diff(frame.row_bounds) + 1) * width
        return Plan(
            bytes([width]), counts * codes.bits, pointers + counts * width_of(frame.columns)
        )

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        counts = codes.counts(frame.bounds)
        write_running(codes.counts(row_starts(frame)), frame.row_bounds, header[0], writer)
        writer.fields(codes.positions % max(1, frame.columns), counts, width_of(frame.columns))
        writer.fields(codes.values, counts, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        by_row = read_running(header[0], frame.row_bounds, frame.columns, reader)
        counts = sums(by_row, frame.row_bounds)
        columns = reader.fields(counts, width_of(frame.columns))
        positions = np.repeat(row_starts(frame)[:-1], by_row)
        positions += columns
        inside = columns.max(initial=0) < max(1, frame.columns)
        if not inside or (positions[1:] <= positions[:-1]).any():
            msg = f"column indices do not rise inside a row of {frame.columns}"
            raise BlobError(msg)
        codes = np.zeros(frame.elements, frame.dtype)
        codes[positions] = reader.fields(counts, frame.bits, frame.dtype)
        return codes

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each row ``max(1, ceil(values / width))``."""
        clocks = np.maximum(1, -(-codes.counts(row_starts(frame)) // decoder.width))
        return sums(clocks, frame.row_bounds)


def row_starts(frame: Frame) -> NDArray[np.int64]:
    """First element of each row, and the end, int64 ``(rows + 1,)``."""
    return np.arange(frame.rows + 1, dtype=np.int64) * frame.columns
