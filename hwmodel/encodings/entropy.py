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
    least_divisor,
    read_gaps,
)
from hwmodel.huffman import code_lengths, code_words, decoding_table
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from collections.abc import Sequence

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

    Attributes:
        table: a header to use, in hexadecimal, so that tensors share it; empty makes the best for each.
    """

    name: ClassVar[str] = "entropy"
    table: str = ""

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        try:
            bytes.fromhex(self.table)
        except (TypeError, ValueError):
            msg = f"entropy needs a table in hexadecimal, found {self.table!r}"
            raise ValueError(msg) from None

    @classmethod
    def config_of(cls, header: bytes) -> dict[str, Any]:
        """The table: it may be one that tensors share."""
        return {"table": header.hex()}

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        if self.table:
            return _planned(bytes.fromhex(self.table), codes, frame)
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
        if self.table and header.hex() != self.table:
            msg = f"entropy should have the table {self.table}, found {header.hex()}"
            raise BlobError(msg)
        divisor, lengths = _parse(header, frame.symbol)
        return read_gaps(reader, frame, divisor, decoding_table(lengths), frame.symbol.bits)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each gap ``1 + floor(floor(gap / divisor) / word_bits)``, without gaps 1 an element.

        Whatever the width.
        """
        [divisor, *_] = HEAD.unpack_from(self._plan(codes, frame).header)
        return code_cycles(codes, frame, divisor, decoder) if divisor else frame.sizes


def shared_table(several: Sequence[Codes]) -> str:
    """The best table for tensors of one symbol that share it, none of them in chunks.

    Args:
        several: codes of each tensor, at least one.
    """
    symbol = several[0].symbol
    often = np.zeros(1 << symbol.bits, np.int64)
    gaps: dict[int, int] = {}
    for codes in several:
        often += np.bincount(_symbols(codes.values, symbol), minlength=often.size)
        for gap, *counts in zip(*codes.gap_counts(np.array([0, codes.size])), strict=True):
            gaps[int(gap)] = gaps.get(int(gap), 0) + int(sum(counts))
    distinct, times = np.array(list(gaps), np.int64), np.array(list(gaps.values()), np.int64)
    divisor = least_divisor(distinct, times, DIVISORS)
    return _header(divisor, code_lengths(often)).hex()


def _planned(header: bytes, codes: Codes, frame: Frame) -> Plan:
    """The plan under a header that is given.

    Raises:
        ValueError: when it is none, or has no code for a symbol.
    """
    divisor, lengths = _parse(header, codes.symbol)
    decoding_table(lengths)  # they are those of a code
    values = codes.values if divisor else codes.numbers
    counts = codes.counts(frame.bounds) if divisor else frame.sizes
    symbols = _symbols(values, codes.symbol)
    if not lengths[symbols].all():
        msg = "the table has no code for a symbol of this tensor; give the tensor one of its own"
        raise ValueError(msg)
    coded = sums(lengths[symbols], np.concatenate([[0], np.cumsum(counts)]))
    payload = coded + counts * (codes.bits - codes.symbol.bits)
    if not divisor:
        return Plan(header, payload, np.zeros(frame.chunks, np.int64))
    return Plan(header, payload, chunk_gap_bits(codes, frame, divisor))


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
