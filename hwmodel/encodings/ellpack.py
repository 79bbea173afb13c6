"""Rows of equal length, filled up: a column index and a value in each slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.decoding import sums
from hwmodel.encoding import ChunkedBy, Encoding, expect_header
from hwmodel.encodings.csr import row_starts
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class Ellpack(Encoding):
    """R·w·(V + L(C)) bits, w = values of the fullest row; wins when rows have equally many.

    A chunk is w in ceil(log2(C + 1)) bits, then the columns of its R·w slots, then their values; with
    chunks this is sliced ELLPACK, each with a w of its own. Slots that a row does not need stand
    last in it and hold column 0 and a stored zero.
    """

    name: ClassVar[str] = "ellpack"
    chunked_by: ClassVar[ChunkedBy] = "rows"

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        slots = np.diff(frame.row_bounds) * self._widths(codes, frame)
        metadata = max(1, width_of(frame.columns + 1)) + slots * width_of(frame.columns)
        return Plan(b"", slots * codes.bits, metadata)

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        del header
        by_row = codes.counts(row_starts(frame))
        rows, widths = np.diff(frame.row_bounds), self._widths(codes, frame)
        by_slot = np.concatenate([[0], np.cumsum(np.repeat(widths, rows))])
        first = np.concatenate([[0], np.cumsum(by_row)])
        slot = np.arange(codes.positions.size) + np.repeat(by_slot[:-1] - first[:-1], by_row)
        columns = np.zeros(int(by_slot[-1]), np.int64)
        columns[slot] = codes.positions % max(1, frame.columns)
        values = np.zeros(columns.size, codes.values.dtype)
        values[slot] = codes.values
        writer.fields(widths, 1, max(1, width_of(frame.columns + 1)))
        writer.fields(columns, rows * widths, width_of(frame.columns))
        writer.fields(values, rows * widths, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 0)
        rows = np.diff(frame.row_bounds)
        widths = reader.fields(1, max(1, width_of(frame.columns + 1)))
        if (widths > frame.columns).any():
            msg = f"a row of {frame.columns} cannot have {int(widths.max())} slots"
            raise BlobError(msg)
        columns = reader.fields(rows * widths, width_of(frame.columns))
        values = reader.fields(rows * widths, frame.bits, frame.dtype)
        by_row = np.repeat(widths, rows)
        return scatter_slots(columns, values, by_row, row_starts(frame), frame)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each row ``max(1, ceil(w / width))``: slots that are filled up take their clocks."""
        clocks = np.maximum(1, -(-self._widths(codes, frame) // decoder.width))
        return np.diff(frame.row_bounds) * clocks

    @staticmethod
    def _widths(codes: Codes, frame: Frame) -> NDArray[np.int64]:
        by_row = codes.counts(row_starts(frame))
        if not frame.chunks or not by_row.size:
            return np.zeros(frame.chunks, np.int64)
        return np.maximum.reduceat(by_row, frame.row_bounds[:-1]).astype(np.int64)


def scatter_slots(
    places: NDArray[np.int64],
    values: NDArray[Any],
    slots: NDArray[np.int64],
    bounds: NDArray[np.int64],
    frame: Frame,
) -> NDArray[Any]:
    """Codes from slots that hold a place in their group and a value.

    Args:
        places: of each slot, from the start of its group.
        values: of each slot; slots of value 0 are not used and must be the last of their group.
        slots: how many each group has.
        bounds: first element of each group, and the end.
        frame: whose codes to make.

    Raises:
        BlobError: when places do not rise inside the group, or an unused slot names one.
    """
    starts = np.repeat(bounds[:-1], slots)
    used = values != 0
    positions = (starts + places)[used]
    ends = np.repeat(bounds[1:], slots)[used]
    first = np.concatenate([[0], np.cumsum(slots)])
    filled = sums(used, first)
    order = np.arange(values.size) - np.repeat(first[:-1], slots)
    dense = used == (order < np.repeat(filled, slots))
    if not dense.all() or places[~used].any():
        msg = "slots that are not used are not last, or name a place"
        raise BlobError(msg)
    if (positions >= ends).any() or (positions[1:] <= positions[:-1]).any():
        msg = "places do not rise inside a group"
        raise BlobError(msg)
    codes = np.zeros(frame.elements, frame.dtype)
    codes[positions] = values[used]
    return codes
