"""Patterns along rows and columns: N:M groups, blocks and channels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_largest
from passes.patterns.pattern import Pattern, groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.patterns.pattern import Stored


@dataclass(frozen=True)
class NM(Pattern):
    """At most ``n`` of each ``m`` weights along the reduction axis.

    Groups run over input channels at one tap of the kernel, which is the axis along which TensorRT
    wants its 2:4 (for Conv: C of KCRS). Channels left over at the end form a shorter group.
    """

    n: int = 2
    m: int = 4

    @property
    def name(self) -> str:
        """``2:4`` and so on."""
        return f"{self.n}:{self.m}"

    def cells(self, columns: int) -> NDArray[np.intp]:
        """The groups, tap by tap."""
        return groups_of(columns, self.taps, self.m)

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """The ``n`` best of each group; of those the best ``keep``."""
        gathered = np.where(cells < 0, -1.0, scores[:, :, cells])
        n = min(self.n, cells.shape[1])
        best = np.argsort(-gathered, axis=3, kind="stable")[..., :n]
        kept = np.zeros(gathered.shape, np.bool_)
        np.put_along_axis(kept, best, values=True, axis=3)
        mask = np.zeros(scores.shape, np.bool_)
        real = cells >= 0
        mask[:, :, cells[real]] = kept[:, :, real]
        if mask.sum() <= keep:
            return mask
        return keep_largest(np.where(mask, scores, -1.0), keep) & mask

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """No group keeps more than ``n``."""
        cells = self.cells(mask.shape[2])
        return bool(((mask[:, :, cells] & (cells >= 0)).sum(axis=3) <= self.n).all())

    def most(self, rows: int, columns: int) -> int:
        """``n`` of each whole group, and what a shorter one has up to that."""
        sizes = (self.cells(columns) >= 0).sum(axis=1)
        return rows * int(np.minimum(sizes, self.n).sum())


@dataclass(frozen=True)
class Block(Pattern):
    """Tiles of ``rows`` outputs by ``columns`` of the matrix view go or stay as one.

    Tiles at the edges are smaller where the sizes do not divide.
    """

    rows: int | None = 1
    columns: int = 1

    @property
    def name(self) -> str:
        """``4x1`` and so on."""
        return f"{self.rows}x{self.columns}"

    def cells(self, columns: int) -> NDArray[np.intp]:
        """Runs of ``columns``."""
        return groups_of(columns, 1, self.columns)

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """The tiles of highest mean score, while they fit."""
        summed, sizes = self._tiles(scores, cells)
        order = np.argsort(-(summed / sizes), axis=None, kind="stable")
        fits = np.cumsum(np.broadcast_to(sizes, summed.shape).ravel()[order]) <= keep
        chosen = np.zeros(summed.size, np.bool_)
        chosen[order[fits]] = True
        return self._spread(chosen.reshape(summed.shape), cells, scores.shape)

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Each tile is all True or all False."""
        summed, sizes = self._tiles(mask.astype(np.int64), self.cells(mask.shape[2]))
        return bool(((summed == 0) | (summed == sizes)).all())

    def rows_together(self, rows: int) -> int:
        """The height of a tile."""
        return min(rows, self.rows or rows)

    @property
    def row_tile(self) -> int | None:
        """The height of a tile."""
        return self.rows

    def _tiles(
        self, scores: NDArray[Any], cells: NDArray[np.intp]
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Sums and sizes of tiles, ``(groups, row tiles, cells)``."""
        real = cells >= 0
        across = np.where(real, scores[:, :, cells], 0).sum(axis=3)
        rows = scores.shape[1]
        starts = np.arange(0, rows, self.rows_together(rows))
        heights = np.diff([*starts, rows])
        sizes: NDArray[np.int64] = heights[:, None] * real.sum(axis=1)
        return np.add.reduceat(across, starts, axis=1), sizes[None]

    def _spread(
        self, chosen: NDArray[np.bool_], cells: NDArray[np.intp], shape: tuple[int, ...]
    ) -> NDArray[np.bool_]:
        rows = np.repeat(chosen, self.rows_together(shape[1]), axis=1)[:, : shape[1]]
        mask = np.zeros(shape, np.bool_)
        for place in range(cells.shape[1]):
            real = cells[:, place] >= 0
            mask[:, :, cells[real, place]] = rows[:, :, real]
        return mask


@dataclass(frozen=True)
class Channel(Block):
    """Whole input channels: what is left can still be updated to make good for them.

    A channel that a layer no longer reads need not be computed by the layer before.
    """

    rows: int | None = None

    @property
    def name(self) -> str:
        """``channel``."""
        return "channel"

    def fitted(self, taps: int, stored: Stored | None = None) -> Pattern:
        """A channel is as wide as the kernel has taps."""
        del stored
        return replace(self, taps=taps, columns=taps)
