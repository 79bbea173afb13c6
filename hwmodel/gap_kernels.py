"""Loops over gaps in Golomb's code and the values between them; see :mod:`hwmodel.kernels`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.jit import compiled, inner
from hwmodel.kernels import DONE, NO_CODE, ONE, OUTSIDE, OVERRUN, low_bits, put, window_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

GAP_WINDOW = 11
"""Bits of a gap's code that a table decodes at once."""
PAIR_WINDOW = 12
"""Bits of a gap's code and its value's that a table decodes together."""
PAIRS_IN_WINDOW = 4
"""So many of those, and what is looked at for one more, fit into 64 bits."""
SYMBOLS_IN_WINDOW = 5
"""Codes of symbols, at most 12 bits each, that 64 bits hold."""


@inner
def _put_gap(words: Any, place: Any, gap: Any, divisor: Any, long_bits: Any) -> Any:
    """Write a gap: ``gap // divisor`` zero bits, a one, the remainder in truncated binary."""
    quotient = gap // divisor
    place = put(words, place + quotient, ONE, 1)
    rest = gap - quotient * divisor
    short = (1 << long_bits) - divisor
    if rest < short:
        return put(words, place, np.uint64(rest), long_bits - 1)
    if short == 0:
        return put(words, place, np.uint64(rest), long_bits)
    place = put(words, place, np.uint64((rest + short) >> 1), long_bits - 1)
    return put(words, place, np.uint64((rest + short) & 1), 1)


@compiled
def write_codes(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    bounds: NDArray[np.int64],
    nonzeros: tuple[NDArray[np.int64], NDArray[Any]],
    gap_form: tuple[int, int],
    gap_code: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    code: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    value_form: tuple[int, int, int],
) -> None:
    """Gaps in Golomb code, each followed by its value: the code of its symbol, then its other bits.

    Args:
        words: zeros, to be written to.
        starts: first bit of each chunk.
        bounds: first element of each chunk, and the end. A last gap without a value leads to the end
            of a chunk that does not end in a value.
        nonzeros: positions and values.
        gap_form: divisor and ``ceil(log2(divisor))``.
        gap_code: words and lengths of the shortest gaps, 0 bits where that is above 40.
        code: words and lengths of the symbols, at most 24 bits.
        value_form: place and bits of the symbol, which are 0 for raw values, and bits of a value.
    """
    positions, values = nonzeros
    divisor, long_bits = gap_form
    gap_words, gap_lengths = gap_code
    code_words, code_lengths = code
    shift, symbol_bits, bits = value_form
    mask, low, raw_bits = low_bits(symbol_bits), low_bits(shift), bits - symbol_bits
    k = 0
    for i in range(starts.size):
        place, cursor, end = starts[i], bounds[i], bounds[i + 1]
        while k < positions.size and positions[k] < end:
            gap, value = positions[k] - cursor, np.uint64(values[k])
            field, length = np.uint64(0), np.int64(0)
            if gap < gap_words.size and gap_lengths[gap]:
                field, length = gap_words[gap], np.int64(gap_lengths[gap])
            else:
                place = _put_gap(words, place, gap, divisor, long_bits)
            if symbol_bits:
                symbol = (value >> np.uint64(shift)) & mask
                field |= code_words[symbol] << np.uint64(length)
                length += np.int64(code_lengths[symbol])
                above = (value >> np.uint64(shift)) >> np.uint64(symbol_bits)
                value = (value & low) | (above << np.uint64(shift))
            place = put(words, place, field, length)
            if raw_bits:
                place = put(words, place, value, raw_bits)
            cursor = positions[k] + 1
            k += 1
        if cursor < end:
            _put_gap(words, place, end - cursor, divisor, long_bits)


@inner
def _long_gap(words: Any, place: Any, last: Any, most: Any, gap_form: Any) -> Any:
    """A gap of which the code is too long for the table: the gap, -1 if it is none, and its end."""
    divisor, long_bits = gap_form
    quotient = 0
    window = words[place >> 6] >> np.uint64(place & 63)
    while window == 0:
        step = 64 - (place & 63)
        quotient += step
        place += step
        if place >= last:
            return -1, place
        window = words[place >> 6]
    while window & ONE == 0:
        window >>= ONE
        quotient += 1
        place += 1
    place += 1
    if place > last or quotient > most // divisor:
        return -1, place
    window = window_at(words, place)
    short = (1 << long_bits) - divisor
    if short == 0:
        return quotient * divisor + np.int64(window & np.uint64(divisor - 1)), place + long_bits
    rest = np.int64(window & low_bits(long_bits - 1))
    place += long_bits - 1
    if rest >= short:
        rest = (rest << 1) + np.int64((window >> np.uint64(long_bits - 1)) & ONE) - short
        place += 1
    return quotient * divisor + rest, place


@inner
def _get_value(
    words: Any, place: Any, window: Any, symbol_table: Any, code_mask: Any, form: Any
) -> Any:
    """The inverse of :func:`_put_value`: the value, and the place after, -1 where there is no code.

    The window holds the next 53 bits; what is longer is looked up.
    """
    shift, symbol_bits, bits = form
    if symbol_bits == 0:
        if bits > 53:
            window = window_at(words, place)
        return window & low_bits(bits), place + bits
    entry = symbol_table[window & code_mask]
    length = np.int64(entry >> np.uint16(8))
    if length == 0:
        return np.uint64(0), -1
    value = np.uint64(entry & np.uint16(255)) << np.uint64(shift)
    place += length
    if bits > symbol_bits:
        raw = window >> np.uint64(length)
        if bits > 40:
            raw = window_at(words, place)
        raw &= low_bits(bits - symbol_bits)
        above = (raw >> np.uint64(shift)) << np.uint64(symbol_bits)
        value |= (raw & low_bits(shift)) | (above << np.uint64(shift))
    return value, place + bits - symbol_bits


