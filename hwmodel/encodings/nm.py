"""N values kept in each group of M along a row, with their places in the group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.encoding import ChunkedBy, Encoding, expect_header
from hwmodel.encodings.csr import row_starts
from hwmodel.encodings.ellpack import gather_slots
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class NM(Encoding):
    """N·(V + L(M)) bits for each group of M; needs no pointers and decodes at a fixed stride.

    Groups run along rows; the last of a row may be short. The header is two bytes, N - 1 and M - 1. A
    chunk is the places of all its slots, then their values. Slots that a group does not need stand
    last in it and hold place 0 and a stored zero.

    Attributes:
        n: values kept, 1 to m; 0 takes as many as the fullest group has.
        m: elements of a group, 2 to 256.
    """

    name: ClassVar[str] = "nm"
    chunked_by: ClassVar[ChunkedBy] = "rows"
    n: int = 0
    m: int = 4

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("m", 2, 256)
        self._check("n", 0, self.m)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        most = self._most(codes)
        n = self.n or most
        if most > n:
            msg = f"it is not {n}:{self.m}: a group of {self.m} has {most} nonzero values; prune it to the pattern first, or take another encoding"
            raise ValueError(msg)
        slots = self._slots(frame, n)
        return Plan(bytes([n - 1, self.m - 1]), slots * codes.bits, slots * width_of(self.m))

    def _fixed_bits(self, header: bytes, frame: Frame) -> NDArray[np.int64]:
        return self._slots(frame, self._kept(header)) * (frame.bits + width_of(self.m))

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        n, bounds = self._kept(header), self._groups(frame)
        places, values = gather_slots(codes, bounds, np.full(bounds.size - 1, n))
        writer.fields(places, self._slots(frame, n), width_of(self.m))
        writer.fields(values, self._slots(frame, n), codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        n = self._kept(header)
        return reader.groups(n, self.m, frame)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """``ceil(slots / width)``."""
        n = self._kept(self._plan(codes, frame).header)
        return -(-self._slots(frame, n) // decoder.width)

    def _kept(self, header: bytes) -> int:
        expect_header(header, 2)
        n = header[0] + 1
        if header[1] + 1 != self.m or n > self.m or self.n not in (0, n):
            msg = f"nm with groups of {self.m} cannot keep {n} of {header[1] + 1}"
            raise BlobError(msg)
        return n

    def _groups(self, frame: Frame) -> NDArray[np.int64]:
        """First element of each group, and the end."""
        inside = np.arange(0, frame.columns, self.m, dtype=np.int64)
        starts = (row_starts(frame)[:-1, None] + inside).ravel()
        return np.append(starts, np.int64(frame.elements))

    def _most(self, codes: Codes) -> int:
        """Nonzero codes of the fullest group; at least 1."""
        mask = codes.mask.reshape(codes.rows, codes.columns)
        counts = np.zeros((codes.rows, -(-codes.columns // self.m)), np.uint16)
        for place in range(min(self.m, codes.columns)):
            column = mask[:, place :: self.m]
            counts[:, : column.shape[1]] += column
        return max(1, int(counts.max(initial=0)))

    def _slots(self, frame: Frame, n: int) -> NDArray[np.int64]:
        return np.diff(frame.row_bounds) * -(-frame.columns // self.m) * n
