"""Patterns: which shapes a mask may take inside one tensor.

The columns of a weight's matrices run over input channels and, inside each channel, over the taps of
the kernel (one tap for a matrix product). A pattern sees columns as *cells*: sets of columns that are
decided about together.
"""

from __future__ import annotations

import abc
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_largest

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pattern(abc.ABC):
    """The contract of all patterns; ``tests/contracts/test_patterns.py`` checks it.

    A pattern turns scores and a budget into a mask, and can tell whether a mask obeys it.

    Attributes:
        taps: consecutive columns that belong to one input channel; see :meth:`fitted`.
    """

    taps: int = 1

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """As users write it, and as :func:`parse_pattern` reads it."""

    def fitted(self, taps: int) -> Pattern:
        """The same pattern for a weight whose kernel has so many taps."""
        return replace(self, taps=taps)

    def mask(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        """The mask of highest total score that obeys the pattern and keeps at most ``keep``.

        Args:
            scores: ``(groups, rows, columns)``, not negative.
            keep: 0 to ``scores.size``.
        """
        return self.choose(scores, keep, self.cells(scores.shape[2]))

    @abc.abstractmethod
    def cells(self, columns: int) -> NDArray[np.intp]:
        """Columns by cell, ``(cells, widest)``, short cells filled up with -1."""

    @abc.abstractmethod
    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """:meth:`mask` for columns whose cells are given, some of a weight's columns, say."""

    @abc.abstractmethod
    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Whether a mask ``(groups, rows, columns)`` has the pattern's shape."""

    def most(self, rows: int, columns: int) -> int:
        """The most weights that a mask of one group may keep."""
        return rows * columns

    def rows_together(self, rows: int) -> int:
        """How many rows share one decision."""
        return min(rows, 1)

    @property
    def row_tile(self) -> int | None:
        """How many rows of a group, from its first, share one decision; None for all of them."""
        return 1


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weight may go: the fine-grained mask. Keeps exactly the budget."""

    @property
    def name(self) -> str:
        """``unstructured``."""
        return "unstructured"

    def cells(self, columns: int) -> NDArray[np.intp]:
        """Each column is one."""
        return np.arange(columns)[:, None]

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Exactly ``keep`` elements of highest score."""
        del cells
        return keep_largest(scores, keep)

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Every mask does."""
        return mask.ndim == 3


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
        return _groups_of(columns, self.taps, self.m)

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
        return _groups_of(columns, 1, self.columns)

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

    def fitted(self, taps: int) -> Pattern:
        """A channel is as wide as the kernel has taps."""
        return replace(self, taps=taps, columns=taps)


@dataclass(frozen=True)
class Balanced(Pattern):
    """Any weight may go, but lanes that work side by side keep equally many.

    ``lanes`` rows stand together; of each run of ``chunk`` columns, as they lie in memory, all of them
    keep the same number of weights, another number in another run. So lanes that take a row each
    finish every run together, and a row-wise encoding needs no counts and no filler.
    """

    lanes: int = 16
    chunk: int = 64

    @property
    def name(self) -> str:
        """``balanced:16x64`` and so on."""
        return f"balanced:{self.lanes}x{self.chunk}"

    def cells(self, columns: int) -> NDArray[np.intp]:
        """Runs of ``chunk``."""
        return _groups_of(columns, 1, self.chunk)

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """The best of each row and run; how many, the rows' next best ones together decide.

        One weight more in each lane of a run is worth the sum of their next best scores, which falls
        with every step. So taking steps by their mean score while they fit is the best there is.
        """
        real = cells >= 0
        gathered = np.where(real, scores[:, :, cells], -1.0)
        best = np.argsort(-gathered, axis=3, kind="stable")
        falling = np.take_along_axis(gathered, best, axis=3)
        starts, heights = self._lanes(scores.shape[1])
        steps = np.add.reduceat(falling, starts, axis=1) / heights[:, None, None]
        steps[np.broadcast_to(np.sort(~real, axis=1), steps.shape)] = -1.0
        order = np.argsort(-steps, axis=None, kind="stable")
        cost = np.broadcast_to(heights[:, None, None], steps.shape).ravel()[order]
        taken = np.zeros(steps.size, np.bool_)
        taken[order] = (np.cumsum(cost) <= keep) & (steps.ravel()[order] >= 0)
        counts = np.repeat(taken.reshape(steps.shape).sum(axis=3), heights, axis=1)
        kept = np.zeros(gathered.shape, np.bool_)
        np.put_along_axis(kept, best, np.arange(best.shape[3]) < counts[..., None], axis=3)
        mask = np.zeros(scores.shape, np.bool_)
        mask[:, :, cells[real]] = kept[:, :, real]
        return mask

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """In each run the rows that stand together keep equally many."""
        cells = self.cells(mask.shape[2])
        counts = (mask[:, :, cells] & (cells >= 0)).sum(axis=3)
        starts, _ = self._lanes(mask.shape[1])
        most = np.maximum.reduceat(counts, starts, axis=1)
        return bool((most == np.minimum.reduceat(counts, starts, axis=1)).all())

    def rows_together(self, rows: int) -> int:
        """The lanes."""
        return min(rows, self.lanes)

    def _lanes(self, rows: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """First row of those that stand together, and how many they are."""
        starts = np.arange(0, rows, self.rows_together(rows))
        return starts, np.diff([*starts, rows])


def parse_pattern(text: str) -> Pattern:
    """Read ``unstructured``, ``2:4``, ``4x1`` (rows x columns), ``channel`` or ``balanced:16x64``.

    Raises:
        ValueError: for anything else.
    """
    plain = {"unstructured": Unstructured(), "channel": Channel()}
    if text in plain:
        return plain[text]
    match = re.fullmatch(r"(balanced:)?(\d{1,4})([:x])(\d{1,4})", text)
    if match:
        first, second = int(match[2]), int(match[4])
        if match[1]:
            if match[3] == "x" and first and second:
                return Balanced(lanes=first, chunk=second)
            raise _not_understood(text)
        if match[3] == ":" and 0 < first <= second:
            return NM(n=first, m=second)
        if match[3] == "x" and first and second:
            return Block(rows=first, columns=second)
    raise _not_understood(text)


def _not_understood(text: str) -> ValueError:
    return ValueError(
        f"pattern '{text}' is not understood; write unstructured, N:M (2:4: at most 2 of each 4 "
        "along the reduction), RxC (4x1: tiles of 4 rows and 1 column), channel or balanced:LxB "
        "(balanced:16x64: 16 rows keep equally many of each 64 columns)"
    )


@lru_cache(maxsize=64)
def _groups_of(columns: int, taps: int, size: int) -> NDArray[np.intp]:
    """Channels at each tap in groups of ``size``: ``(groups, size)`` of columns, -1 where short."""
    channels = columns // taps
    width = min(size, channels)
    padded = np.full((taps, -(-channels // width) * width), -1)
    padded[:, :channels] = np.arange(columns).reshape(channels, taps).T
    groups = padded.reshape(-1, width)
    groups.setflags(write=False)
    return groups
