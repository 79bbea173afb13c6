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
            used = sums(_used(codes, frame, block), _first_blocks(frame, block))
            bits = -(-frame.sizes // block) + block * used
            if best is None or bits.sum() < best[1].sum():
                best = block, bits
        assert best is not None
        header = bytes([best[0].bit_length() - 1])
        return Plan(header, codes.counts(frame.bounds) * codes.bits, best[1])

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        block = 1 << header[0]
        first = _first_blocks(frame, block)
        upper = _used(codes, frame, block)
        lower = _padded(codes.mask, frame, block)[: upper.size][upper.view(np.bool_)]
        writer.bits(upper, np.diff(first))
        writer.bits(lower.ravel(), sums(upper, first) * block)
        writer.fields(codes.values, codes.counts(frame.bounds), codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        block = 1 << header[0] if header[0] <= 8 else 0
        if block not in BLOCKS or self.block not in (0, block):
            msg = f"two_level cannot have blocks of 2**{header[0]}"
            raise BlobError(msg)
        first = _first_blocks(frame, block)
        upper, used = reader.bits(np.diff(first))
        bits, counts = reader.bits(used * block)
        lower = bits.reshape(-1, block)
        each = -(-frame.full // block) * block
        padded = np.zeros((frame.chunks, each), np.uint8)
        padded.reshape(-1, block)[: upper.size][upper.view(np.bool_)] = lower
        mask = padded[:, : frame.full].ravel()[: frame.elements]
        if not _any(lower).all() or np.count_nonzero(mask) != counts.sum():
            msg = "a block is empty, or reaches beyond its chunk"
            raise BlobError(msg)
        return reader.expand(mask, counts, frame)

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """A clock for each word of the upper mask; lower masks, word by word, as ``bitmask``."""
        block = 1 << self._plan(codes, frame).header[0]
        first = _first_blocks(frame, block)
        used = _used(codes, frame, block)
        lower = _padded(codes.mask, frame, block)[: used.size][used.view(np.bool_)]
        # each used block is a mask of its own, so that its words are counted from its start
        bounds = np.arange(lower.shape[0] + 1) * block
        clocks = words_cycles(np.flatnonzero(lower.view(np.bool_)), bounds, decoder)
        chunk = np.repeat(np.arange(frame.chunks), sums(used, first))
        upper = -(-np.diff(first) // decoder.word_bits)
        return upper + np.bincount(chunk, clocks, frame.chunks).astype(np.int64)


def _first_blocks(frame: Frame, block: int) -> NDArray[np.int64]:
    """Number of each chunk's first block, and the end."""
    return np.concatenate([[0], np.cumsum(-(-frame.sizes // block))])


def _padded(mask: NDArray[np.uint8], frame: Frame, block: int) -> NDArray[np.uint8]:
    """The mask in blocks, ``(blocks, block)``, each chunk filled up to whole ones.

    The last chunk is filled up to the length of the others, so that blocks may follow its own.
    """
    each = -(-frame.full // block) * block
    padded = np.zeros((frame.chunks, each), np.uint8)
    whole = frame.elements // frame.full
    padded[:whole, : frame.full] = mask[: whole * frame.full].reshape(whole, frame.full)
    rest = mask[whole * frame.full :]
    padded[whole:, : rest.size] = rest
    return padded.reshape(-1, block)


def _used(codes: Codes, frame: Frame, block: int) -> NDArray[np.uint8]:
    """1 for blocks that hold a nonzero code, ``(blocks,)``."""
    blocks = int(_first_blocks(frame, block)[-1])
    return _any(_padded(codes.mask, frame, block)[:blocks]).view(np.uint8)


def _any(blocks: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether any element of each block is set; eight are looked at at once."""
    wide = blocks.view(f"u{min(8, blocks.shape[1])}")
    found: NDArray[np.bool_] = np.not_equal(wide[:, 0], 0)
    for column in range(1, wide.shape[1]):
        found |= wide[:, column] != 0
    return found
