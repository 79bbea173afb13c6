"""Gaps in Golomb's code: how long they are, and which divisor is best."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.bits import width_of
from hwmodel.decoding import sums
from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader

LARGEST_DIVISOR = 2**32
_WINDOW, _PAIR_WINDOW = 11, 12
"""Bits of a gap's code, alone or with a value's, that decoding tables look at; those of
:mod:`hwmodel.gap_kernels`, which is to be imported late."""
_TROUBLES = {
    1: "the bits of a chunk end inside a code",
    2: "a gap leads out of its chunk",
    3: "a bit pattern is no code of a value",
}


def gap_bits(gaps: NDArray[np.int64], divisor: int) -> NDArray[np.int64]:
    """Length of each gap's code: a quotient in unary and a remainder in truncated binary."""
    quotients, rest = np.divmod(gaps, divisor)
    bits = width_of(divisor)
    return quotients + 1 + bits - (rest < (1 << bits) - divisor)


def best_divisor(codes: Codes, frame: Frame, divisors: Sequence[int]) -> int:
    """The divisor under which all gaps of a tensor take the fewest bits."""
    distinct, before, behind = codes.gap_counts(frame.bounds)
    return least_divisor(distinct, before + behind, divisors)


def least_divisor(
    distinct: NDArray[np.int64], often: NDArray[np.int64], divisors: Sequence[int]
) -> int:
    """The divisor under which gaps that occur so often take the fewest bits."""
    # the lengths are convex in the divisor but for small ripples, so far ones need no look
    mean = float(distinct @ often) / max(1, int(often.sum()))
    near = [d for d in divisors if mean / 8 <= d <= 2 * mean + 4] or [divisors[0]]
    totals = [int(gap_bits(distinct, divisor) @ often) for divisor in near]
    return near[int(np.argmin(totals))]


def chunk_gap_bits(codes: Codes, frame: Frame, divisor: int) -> NDArray[np.int64]:
    """Bits of all gaps of each chunk, int64 ``(chunks,)``."""
    if frame.chunks == 1:
        distinct, before, behind = codes.gap_counts(frame.bounds)
        return np.array([int(gap_bits(distinct, divisor) @ (before + behind))])
    gaps, rest = codes.gaps(frame.bounds)
    ends = np.concatenate([[0], np.cumsum(codes.counts(frame.bounds))])
    last = np.where(rest > 0, gap_bits(rest, divisor), 0)
    longest = int(gaps.max(initial=0))
    if longest < gaps.size:  # looking up is faster than dividing
        return sums(gap_bits(np.arange(longest + 1), divisor)[gaps], ends) + last
    return sums(gap_bits(gaps, divisor), ends) + last


