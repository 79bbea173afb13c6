"""Gaps in Rice's code, each followed by its value: one bit string, one value after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.encoding import Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.golomb import best_divisor, chunk_gap_bits, code_cycles, read_gaps
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer

LARGEST_K = 31


@dataclass(frozen=True)
class Rice(Encoding):
    """sum of (floor(gap/2^k) + 1 + k) + n·V bits; wins at densities up to 1/2.

    The header is one byte, k. A chunk is for each value its gap g, that is floor(g/2^k) zero bits, a
    one and the k lower bits of g, and then the value as it is. Where zeros follow the last value of a
    chunk, their number stands there as one more gap, which leads to the chunk's end.

    Attributes:
        k: 0 to 31; -1 takes the best for each tensor.
    """

    name: ClassVar[str] = "rice"
    k: int = -1

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("k", -1, LARGEST_K)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        k = self.k
        if k < 0:
            choices = [1 << k for k in range(LARGEST_K + 1)]
            k = best_divisor(codes, frame, choices).bit_length() - 1
        payload = codes.counts(frame.bounds) * codes.bits
        return Plan(bytes([k]), payload, chunk_gap_bits(codes, frame, 1 << k))

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        writer.gaps(codes, frame.bounds, 1 << header[0])

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        if header[0] > LARGEST_K or self.k not in (-1, header[0]):
            msg = f"rice cannot have k = {header[0]}"
            raise BlobError(msg)
        return read_gaps(reader, frame, 1 << header[0], np.zeros(1, np.uint16), 0)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each gap ``1 + floor(floor(gap / 2^k) / word_bits)``, whatever the width."""
        return code_cycles(codes, frame, 1 << self._plan(codes, frame).header[0], decoder)
