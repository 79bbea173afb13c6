"""Loops over bits, compiled by numba when they first run.

Import this module late: numba takes a third of a second to load, and only reading and writing bits
needs it; sizes and cycles are plain numpy. Bit strings are held in little-endian 64-bit words with
at least two words of zeros behind the last bit, so that a window of 64 bits can be taken anywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.jit import compiled, inner

if TYPE_CHECKING:
    from numpy.typing import NDArray

DONE, OVERRUN, OUTSIDE, NO_CODE = 0, 1, 2, 3
"""What a decoding kernel says: all well; a chunk's bits end early; a gap leads out of its chunk; a bit
pattern is no code."""
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
ONE = np.uint64(1)


@inner
def window_at(words: Any, place: Any) -> Any:
    """The 64 bits from a place on."""
    shift = np.uint64(place & 63)
    word = place >> 6
    return (words[word] >> shift) | ((words[word + 1] << ONE) << (np.uint64(63) - shift))


@inner
def put(words: Any, place: Any, field: Any, length: Any) -> Any:
    """Write a field of up to 64 bits, none of them set above its length; returns the place after."""
    shift = np.uint64(place & 63)
    word = place >> 6
    words[word] |= field << shift
    if shift + np.uint64(length) > np.uint64(64):
        words[word + 1] |= field >> (np.uint64(64) - shift)
    return place + length


@inner
def low_bits(count: Any) -> Any:
    """A mask of so many bits, 0 to 64."""
    return (_ALL >> np.uint64(64 - count)) if count else np.uint64(0)


@compiled
def write_fields(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    numbers: NDArray[Any],
) -> None:
    """Write ``counts[i]`` numbers of ``width`` bits one after the other from bit ``starts[i]``."""
    mask = low_bits(width)
    together = (
        64 // width
    )  # so many are put into a word first, which the compiler does side by side
    k = 0
    for i in range(starts.size):
        place, end = starts[i], k + counts[i]
        while k + together <= end:
            word = np.uint64(0)
            for j in range(together):
                word |= (np.uint64(numbers[k + j]) & mask) << np.uint64(j * width)
            place = put(words, place, word, together * width)
            k += together
        while k < end:
            place = put(words, place, np.uint64(numbers[k]) & mask, width)
            k += 1


@compiled
def read_fields(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    width: int,
    numbers: NDArray[Any],
) -> None:
    """The inverse of :func:`write_fields`; the caller has checked that all bits are there."""
    mask = low_bits(width)
    together = 64 // width  # so many are taken from one window
    k = 0
    for i in range(starts.size):
        place, end = starts[i], k + counts[i]
        while k + together <= end:
            window = window_at(words, place)
            for j in range(together):
                numbers[k + j] = (window >> np.uint64(j * width)) & mask
            k += together
            place += together * width
        while k < end:
            numbers[k] = window_at(words, place) & mask
            k += 1
            place += width


@compiled
def write_bits(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    bits: NDArray[np.uint8],
) -> None:
    """:func:`write_fields` of numbers that are 0 or 1."""
    k = 0
    for i in range(starts.size):
        place, end = starts[i], starts[i] + counts[i]
        while place < end:
            here = min(64, end - place)
            word = np.uint64(0)
            for j in range(here):
                word |= np.uint64(bits[k + j]) << np.uint64(j)
            put(words, place, word, here)
            place += here
            k += here


@compiled
def read_bits(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    counts: NDArray[np.int64],
    bits: NDArray[np.uint8],
    ones: NDArray[np.int64],
) -> None:
    """:func:`read_fields` of single bits; also says how many of each chunk's are 1."""
    k = 0
    for i in range(starts.size):
        place, end = starts[i], starts[i] + counts[i]
        while place < end:
            word = window_at(words, place)
            here = min(64, end - place)
            found = np.uint8(0)
            if here == 64:  # a loop of known length is done many bits at a time
                for j in range(64):
                    bit = np.uint8((word >> np.uint64(j)) & ONE)
                    bits[k + j] = bit
                    found += bit
            else:
                for j in range(here):
                    bit = np.uint8((word >> np.uint64(j)) & ONE)
                    bits[k + j] = bit
                    found += bit
            ones[i] += found
            place += here
            k += here


@compiled
def expand(mask: NDArray[np.uint8], values: NDArray[Any], codes: NDArray[Any]) -> None:
    """Put the values where the mask is 1; one value more than ones must be there to read."""
    k = 0
    for i in range(mask.size):
        codes[i] = values[k] * mask[i]  # no branch: masks cannot be foretold
        k += mask[i]


@compiled
def scatter_split(
    high: NDArray[np.int64],
    low: NDArray[np.int64],
    lower: int,
    values: NDArray[Any],
    chunks: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    codes: NDArray[Any],
) -> int:
    """Codes from positions of which the upper part is where a bit is set, counted without the ones.

    Args:
        high: set bits of all chunks' upper parts.
        low: lower parts of the positions.
        lower: bits of a lower part.
        values: of the positions.
        chunks: values of each chunk; first bit of each upper part; first element of each, and the end.
        codes: what to fill.

    Returns:
        ``OUTSIDE`` where positions do not rise inside their chunk.
    """
    counts, firsts, bounds = chunks
    k = 0
    for i in range(counts.size):
        cursor = bounds[i]
        for order in range(counts[i]):
            place = bounds[i] + ((high[k] - firsts[i] - order) << lower) + low[k]
            if place < cursor or place >= bounds[i + 1]:
                return OUTSIDE
            codes[place] = values[k]
            cursor = place + 1
            k += 1
    return DONE


@compiled
def all_clear(
    words: NDArray[np.uint64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> bool:
    """Whether no bit is set from each start to its end."""
    for i in range(starts.size):
        place, end = starts[i], ends[i]
        while place < end:
            here = min(64, end - place)
            if window_at(words, place) & low_bits(here):
                return False
            place += here
    return True
