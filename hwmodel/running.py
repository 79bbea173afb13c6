"""Running sums at the head of a chunk: where each of its rows begins and ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.streams import Reader, Writer


def write_running(
    counts: NDArray[np.integer], rows: NDArray[np.int64], width: int, writer: Writer
) -> None:
    """For each chunk the running sums of its rows' counts, from 0 to all: one more than rows.

    Args:
        counts: of each row.
        rows: first row of each chunk, and the end.
        width: bits of a sum.
        writer: takes them.
    """
    fields = np.diff(rows) + 1
    ends = np.concatenate([[0], np.cumsum(counts)])
    # a chunk begins with the sum at which the chunk before has ended
    which = np.arange(int(fields.sum())) - np.repeat(np.arange(fields.size), fields)
    writer.fields(ends[which] - np.repeat(ends[rows[:-1]], fields), fields, width)


def read_running(
    width: int, rows: NDArray[np.int64], most: int, reader: Reader
) -> NDArray[np.int64]:
    """The inverse of :func:`write_running`: counts ``(rows,)``.

    Args:
        width: bits of a sum.
        rows: first row of each chunk, and the end.
        most: what a row can hold.
        reader: gives the sums.

    Raises:
        BlobError: when a chunk's sums do not rise from 0, a row has too many, or the width is not
            plausible.
    """
    if not 1 <= width <= 40:
        msg = f"pointers cannot have {width} bits"
        raise BlobError(msg)
    fields = np.diff(rows) + 1
    ends = reader.fields(fields, width)
    first = np.concatenate([[0], np.cumsum(fields)])[:-1]
    counts = np.delete(np.diff(ends, prepend=0), first)
    if ends[first].any() or (counts < 0).any() or (counts > most).any():
        msg = f"pointers do not rise from 0, or by more than {most}"
        raise BlobError(msg)
    return counts
