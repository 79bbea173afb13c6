"""Loops over bits, compiled by numba when they first run.

Import this module late: numba takes a third of a second to load, and only reading and writing bits
needs it; sizes and cycles are plain numpy. Bit strings are held in little-endian 64-bit words with
at least two words of zeros behind the last bit, so that a window of 64 bits can be taken anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DONE, OVERRUN, OUTSIDE, NO_CODE = 0, 1, 2, 3
"""What a decoding kernel says: all well; a chunk's bits ended early; a gap leads out of its chunk; a
bit pattern that is no code."""
GAP_WINDOW = 11
"""Bits of a gap's code that a table decodes at once."""
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_ONE = np.uint64(1)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile at the first call, and keep the machine code on disk where that is possible."""
    try:
        return njit(function, cache=True, nogil=True)
    except RuntimeError:  # no folder to keep it in can be written
        return njit(function, nogil=True)


@_compiled
def _window(words: Any, place: Any) -> Any:
    """The 64 bits from a place on."""
    shift = np.uint64(place & 63)
    word = place >> 6
    return (words[word] >> shift) | ((words[word + 1] << _ONE) << (np.uint64(63) - shift))


@_compiled
def _put(words: Any, place: Any, field: Any, length: Any) -> Any:
    """Write a field of up to 64 bits, none of them set above its length; returns the place after."""
    shift = np.uint64(place & 63)
    word = place >> 6
    words[word] |= field << shift
    if shift + np.uint64(length) > np.uint64(64):
        words[word + 1] |= field >> (np.uint64(64) - shift)
    return place + length


@_compiled
def _low_bits(count: Any) -> Any:
    """A mask of so many bits, 0 to 64."""
    return (_ALL >> np.uint64(64 - count)) if count else np.uint64(0)


@_compiled
def write_fields(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    numbers: NDArray[Any],
) -> None:
    """Write ``counts[i]`` numbers of ``width`` bits one after the other from bit ``starts[i]``."""
    mask = _low_bits(width)
    k = 0
    for i in range(starts.size):
        place = starts[i]
        for _ in range(counts[i]):
            place = _put(words, place, np.uint64(numbers[k]) & mask, width)
            k += 1


@_compiled
def read_fields(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    numbers: NDArray[Any],
) -> None:
    """The inverse of :func:`write_fields`; the caller has checked that all bits are there."""
    mask = _low_bits(width)
    k = 0
    for i in range(starts.size):
        place = starts[i]
        for _ in range(counts[i]):
            numbers[k] = _window(words, place) & mask
            k += 1
            place += width


@_compiled
def all_clear(
    words: NDArray[np.uint64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> bool:
    """Whether no bit is set from each start to its end."""
    for i in range(starts.size):
        place, end = starts[i], ends[i]
        while place < end:
            here = min(64, end - place)
            if _window(words, place) & _low_bits(here):
                return False
            place += here
    return True


@_compiled
def _put_gap(words: Any, place: Any, gap: Any, divisor: Any, long_bits: Any) -> Any:
    """Write a gap: ``gap // divisor`` zero bits, a one, the remainder in truncated binary."""
    quotient = gap // divisor
    place = _put(words, place + quotient, _ONE, 1)
    rest = gap - quotient * divisor
    short = (1 << long_bits) - divisor
    if rest < short:
        return _put(words, place, np.uint64(rest), long_bits - 1)
    if short == 0:
        return _put(words, place, np.uint64(rest), long_bits)
    place = _put(words, place, np.uint64((rest + short) >> 1), long_bits - 1)
    return _put(words, place, np.uint64((rest + short) & 1), 1)


@_compiled
def _put_value(
    words: Any, place: Any, value: Any, code_words: Any, code_lengths: Any, form: Any
) -> Any:
    """Write a value: the code of its symbol, if it has one, then its other bits, lowest first."""
    shift, symbol_bits, bits = form
    if symbol_bits == 0:
        return _put(words, place, value, bits)
    symbol = (value >> np.uint64(shift)) & _low_bits(symbol_bits)
    place = _put(words, place, code_words[symbol], np.int64(code_lengths[symbol]))
    if bits == symbol_bits:
        return place
    above = (value >> np.uint64(shift)) >> np.uint64(symbol_bits)
    raw = (value & _low_bits(shift)) | (above << np.uint64(shift))
    return _put(words, place, raw, bits - symbol_bits)


