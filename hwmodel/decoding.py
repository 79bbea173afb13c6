"""The decoder that stands between the memory and the compute units, and how lanes share chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class DecoderSpec:
    """A decoder in hardware. All encodings' cycles are computed for one of these.

    Attributes:
        lanes: decoders side by side, each working on a chunk of its own.
        width: values that a lane can place in one clock (w). Codes that hang on each other bit by bit
            (``rice``, ``entropy``) place one whatever the width.
        word_bits: bits of mask, or zeros of a unary code, that a lane looks at in one clock.
        fill: clocks from a chunk's start to its first work: what a chunk costs that does nothing.
        encodings: names of those it can decode; empty means all.

    Raises:
        ValueError: when a figure is below its least.
    """

    lanes: int = 1
    width: int = 1
    word_bits: int = 32
    fill: int = 1
    encodings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the figures."""
        least = {"lanes": 1, "width": 1, "word_bits": 1, "fill": 0}
        for name, low in least.items():
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < low:
                msg = f"a decoder's {name} must be a whole number from {low} up, found {number!r}"
                raise ValueError(msg)

    def can_decode(self, encoding: str) -> bool:
        """Whether it knows an encoding."""
        return not self.encodings or encoding in self.encodings

    def lane_cycles(self, chunk_cycles: NDArray[np.int64]) -> NDArray[np.int64]:
        """Clocks that each lane is busy, int64 ``(lanes,)``: chunk i goes to lane ``i % lanes``."""
        return np.array([chunk_cycles[lane :: self.lanes].sum() for lane in range(self.lanes)])

    def cycles(self, chunk_cycles: NDArray[np.int64]) -> int:
        """Clocks until the busiest lane is done."""
        return int(self.lane_cycles(chunk_cycles).max())


def words_cycles(
    ones: NDArray[np.int64], bounds: NDArray[np.int64], decoder: DecoderSpec
) -> NDArray[np.int64]:
    """Clocks for a bit mask, by chunk: each word takes ``max(1, ceil(ones in it / width))``.

    Words are counted from the start of each chunk, so the last of a chunk may be short.

    Args:
        ones: positions of the set bits, rising, int64 ``(ones,)``.
        bounds: where each chunk's mask begins, and the end, int64 ``(chunks + 1,)``.
        decoder: whose ``word_bits`` and ``width`` count.
    """
    words = -(-np.diff(bounds) // decoder.word_bits)
    first_word = np.concatenate([[0], np.cumsum(words)])
    chunk = np.searchsorted(bounds, ones, side="right") - 1
    word = first_word[chunk] + (ones - bounds[chunk]) // decoder.word_bits
    in_word = np.bincount(word, minlength=int(first_word[-1]))
    clocks = np.maximum(1, -(-in_word // decoder.width))
    return sums(clocks, first_word)


def sums(numbers: NDArray[np.integer], bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum between each bound and the next, int64; 0 where nothing is between."""
    total = np.zeros(numbers.size + 1, np.int64)
    np.cumsum(numbers, out=total[1:])
    return np.diff(total[bounds])