def code_cycles(
    codes: Codes, frame: Frame, divisor: int, decoder: DecoderSpec
) -> NDArray[np.int64]:
    """Clocks to decode each chunk's gaps with their values.

    A code takes a clock, and one more for each ``word_bits`` zeros of its unary part.
    """
    gaps, rest = codes.gaps(frame.bounds)
    ends = np.concatenate([[0], np.cumsum(codes.counts(frame.bounds))])
    step = divisor * decoder.word_bits
    return sums(gaps // step + 1, ends) + np.where(rest > 0, rest // step + 1, 0)


def gap_words(divisor: int) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
    """Codes of the gaps below 4096, first bit lowest, and their lengths; 0 bits for more than 40."""
    quotients, rest = np.divmod(np.arange(4096), divisor)
    bits, lengths = width_of(divisor), gap_bits(np.arange(4096), divisor)
    short = (1 << bits) - divisor
    split = rest + short
    wide = (split >> 1) | ((split & 1) << max(0, bits - 1))
    fields = np.where((short == 0) | (rest < short), rest, wide)
    fits = lengths <= 40
    quotients = np.where(fits, quotients, 0)
    words = (2 * fields + 1) << quotients
    return words.astype(np.uint64), np.where(fits, lengths, 0).astype(np.uint8)


def gap_table(divisor: int) -> NDArray[np.uint32]:
    """For each pattern of 11 bits the gap times 32, and the bits of its code; 0 where it is longer."""
    table = np.zeros(1 << _WINDOW, np.uint32)
    if divisor << 5 >= 2**27 // _WINDOW:
        return table
    bits = width_of(divisor)
    short = (1 << bits) - divisor
    patterns = np.arange(1 << _WINDOW)
    for quotient in range(_WINDOW):
        here = patterns & ((2 << quotient) - 1) == 1 << quotient
        field = patterns >> (quotient + 1)
        if short == 0:
            rest, taken = field & (divisor - 1), np.full(patterns.size, bits)
        else:
            rest = field & ((1 << (bits - 1)) - 1)
            wide = rest >= short
            upper = (field >> (bits - 1)) & 1
            rest, taken = np.where(wide, 2 * rest + upper - short, rest), bits - 1 + wide
        taken = taken + quotient + 1
        fits = here & (taken <= _WINDOW)
        table[fits] = ((quotient * divisor + rest) * 32 + taken)[fits]
    return table


def pair_table(gaps: NDArray[np.uint32], symbols: NDArray[np.uint16]) -> NDArray[np.uint32]:
    """For each pattern of 12 bits that is a gap's code and then a value's: both, and their bits.

    Args:
        gaps: :func:`gap_table`.
        symbols: :func:`hwmodel.huffman.decoding_table` of a code of whole values.

    Returns:
        The gap times 2^13, the value times 32, and the bits of the two codes together; 0 where these
        are more than 12, or no codes.
    """
    patterns = np.arange(1 << _PAIR_WINDOW, dtype=np.uint32)
    gap = gaps[patterns & np.uint32(gaps.size - 1)]
    taken = gap & np.uint32(31)
    symbol = symbols[(patterns >> taken) & np.uint32(symbols.size - 1)].astype(np.uint32)
    bits = taken + (symbol >> np.uint32(8))
    good = (taken > 0) & (symbol >= 256) & (bits <= _PAIR_WINDOW) & (gap >> np.uint32(5) < 1 << 19)
    pair = (gap >> np.uint32(5)) << np.uint32(13) | (symbol & np.uint32(255)) << np.uint32(5) | bits
    return np.where(good, pair, np.uint32(0))


def read_gaps(
    reader: Reader,
    frame: Frame,
    divisor: int,
    symbol_table: NDArray[np.uint16],
    symbol_bits: int,
) -> NDArray[Any]:
    """Codes ``(elements,)`` from gaps and values.

    Args:
        reader: at the first gap of each chunk.
        frame: of the codes.
        divisor: of the Golomb code, below ``LARGEST_DIVISOR``; 0 where there are no gaps.
        symbol_table: see `hwmodel.gap_kernels.read_codes`; of any content where values are raw.
        symbol_bits: 0 where values are raw.

    Raises:
        BlobError: when the bits are not those of such codes.
    """
    from hwmodel import gap_kernels

    codes = np.zeros(frame.elements, frame.dtype)
    reached = reader.places.copy()
    chunks = (reader.places, reader.ends, frame.bounds)
    form = (frame.symbol.shift if symbol_bits else 0, symbol_bits, frame.bits)
    if divisor == 0:
        trouble = gap_kernels.read_symbols(reader.words, chunks, symbol_table, form, codes, reached)
    else:
        gaps, pairs = gap_table(divisor), np.zeros(1, np.uint32)
        if symbol_bits == frame.bits:  # a value is its symbol
            pairs = pair_table(gaps, symbol_table)
        trouble = gap_kernels.read_codes(
            reader.words,
            chunks,
            (divisor, width_of(divisor)),
            (pairs, gaps, symbol_table),
            form,
            codes,
            reached,
        )
    if trouble:
        raise BlobError(_TROUBLES[trouble])
    reader.places = reached
    return codes
