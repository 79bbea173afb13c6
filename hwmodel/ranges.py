"""From the byte ranges that are wanted to the requests that fetch them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

Ints: TypeAlias = NDArray[np.int64]


def as_ranges(ranges: Sequence[tuple[int, int]] | Ints) -> Ints:
    """Offsets and lengths in bytes, ``(ranges, 2)``.

    Raises:
        ValueError: when one is negative.
    """
    array = np.asarray(ranges, np.int64).reshape(-1, 2)
    if array.size and array.min() < 0:
        msg = f"offsets and lengths of bytes cannot be negative, found {array[array.min(axis=1) < 0][0]}"
        raise ValueError(msg)
    return array


def requests_by_range(ranges: Ints, unit_bytes: int) -> Ints:
    """First request and number of requests of each range, ``(ranges, 2)``.

    A range touches every unit that it overlaps; one that the range before it ended in is not
    fetched again, so a range may need none.
    """
    lengths = ranges[:, 1]
    first = ranges[:, 0] // unit_bytes
    last = np.where(lengths > 0, (ranges[:, 0] + lengths - 1) // unit_bytes, -1)
    used = np.flatnonzero(lengths > 0)
    again = used[1:][first[used[1:]] == last[used[:-1]]]
    first[again] += 1
    return np.stack([first, np.where(lengths > 0, last - first + 1, 0)], axis=1)


def requests_by_line(ranges: Ints, line_bytes: int, unit_bytes: int) -> Ints:
    """The same for a requester that asks line by line, each line's units anew.

    Where a line is smaller than a unit, every line fetches the unit around it, even if the line
    before did too: what a cache without a write-combining buffer does.
    """
    if line_bytes >= unit_bytes:
        start = ranges[:, 0] // line_bytes * line_bytes
        end = -(-(ranges[:, 0] + ranges[:, 1]) // line_bytes) * line_bytes
        length = np.where(ranges[:, 1] > 0, end - start, 0)
        return requests_by_range(np.stack([start, length], axis=1), unit_bytes)
    lines = requests_by_range(ranges, line_bytes)
    numbers = np.concatenate([np.arange(first, first + count) for first, count in lines])
    return np.stack([numbers * line_bytes // unit_bytes, np.ones_like(numbers)], axis=1)
