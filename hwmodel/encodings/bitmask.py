"""A bit for each element, then the nonzero values (SparTen, SIGMA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hwmodel.decoding import words_cycles
from hwmodel.encoding import Encoding, expect_header
from hwmodel.layout import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class Bitmask(Encoding):
    """N + n·V bits; wins at densities from about 1/4 to 1 - 1/V.

    A chunk is its mask, element 0 in the lowest bit, then its values.
    """

    name: ClassVar[str] = "bitmask"

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        return Plan(b"", codes.counts(frame.bounds) * codes.bits, frame.sizes)

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        del header
        writer.bits(codes.mask, frame.sizes)
        writer.fields(codes.values, codes.counts(frame.bounds), codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 0)
        mask, counts = reader.bits(frame.sizes)
        return reader.expand(mask, counts, frame)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """Each word of the mask takes ``max(1, ceil(ones in it / width))``."""
        return words_cycles(codes.positions, frame.bounds, decoder)