@_compiled
def write_codes(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    bounds: NDArray[np.int64],
    nonzeros: tuple[NDArray[np.int64], NDArray[Any]],
    gap_form: tuple[int, int],
    code: tuple[NDArray[np.uint64], NDArray[np.uint8]],
    value_form: tuple[int, int, int],
) -> None:
    """Gaps in Golomb code, each followed by its value.

    Args:
        words: zeros, to be written to.
        starts: first bit of each chunk.
        bounds: first element of each chunk, and the end. A last gap without a value leads to the end
            of a chunk that does not end in a value.
        nonzeros: positions and values.
        gap_form: divisor and ``ceil(log2(divisor))``.
        code: words and lengths of the symbols.
        value_form: place and bits of the symbol, which are 0 for raw values, and bits of a value.
    """
    positions, values = nonzeros
    divisor, long_bits = gap_form
    code_words, code_lengths = code
    k = 0
    for i in range(starts.size):
        place, cursor, end = starts[i], bounds[i], bounds[i + 1]
        while k < positions.size and positions[k] < end:
            place = _put_gap(words, place, positions[k] - cursor, divisor, long_bits)
            value = np.uint64(values[k])
            place = _put_value(words, place, value, code_words, code_lengths, value_form)
            cursor = positions[k] + 1
            k += 1
        if cursor < end:
            _put_gap(words, place, end - cursor, divisor, long_bits)


@_compiled
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
    while window & _ONE == 0:
        window >>= _ONE
        quotient += 1
        place += 1
    place += 1
    if place > last or quotient > most // divisor:
        return -1, place
    window = _window(words, place)
    short = (1 << long_bits) - divisor
    if short == 0:
        return quotient * divisor + np.int64(window & np.uint64(divisor - 1)), place + long_bits
    rest = np.int64(window & _low_bits(long_bits - 1))
    place += long_bits - 1
    if rest >= short:
        rest = (rest << 1) + np.int64((window >> np.uint64(long_bits - 1)) & _ONE) - short
        place += 1
    return quotient * divisor + rest, place


@_compiled
def _get_value(words: Any, place: Any, symbol_table: Any, longest: Any, form: Any) -> Any:
    """The inverse of :func:`_put_value`: the value, and the place after, -1 where there is no code."""
    shift, symbol_bits, bits = form
    window = _window(words, place)
    if symbol_bits == 0:
        return window & _low_bits(bits), place + bits
    entry = symbol_table[window & _low_bits(longest)]
    length = np.int64(entry >> np.uint16(8))
    if length == 0:
        return np.uint64(0), -1
    value = np.uint64(entry & np.uint16(255)) << np.uint64(shift)
    place += length
    if bits > symbol_bits:
        raw = _window(words, place) & _low_bits(bits - symbol_bits)
        above = (raw >> np.uint64(shift)) << np.uint64(symbol_bits)
        value |= (raw & _low_bits(shift)) | (above << np.uint64(shift))
    return value, place + bits - symbol_bits


@_compiled
def read_codes(
    words: NDArray[np.uint64],
    chunks: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    gap_form: tuple[int, int],
    gap_table: NDArray[np.uint32],
    symbol_table: NDArray[np.uint16],
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
        gap_table: for each pattern of ``GAP_WINDOW`` bits the gap times 32 and the bits it takes,
            which are 0 where the code is longer than that.
        symbol_table: for each pattern of as many bits as the longest code has the symbol and, times
            256, the bits of its code; 0 bits where there is no such code.
        value_form: place and bits of the symbol, which are 0 for raw values, and bits of a value.
        codes: what to fill, ``(elements,)``.
        reached: bit after the last code of each chunk.

    Returns:
        ``DONE``, or what is wrong.
    """
    starts, ends, bounds = chunks
    longest = 0
    while (1 << longest) < symbol_table.size:
        longest += 1
    for i in range(starts.size):
        place, last, cursor, end = starts[i], ends[i], bounds[i], bounds[i + 1]
        while cursor < end:
            entry = gap_table[_window(words, place) & _low_bits(GAP_WINDOW)]
            gap, after = np.int64(entry >> np.uint32(5)), place + np.int64(entry & np.uint32(31))
            if after == place:
                gap, after = _long_gap(words, place, last, end - cursor, gap_form)
            cursor += gap
            if after > last or gap < 0 or cursor > end:
                return OVERRUN if after > last else OUTSIDE
            place = after
            if cursor == end:
                break
            value, place = _get_value(words, place, symbol_table, longest, value_form)
            if place < 0 or place > last:
                return NO_CODE if place < 0 else OVERRUN
            codes[cursor] = value
            cursor += 1
        reached[i] = place
    return DONE
