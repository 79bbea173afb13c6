"""Golomb gaps and Huffman values: within a per cent of the entropy, in chunks that decode alone."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import pack_fields, unpack_fields
from hwmodel.decoding import sums
from hwmodel.encoding import Encoding
from hwmodel.errors import BlobError
from hwmodel.golomb import (
    best_divisor,
    chunk_gap_bits,
    code_cycles,
    read_gaps,
)
from hwmodel.huffman import code_lengths, code_words, decoding_table
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes, Symbol
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer

DIVISORS = sorted({mantissa << exponent for mantissa in range(1, 16) for exponent in range(28)})
"""Four significant bits: in between nothing is gained."""
HEAD = struct.Struct("<IBB")


@dataclass(frozen=True)
class Entropy(Encoding):
    """About N·H(w) bits: gaps as in ``rice`` but with any divisor, values in a canonical Huffman code.

    A tensor that is mostly not zero has no gaps: every code, zeros too, is in the Huffman code.

    Of a float only the exponent is Huffman coded, sign and mantissa follow as they are; of an integer
    the whole code. The header is the divisor in 4 bytes (0: no gaps), the first and the last symbol that occurs,
    and for all from first to last the length of its code in 4 bits (0: does not occur; at most 12).
    """

    name: ClassVar[str] = "entropy"

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        with_gaps = self._with_gaps(codes, frame)
        if 2 * codes.positions.size <= codes.size:
            return with_gaps
        whole = self._whole(codes, frame)
        bits = [int((one.payload_bits + one.metadata_bits).sum()) for one in (with_gaps, whole)]
        return whole if bits[1] < bits[0] else with_gaps

    @staticmethod
    def _with_gaps(codes: Codes, frame: Frame) -> Plan:
        divisor = best_divisor(codes, frame, DIVISORS)
        counts = codes.counts(frame.bounds)
        lengths, coded = _coded(codes.values, codes.symbol, counts)
        payload = coded + counts * (codes.bits - codes.symbol.bits)
        return Plan(_header(divisor, lengths), payload, chunk_gap_bits(codes, frame, divisor))

    @staticmethod
    def _whole(codes: Codes, frame: Frame) -> Plan:
        lengths, coded = _coded(codes.numbers, codes.symbol, frame.sizes)
        payload = coded + frame.sizes * (codes.bits - codes.symbol.bits)
        return Plan(_header(0, lengths), payload, np.zeros(frame.chunks, np.int64))

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        divisor, lengths = _parse(header, codes.symbol)
        writer.gaps(codes, frame.bounds, divisor, code_words(lengths), lengths)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        divisor, lengths = _parse(header, frame.symbol)
        return read_gaps(reader, frame, divisor, decoding_table(lengths), frame.symbol.bits)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each gap ``1 + floor(floor(gap / divisor) / word_bits)``, without gaps 1 an element.

        Whatever the width.
        """
        [divisor, *_] = HEAD.unpack_from(self._plan(codes, frame).header)
        return code_cycles(codes, frame, divisor, decoder) if divisor else frame.sizes


def _symbols(values: NDArray[Any], symbol: Symbol) -> NDArray[np.uint8]:
    shifted = np.right_shift(values, values.dtype.type(symbol.shift))
    symbols: NDArray[np.uint8] = shifted.astype(np.uint8)
    return symbols & np.uint8((1 << symbol.bits) - 1)


def _coded(
    values: NDArray[Any], symbol: Symbol, counts: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Lengths of the symbols' code words, and the bits that each chunk's symbols take in all."""
    symbols = _symbols(values, symbol)
    often = np.bincount(symbols, minlength=1 << symbol.bits)
    lengths = code_lengths(often)
    if counts.size == 1:
        return lengths, np.array([lengths.astype(np.int64) @ often])
    return lengths, sums(lengths[symbols], np.concatenate([[0], np.cumsum(counts)]))


def _header(divisor: int, lengths: NDArray[np.uint8]) -> bytes:
    used = np.flatnonzero(lengths)
    if not used.size:
        return HEAD.pack(divisor, 1, 0)
    first, last = int(used[0]), int(used[-1])
    return HEAD.pack(divisor, first, last) + pack_fields(lengths[first : last + 1], 4)


def _parse(header: bytes, symbol: Symbol) -> tuple[int, NDArray[np.uint8]]:
    if len(header) < HEAD.size:
        msg = f"expected a header of {HEAD.size} bytes or more, found {len(header)}"
        raise BlobError(msg)
    divisor, first, last = HEAD.unpack_from(header)
    empty = (first, last) == (1, 0)
    if last >= 1 << symbol.bits or (first > last and not empty):
        msg = f"entropy cannot have divisor {divisor} and symbols {first} to {last}"
        raise BlobError(msg)
    lengths = np.zeros(1 << symbol.bits, np.uint8)
    lengths[first : last + 1] = unpack_fields(header[HEAD.size :], 4, last + 1 - first)
    if not empty and (not lengths[first] or not lengths[last]):
        msg = f"symbols {first} and {last} should have codes"
        raise BlobError(msg)
    return divisor, lengths
