"""Every value, zero or not, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.encoding import Encoding, expect_header
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class Dense(Encoding):
    """N values of V bits; wins above a density of 1 - 1/V. Needs no pointers."""

    name: ClassVar[str] = "dense"

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        return Plan(b"", frame.sizes * codes.bits, np.zeros(frame.chunks, np.int64))

    def _fixed_bits(self, header: bytes, frame: Frame) -> NDArray[np.int64]:
        del header
        return frame.sizes * frame.bits

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        del header
        writer.fields(codes.numbers, frame.sizes, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 0)
        return reader.fields(frame.sizes, frame.bits, frame.dtype)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """``ceil(elements / width)``."""
        del codes
        return -(-frame.sizes // decoder.width)
