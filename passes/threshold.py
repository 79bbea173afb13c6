"""The k-th largest of very many scores, exactly, by selection and in bounded memory.

Scores are read in blocks, as often as needed, and never held together. A sample says between which
two values the k-th largest lies, almost surely; one pass counts what is above and collects what is
between, and a partition of those few finds it. Should the sample mislead, two passes that count by
the upper and the lower half of the bits find it all the same.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Keys = NDArray[np.uint32]

SAMPLE = 2**15
MAX_COLLECTED = 2**25
"""Keys held at once; 128 MiB."""


class KeyStream(abc.ABC):
    """Scores as keys: the bits of non-negative float32, which order as unsigned integers do.

    NaN is above infinity, so that it is kept.
    """

    size: int

    @abc.abstractmethod
    def blocks(self) -> Iterator[Keys]:
        """All keys in blocks ``(n,)``, in the same order each time.

        A block is the caller's to write into until the next one is asked for.
        """

    @abc.abstractmethod
    def sample(self, count: int) -> Keys:
        """About ``count`` keys from all over; all of them when there are no more."""


@dataclass(frozen=True)
class Threshold:
    """The key of the last score that is kept.

    Attributes:
        key: keys above it are kept.
        above: how many there are.
        equal: how many are equal to it.
    """

    key: int
    above: int
    equal: int


SIGN = np.uint32(0x80000000)


def keys_of(values: NDArray[np.float32], out: Keys | None = None) -> Keys:
    """The keys of absolute values, of the same shape."""
    return np.bitwise_and(values.view(np.uint32), ~SIGN, out=out)


def find_threshold(stream: KeyStream, keep: int) -> Threshold:
    """The threshold under which all but the ``keep`` largest fall.

    Args:
        stream: read two or three times.
        keep: 1 to ``stream.size``.

    Raises:
        ValueError: when ``keep`` is out of range.
    """
    if not 1 <= keep <= stream.size:
        msg = f"keep must lie between 1 and {stream.size}, got {keep}"
        raise ValueError(msg)
    low, high = _bracket(np.sort(stream.sample(SAMPLE)), keep / stream.size)
    above = between = 0
    collected: list[Keys] = []
    for block in stream.blocks():
        above += int(np.count_nonzero(block > high))
        np.subtract(block, low, out=block)  # what is below ``low`` wraps around to large numbers
        inside = block[block <= high - low]
        between += inside.size
        if between <= MAX_COLLECTED:
            collected.append(inside)
    if between > MAX_COLLECTED or not above < keep <= above + between:
        del collected
        return _by_digits(stream, keep)
    keys = np.concatenate(collected) + low
    place = keys.size - (keep - above)
    key = int(np.partition(keys, place)[place])
    return Threshold(
        key, above + int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key))
    )


def _bracket(sample: Keys, share: float) -> tuple[np.uint32, np.uint32]:
    """Two keys between which the one lies that ``share`` of all are not below, almost surely."""
    expected = share * sample.size
    margin = 4 * math.sqrt(sample.size * share * (1 - share)) + 4
    first = math.floor(sample.size - expected - margin)
    last = math.ceil(sample.size - expected + margin)
    low = sample[first] if first >= 0 else np.uint32(0)
    high = sample[last] if last < sample.size else np.uint32(0xFFFFFFFF)
    return low, high


def _by_digits(stream: KeyStream, keep: int) -> Threshold:
    upper = _histogram(block >> np.uint32(16) for block in stream.blocks())
    digit, above = _find(upper, keep)
    lower = _histogram(
        block[block >> np.uint32(16) == digit] & np.uint32(0xFFFF) for block in stream.blocks()
    )
    last, over = _find(lower, keep - above)
    return Threshold((digit << 16) | last, above + over, int(lower[last]))


def _histogram(digits: Iterator[Keys]) -> NDArray[np.int64]:
    counts = np.zeros(2**16, np.int64)
    for block in digits:
        counts += np.bincount(block, minlength=2**16)
    return counts


def _find(counts: NDArray[np.int64], keep: int) -> tuple[int, int]:
    """The digit at which the ``keep`` largest end, and how many are above that digit."""
    from_top = np.cumsum(counts[::-1])
    place = int(np.searchsorted(from_top, keep))
    digit = counts.size - 1 - place
    return digit, int(from_top[place] - counts[digit])
