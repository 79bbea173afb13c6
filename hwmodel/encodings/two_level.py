"""A bit for each block, a bit for each element of those blocks that hold any, then the values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.decoding import DecoderSpec, sums, words_cycles
from hwmodel.encoding import Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.layout import Plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer

BLOCKS = (4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class TwoLevel(Encoding):
    """N/B + N(1 - q^B) + n·V bits; wins at densities below about 0.15, and where zeros cluster.

    The header is one byte, log2 B. A chunk is the upper mask, the lower masks of B bits each (the
    last block of a chunk may reach beyond it; those bits are 0), and the values.

    Attributes:
        block: elements of a block, a power of two from 4 to 256; 0 takes the best for each tensor.
    """

    name: ClassVar[str] = "two_level"
    block: int = 0

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        if isinstance(self.block, bool) or self.block not in (0, *BLOCKS):
            msg = f"two_level needs a block of {', '.join(map(str, BLOCKS))} or 0, found {self.block!r}"
            raise ValueError(msg)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        best = None
        for block in (self.block,) if self.block else BLOCKS:
            bits = -(-frame.sizes // block) + block * np.diff(
                np.searchsorted(self._used(codes, frame, block), _first_blocks(frame, block))
            )
            if best is None or bits.sum() < best[1].sum():
                best = block, bits
        assert best is not None
        header = bytes([best[0].bit_length() - 1])
        return Plan(header, codes.counts(frame.bounds) * codes.bits, best[1])

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        block = 1 << header[0]
        first = _first_blocks(frame, block)
        used = self._used(codes, frame, block)
        upper = np.zeros(int(first[-1]), np.uint8)
        upper[used] = 1
        lower = np.zeros((used.size, block), np.uint8)
        row = np.searchsorted(used, _block_of(codes, frame, block))
        lower[row, _inside(codes, frame, block)] = 1
        writer.fields(upper, np.diff(first), 1)
        writer.fields(lower.ravel(), sums(upper, first) * block, 1)
        writer.fields(codes.values, codes.counts(frame.bounds), codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        block = 1 << header[0] if header[0] <= 8 else 0
        if block not in BLOCKS or self.block not in (0, block):
            msg = f"two_level cannot have blocks of 2**{header[0]}"
            raise BlobError(msg)
        first = _first_blocks(frame, block)
        upper = reader.fields(np.diff(first), 1, np.uint8)
        used = np.flatnonzero(upper)
        lower = reader.fields(sums(upper, first) * block, 1, np.uint8).reshape(-1, block)
        row, inside = np.nonzero(lower)
        chunk = np.searchsorted(first, used, side="right") - 1
        start = frame.bounds[chunk] + (used - first[chunk]) * block
        positions = start[row] + inside
        if (positions >= frame.bounds[chunk[row] + 1]).any() or not lower.any(axis=1).all():
            msg = "a block is empty, or reaches beyond its chunk"
            raise BlobError(msg)
        counts = np.bincount(chunk[row], minlength=frame.chunks)
        codes = np.zeros(frame.elements, frame.dtype)
        codes[positions] = reader.fields(counts, frame.bits, frame.dtype)
        return codes

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """A clock for each word of the upper mask; lower masks, word by word, as ``bitmask``."""
        block = 1 << self._plan(codes, frame).header[0]
        first = _first_blocks(frame, block)
        used = self._used(codes, frame, block)
        upper = -(-np.diff(first) // decoder.word_bits)
        row = np.searchsorted(used, _block_of(codes, frame, block))
        chunk = np.searchsorted(first, used, side="right") - 1
        # each used block is a mask of its own, so that its words are counted from its start
        clocks = words_cycles(
            row * block + _inside(codes, frame, block), np.arange(used.size + 1) * block, decoder
        )
        return upper + np.bincount(chunk, clocks, frame.chunks).astype(np.int64)

    @staticmethod
    def _used(codes: Codes, frame: Frame, block: int) -> NDArray[np.int64]:
        """Numbers of the blocks that hold a nonzero code, rising."""
        blocks = _block_of(codes, frame, block)
        return np.extract(np.diff(blocks, prepend=-1), blocks)


def _first_blocks(frame: Frame, block: int) -> NDArray[np.int64]:
    """Number of each chunk's first block, and the end."""
    return np.concatenate([[0], np.cumsum(-(-frame.sizes // block))])


def _block_of(codes: Codes, frame: Frame, block: int) -> NDArray[np.int64]:
    """The block of each nonzero code."""
    if frame.chunks <= 1:
        return codes.positions // block
    chunk = codes.positions // frame.full
    return chunk * -(-frame.full // block) + (codes.positions - chunk * frame.full) // block


def _inside(codes: Codes, frame: Frame, block: int) -> NDArray[np.int64]:
    """Where in its block each nonzero code is."""
    return codes.positions % max(1, frame.full) % block
