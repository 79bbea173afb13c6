"""Short runs of equal count, filled up: a place in the run and a value in each slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.encoding import Encoding, expect_header
from hwmodel.encodings.ellpack import gather_slots, scatter_slots
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class Segments(Encoding):
    """S·k·(V + L(width)) bits, k = values of the fullest of S runs; for weights pruned to equal counts.

    A chunk is k in L(width + 1) bits, then the places of its S·k slots, then their values. Lanes that
    take a run each find theirs at a fixed stride, without counts or pointers of their own. Slots that
    a run does not need stand last in it and hold place 0 and a stored zero.

    Attributes:
        width: elements of a run, 2 to 65536; the last of a chunk may have fewer.
    """

    name: ClassVar[str] = "segments"
    width: int = 64

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("width", 2, 1 << 16)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        slots = self._runs(frame) * self._fullest(codes, frame)
        return Plan(
            b"", slots * codes.bits, width_of(self.width + 1) + slots * width_of(self.width)
        )

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        del header
        runs, fullest = self._runs(frame), self._fullest(codes, frame)
        places, values = gather_slots(codes, self._bounds_of(frame), np.repeat(fullest, runs))
        writer.fields(fullest, 1, width_of(self.width + 1))
        writer.fields(places, runs * fullest, width_of(self.width))
        writer.fields(values, runs * fullest, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 0)
        fullest = reader.fields(1, width_of(self.width + 1))
        if (fullest > self.width).any():
            msg = f"a run of {self.width} cannot have {int(fullest.max())} slots"
            raise BlobError(msg)
        if not fullest.any():
            return np.zeros(frame.elements, frame.dtype)
        runs = self._runs(frame)
        places = reader.fields(runs * fullest, width_of(self.width), np.uint32)
        values = reader.fields(runs * fullest, frame.bits, frame.dtype)
        slots = np.repeat(fullest, runs)
        return scatter_slots(places, values, slots, self._bounds_of(frame), frame)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """``ceil(slots / width)``: slots that are filled up take their clocks."""
        return -(-self._runs(frame) * self._fullest(codes, frame) // decoder.width)

    def _runs(self, frame: Frame) -> NDArray[np.int64]:
        """How many runs each chunk has."""
        return -(-frame.sizes // self.width)

    def _bounds_of(self, frame: Frame) -> NDArray[np.int64]:
        """First element of each run, and the end."""
        runs = self._runs(frame)
        inside = np.arange(runs.sum()) - np.repeat(np.cumsum(runs) - runs, runs)
        starts = np.repeat(frame.bounds[:-1], runs) + inside * self.width
        return np.append(starts, np.int64(frame.elements))

    def _fullest(self, codes: Codes, frame: Frame) -> NDArray[np.int64]:
        """Nonzero codes of the fullest run of each chunk."""
        runs = self._runs(frame)
        if not runs.size:
            return np.zeros(0, np.int64)
        counts = codes.counts(self._bounds_of(frame))
        return np.maximum.reduceat(counts, np.cumsum(runs) - runs).astype(np.int64)
