"""Rows of equal length, filled up: a column index and a value in each slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
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
        rows, widths = np.diff(frame.row_bounds), self._widths(codes, frame)
        columns, values = gather_slots(codes, row_starts(frame), np.repeat(widths, rows))
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
        if not widths.any():  # there may be far more rows than bits
            return np.zeros(frame.elements, frame.dtype)
        columns = reader.fields(rows * widths, width_of(frame.columns), np.uint32)
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


def gather_slots(
    codes: Codes, bounds: NDArray[np.int64], slots: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[Any]]:
    """Places and values of the nonzero codes, group by group; slots that are left over hold 0 and 0.

    Args:
        codes: of the tensor.
        bounds: first element of each group, and the end.
        slots: how many each group has, enough for its nonzero codes.
    """
    from hwmodel import slot_kernels

    places = np.zeros(int(slots.sum()) + 1, np.uint32)
    values = np.zeros(places.size, codes.numbers.dtype)
    slot_kernels.gather_slots(codes.numbers, bounds, slots, places, values)
    return places[:-1], values[:-1]


def scatter_slots(
    places: NDArray[Any],
    values: NDArray[Any],
    slots: NDArray[np.int64],
    bounds: NDArray[np.int64],
    frame: Frame,
) -> NDArray[Any]:
    """The inverse of :func:`gather_slots`: codes ``(elements,)``.

    Raises:
        BlobError: when places do not rise inside a group, or slots that are not used are not last.
    """
    from hwmodel import slot_kernels

    codes = np.zeros(frame.elements, frame.dtype)
    if slot_kernels.scatter_slots(places, values, bounds, slots, codes):
        msg = "places do not rise inside a group, or slots that hold no value are not last"
        raise BlobError(msg)
    return codes
