"""Loops over slots: groups of elements that each store so many places and values.

See :mod:`hwmodel.kernels` for how bits are held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.jit import compiled
from hwmodel.kernels import DONE, OUTSIDE, low_bits, window_at

if TYPE_CHECKING:
    from numpy.typing import NDArray


@compiled
def gather_slots(
    codes: NDArray[Any],
    bounds: NDArray[np.int64],
    slots: NDArray[np.int64],
    places: NDArray[Any],
    values: NDArray[Any],
) -> None:
    """Place in its group and value of each nonzero code; groups have slots enough for theirs.

    ``places`` and ``values`` are one longer than all slots: a zero is written to the next slot too,
    where what follows replaces it, for that costs less than a branch that cannot be foretold.
    """
    k = 0
    for i in range(slots.size):
        used, begin = k, bounds[i]
        for place in range(begin, bounds[i + 1]):
            code = codes[place]
            keep = int(code != 0)
            places[used] = (place - begin) * keep
            values[used] = code
            used += keep
        k += slots[i]


@compiled
def scatter_slots(
    places: NDArray[Any],
    values: NDArray[Any],
    bounds: NDArray[np.int64],
    slots: NDArray[np.int64],
    codes: NDArray[Any],
) -> int:
    """The inverse of :func:`gather_slots`; ``OUTSIDE`` where places do not rise inside a group."""
    k = 0
    for i in range(slots.size):
        cursor = bounds[i]
        for _ in range(slots[i]):
            place = bounds[i] + np.int64(places[k])
            if values[k] == 0:
                if place != bounds[i]:
                    return OUTSIDE
                cursor = bounds[i + 1]  # no value may follow
            else:
                if place < cursor or place >= bounds[i + 1]:
                    return OUTSIDE
                codes[place] = values[k]
                cursor = place + 1
            k += 1
    return DONE


@compiled
def read_groups(
    words: NDArray[np.uint64],
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    form: tuple[int, int, int, int, int],
    codes: NDArray[Any],
) -> int:
    """Codes of groups that all have equally many slots, straight from the bits.

    Args:
        words: the bit string; the caller has checked that all bits are there.
        starts: first bit of each chunk: the places of all its slots, then their values.
        rows: first row of each chunk, and the end.
        form: slots and elements of a group, bits of a place and of a value, elements of a row.
        codes: what to fill, zeros before, ``(rows * columns,)``.

    Returns:
        ``OUTSIDE`` where places do not rise inside a group, or a slot without a value is not last.
    """
    slots, size, place_bits, bits, columns = form
    groups = -(-columns // size)
    place_mask, mask = low_bits(place_bits), low_bits(bits)
    for i in range(starts.size):
        place = starts[i]
        value_place = place + (rows[i + 1] - rows[i]) * groups * slots * place_bits
        for row in range(rows[i], rows[i + 1]):
            for group in range(groups):
                begin = row * columns + group * size
                length = min(size, columns - group * size)
                least = 0  # what the next place must be at least
                for _ in range(slots):
                    value = window_at(words, value_place) & mask
                    inside = int(window_at(words, place) & place_mask)
                    value_place += bits
                    place += place_bits
                    if value:
                        if inside < least or inside >= length:
                            return OUTSIDE
                        codes[begin + inside] = value
                        least = inside + 1
                    else:
                        if inside:
                            return OUTSIDE
                        least = length
    return DONE