@compiled
def read_codes(  # noqa: C901, PLR0912 - one loop: what is called out of it makes it three times slower
    words: NDArray[np.uint64],
    chunks: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    gap_form: tuple[int, int],
    tables: tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint16]],
    value_form: tuple[int, int, int],
    codes: NDArray[Any],
    reached: NDArray[np.int64],
) -> int:
    """The inverse of :func:`write_codes`: sets ``codes`` (zero before) and the bits ``reached``.

    Args:
        words: the bit string.
        chunks: first bit and bit after the last of each chunk; nothing from there on counts. First
            element of each chunk, and the end.
        gap_form: divisor and ``ceil(log2(divisor))``.
        tables: first :func:`hwmodel.golomb.pair_table`. Then for each pattern of ``GAP_WINDOW`` bits
            the gap times 32 and the bits it takes, which are 0 where the code is longer than that.
            Then for each pattern of as many bits as the longest code has the symbol and, times 256,
            the bits of its code; 0 bits where there is no such code.
        value_form: place and bits of the symbol, which are 0 for raw values, and bits of a value.
        codes: what to fill, ``(elements,)``.
        reached: bit after the last code of each chunk.

    Returns:
        ``DONE``, or what is wrong.
    """
    starts, ends, bounds = chunks
    pair_table, gap_table, symbol_table = tables
    together = PAIRS_IN_WINDOW if pair_table.size > 1 else 0
    pair_mask, code_mask = np.uint64(pair_table.size - 1), np.uint64(symbol_table.size - 1)
    gap_mask = low_bits(GAP_WINDOW)
    for i in range(starts.size):
        place, last, cursor, end = starts[i], ends[i], bounds[i], bounds[i + 1]
        while cursor < end:
            window = window_at(words, place)
            done = 0
            while done < together:
                pair = pair_table[window & pair_mask]
                reach = cursor + np.int64(pair >> np.uint32(13))
                if pair == 0 or reach >= end:
                    break
                codes[reach] = (pair >> np.uint32(5)) & np.uint32(255)
                cursor = reach + 1
                place += np.int64(pair & np.uint32(31))
                window >>= np.uint64(pair & np.uint32(31))
                done += 1
            if done:
                if place > last:
                    return OVERRUN
                continue
            entry = gap_table[window & gap_mask]
            taken = np.int64(entry & np.uint32(31))
            if taken:
                cursor += np.int64(entry >> np.uint32(5))
                place += taken
                window >>= np.uint64(taken)
            else:
                gap, place = _long_gap(words, place, last, end - cursor, gap_form)
                if gap < 0 or place > last:
                    return OVERRUN
                cursor += gap
                window = window_at(words, place)
            if cursor < end:
                value, place = _get_value(words, place, window, symbol_table, code_mask, value_form)
                if place < 0:
                    return NO_CODE
                codes[cursor] = value
            elif cursor > end:
                return OUTSIDE
            cursor += 1
            if place > last:
                return OVERRUN
        reached[i] = place
    return DONE


@compiled
def write_symbols(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    bounds: NDArray[np.int64],
    values: NDArray[Any],
    code: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    value_form: tuple[int, int, int],
) -> None:
    """Every value of each chunk, zeros too: :func:`write_codes` without gaps."""
    code_words, code_lengths = code
    shift, symbol_bits, bits = value_form
    mask, low, raw_bits = low_bits(symbol_bits), low_bits(shift), bits - symbol_bits
    for i in range(starts.size):
        place = starts[i]
        for k in range(bounds[i], bounds[i + 1]):
            value = np.uint64(values[k])
            symbol = (value >> np.uint64(shift)) & mask
            place = put(words, place, code_words[symbol], np.int64(code_lengths[symbol]))
            if raw_bits:
                above = (value >> np.uint64(shift)) >> np.uint64(symbol_bits)
                place = put(words, place, (value & low) | (above << np.uint64(shift)), raw_bits)


@compiled
def read_symbols(
    words: NDArray[np.uint64],
    chunks: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    symbol_table: NDArray[np.uint16],
    value_form: tuple[int, int, int],
    codes: NDArray[Any],
    reached: NDArray[np.int64],
) -> int:
    """The inverse of :func:`write_symbols`, with the arguments and results of :func:`read_codes`."""
    starts, ends, bounds = chunks
    code_mask = np.uint64(symbol_table.size - 1)
    whole = value_form[1] == value_form[2]  # a value is its symbol
    for i in range(starts.size):
        place, last, k = starts[i], ends[i], bounds[i]
        while whole and k + SYMBOLS_IN_WINDOW <= bounds[i + 1] and place <= last:
            window = window_at(words, place)
            for j in range(SYMBOLS_IN_WINDOW):
                entry = symbol_table[window & code_mask]
                length = np.int64(entry >> np.uint16(8))
                if length == 0:
                    return NO_CODE
                codes[k + j] = entry & np.uint16(255)
                window >>= np.uint64(length)
                place += length
            k += SYMBOLS_IN_WINDOW
        while k < bounds[i + 1]:
            window = window_at(words, place)
            value, place = _get_value(words, place, window, symbol_table, code_mask, value_form)
            if place < 0:
                return NO_CODE
            codes[k] = value
            k += 1
            if place > last:
                break
        if place > last:
            return OVERRUN
        reached[i] = place
    return DONE
