"""Blocks that hold any nonzero value, stored whole, row of blocks after row of blocks (BCSR)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import width_of
from hwmodel.decoding import sums
from hwmodel.encoding import ChunkedBy, Encoding, expect_header
from hwmodel.errors import BlobError
from hwmodel.layout import Plan
from hwmodel.running import read_running, write_running

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.layout import Frame
    from hwmodel.streams import Reader, Writer


@dataclass(frozen=True)
class Block(Encoding):
    """n_b·(B_h·B_w·V + L(C/B_w)) + (R/B_h + 1)·L(n_b + 1) bits; wins on block patterns.

    Blocks at the right and lower edge reach beyond the matrix; what they hold there is 0. The header
    is one byte, the bits of a pointer. A chunk is whole rows of blocks: its pointers, counted in
    blocks from 0 to all, one for each row of blocks and the end; then the block columns; then the
    blocks' values, each row after row.

    Attributes:
        height: rows of a block, 1 to 256.
        width: columns of a block, 1 to 256.
    """

    name: ClassVar[str] = "block"
    chunked_by: ClassVar[ChunkedBy] = "rows"
    height: int = 4
    width: int = 4

    def __post_init__(self) -> None:
        """Check the configuration."""
        super().__post_init__()
        self._check("height", 1, 256)
        self._check("width", 1, 256)

    def _step(self, rows: int, columns: int) -> int:
        whole = max(1, columns) * self.height
        step = super()._step(rows, columns)
        return max(whole, step // whole * whole)

    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        blocks = sums(self._used(codes, frame).sum(axis=1), self._block_rows(frame))
        width = max(1, width_of(int(blocks.max(initial=0)) + 1))
        pointers = (np.diff(self._block_rows(frame)) + 1) * width
        indices = blocks * width_of(self._block_columns(frame))
        payload = blocks * (self.height * self.width * codes.bits)
        return Plan(bytes([width]), payload, pointers + indices)

    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        used = self._used(codes, frame)
        padded = np.zeros(
            (used.shape[0] * self.height, used.shape[1] * self.width), codes.numbers.dtype
        )
        padded[: frame.rows, : frame.columns] = codes.numbers.reshape(frame.rows, frame.columns)
        grid = padded.reshape(used.shape[0], self.height, used.shape[1], self.width)
        row, column = np.nonzero(used)
        blocks = sums(used.sum(axis=1), self._block_rows(frame))
        write_running(used.sum(axis=1), self._block_rows(frame), header[0], writer)
        writer.fields(column, blocks, width_of(used.shape[1]))
        area = self.height * self.width
        writer.fields(grid[row, :, column, :].ravel(), blocks * area, codes.bits)

    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        expect_header(header, 1)
        bounds, across = self._block_rows(frame), self._block_columns(frame)
        by_row = read_running(header[0], bounds, across, reader)
        blocks = sums(by_row, bounds)
        column = reader.fields(blocks, width_of(across))
        row = np.repeat(np.arange(by_row.size), by_row)
        order = row * across + column
        if column.max(initial=0) >= max(1, across) or (order[1:] <= order[:-1]).any():
            msg = f"block columns do not rise inside a row of {across}"
            raise BlobError(msg)
        area = self.height * self.width
        values = reader.fields(blocks * area, frame.bits, frame.dtype)
        grid = np.zeros((by_row.size, self.height, across, self.width), frame.dtype)
        grid[row, :, column, :] = values.reshape(-1, self.height, self.width)
        padded = grid.reshape(by_row.size * self.height, across * self.width)
        if padded[frame.rows :].any() or padded[:, frame.columns :].any():
            msg = "a block holds values beyond the edge of the matrix"
            raise BlobError(msg)
        return np.ascontiguousarray(padded[: frame.rows, : frame.columns]).ravel()

    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """For each row of blocks ``max(1, blocks · ceil(height · width / decoder.width))``."""
        each = -(-self.height * self.width // decoder.width)
        clocks = np.maximum(1, self._used(codes, frame).sum(axis=1) * each)
        return sums(clocks, self._block_rows(frame))

    def _used(self, codes: Codes, frame: Frame) -> NDArray[np.bool_]:
        """Which blocks hold a nonzero code, ``(block rows, block columns)``."""
        mask = codes.mask.reshape(frame.rows, frame.columns)
        first = np.arange(0, frame.rows, self.height)
        tall = np.bitwise_or.reduceat(mask, first, axis=0) if self.height > 1 else mask
        used = np.zeros((first.size, self._block_columns(frame)), np.uint8)
        for place in range(min(self.width, frame.columns)):
            column = tall[:, place :: self.width]
            used[:, : column.shape[1]] |= column
        return used.view(np.bool_)

    def _block_columns(self, frame: Frame) -> int:
        return -(-frame.columns // self.width)

    def _block_rows(self, frame: Frame) -> NDArray[np.int64]:
        """First row of blocks of each chunk, and the end."""
        return -(-frame.row_bounds // self.height)
