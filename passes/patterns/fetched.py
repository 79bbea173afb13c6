"""Patterns shaped by the hardware that fetches weights: lanes that finish together, bursts that are full."""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.patterns.pattern import Pattern, groups_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.layout import Layout
    from passes.patterns.pattern import Stored


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
        return groups_of(columns, 1, self.chunk)

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """The best of each row and run; how many, the rows' next best ones together decide.

        One weight more in each lane of a run is worth the sum of their next best scores, which falls
        with every step. So taking steps by their mean score while they fit is the best there is.
        """
        real = cells >= 0
        gathered = np.where(real, scores[:, :, cells], -1.0)
        falling = _falling(gathered)
        starts, heights = self._lanes(scores.shape[1])
        steps = np.add.reduceat(falling, starts, axis=1) / heights[:, None, None]
        steps[np.broadcast_to(np.sort(~real, axis=1), steps.shape)] = -1.0
        cost = np.broadcast_to(heights[:, None, None], steps.shape)
        counts = np.repeat(_best_steps(steps, cost, keep).sum(axis=3), heights, axis=1)
        kept = _largest(gathered, falling, counts)
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

    @property
    def counts(self) -> bool:
        """How many of each row and run."""
        return True

    def _lanes(self, rows: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """First row of those that stand together, and how many they are."""
        starts = np.arange(0, rows, self.rows_together(rows))
        return starts, np.diff([*starts, rows])


@dataclass(frozen=True)
class InStoredOrder(Pattern, abc.ABC):
    """Any weight may go, but of each chunk of the stored array only certain numbers of weights stay.

    A chunk is what the hardware takes at a time: neighbours in memory, whatever rows they belong to.
    Weights go in steps; the next step of a chunk takes its next best ones, so that steps of falling
    worth are taken while they fit, which is the best choice there is but for a last, shorter chunk.

    Attributes:
        layout: how the stored array becomes matrices; the matrices as they are without.
    """

    layout: Layout | None = None

    def fitted(self, taps: int, stored: Stored | None = None) -> Pattern:
        """For a weight of this layout."""
        return replace(self, taps=taps, layout=stored.layout if stored else self.layout)

    def mask(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        """The mask of highest total score that obeys the pattern and keeps at most ``keep``."""
        order = _stored_order(self.layout, scores.size)
        flat = scores.reshape(-1)
        kept = self._kept(flat if order is None else flat[order], keep)
        mask = kept
        if order is not None:
            mask = np.empty_like(kept)
            mask[order] = kept
        return mask.reshape(scores.shape)

    def cells(self, columns: int) -> NDArray[np.intp]:
        """One, of all columns."""
        return np.arange(columns)[None]

    def choose(self, scores: NDArray[Any], keep: int, cells: NDArray[np.intp]) -> NDArray[np.bool_]:
        """:meth:`mask`: columns cannot be chosen apart."""
        del cells
        return self.mask(scores, keep)

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Whether each chunk of the stored array keeps a number that it may."""
        order = _stored_order(self.layout, mask.size)
        flat = mask.reshape(-1)
        return self._allows(flat if order is None else flat[order])

    @property
    def whole(self) -> bool:
        """Chunks cross rows."""
        return True

    @property
    def counts(self) -> bool:
        """How many of each chunk."""
        return True

    @abc.abstractmethod
    def _kept(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        """The mask of flat scores in stored order."""

    @abc.abstractmethod
    def _allows(self, mask: NDArray[np.bool_]) -> bool:
        """Whether a flat mask in stored order has the pattern's shape."""


@dataclass(frozen=True)
class Segments(InStoredOrder):
    """Lanes that take a segment each keep equally many.

    A tile is ``lanes`` segments of ``chunk`` weights, one after the other as they lie in memory; all
    segments of a tile keep the same number of weights, another in another tile. So lanes that are dealt
    a tile's segments finish together, and its count stands once for all of them. A weight with
    less than a tile is cut into so many shorter segments; one at the end that is shorter than
    the others may keep fewer.
    """

    lanes: int = 16
    chunk: int = 64

    @property
    def name(self) -> str:
        """``segments:16x64`` and so on."""
        return f"segments:{self.lanes}x{self.chunk}"

    def _kept(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        tiles = self._tiles(scores, -1.0)
        falling = _falling(tiles)
        real = np.sort(self._tiles(np.ones(scores.size, np.bool_), fill=False), axis=2)[:, :, ::-1]
        cost = real.sum(axis=1)
        worth = np.where(real, falling, 0).sum(axis=1) / np.maximum(cost, 1)
        worth[cost == 0] = -1.0
        taken = _best_steps(worth, cost, keep).sum(axis=1)
        counts = np.broadcast_to(taken[:, None], tiles.shape[:2])
        return _largest(tiles, falling, counts).reshape(-1)[: scores.size]

    def _allows(self, mask: NDArray[np.bool_]) -> bool:
        kept = self._tiles(mask, fill=False).sum(axis=2)
        sizes = self._tiles(np.ones(mask.size, np.bool_), fill=False).sum(axis=2)
        return bool((kept == np.minimum(kept.max(axis=1, keepdims=True, initial=0), sizes)).all())

    def _tiles(self, flat: NDArray[Any], fill: float) -> NDArray[Any]:
        """``(tiles, lanes, chunk)``, filled up at the end."""
        size = min(self.chunk, max(1, -(-flat.size // self.lanes)))
        return _pieces(flat, self.lanes * size, fill).reshape(-1, self.lanes, size)


@dataclass(frozen=True)
class Burst(InStoredOrder):
    """Chunks that fill the memory's bursts.

    A chunk of ``chunk`` weights as a bit mask and its values takes whole bursts of ``burst`` bytes: the
    last one holds as many values as it can. Weights of least saliency at the margin are dropped, or
    others kept, so that no byte is fetched for nothing when chunks begin at bursts.

    Attributes:
        burst: bytes that the memory moves at a time.
        chunk: weights.
        bits: of a value.
    """

    burst: int = 64
    chunk: int = 1024
    bits: int = 32

    @property
    def name(self) -> str:
        """``burst:64x1024``."""
        return f"burst:{self.burst}x{self.chunk}"

    def fitted(self, taps: int, stored: Stored | None = None) -> Pattern:
        """For a weight of this layout and these values."""
        layout = stored.layout if stored else self.layout
        return replace(self, taps=taps, layout=layout, bits=stored.bits if stored else self.bits)

    def sizes(self, elements: int) -> NDArray[np.int64]:
        """How many weights a chunk of so many elements may keep, rising from 0 to all of them."""
        bits = 8 * self.burst
        most = -(-(elements * (1 + self.bits)) // bits)
        room = (np.arange(-(-elements // bits), most + 1) * bits - elements) // self.bits
        return np.unique(np.concatenate([[0], np.minimum(room, elements)]))

    def _kept(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        chunks = _pieces(scores, min(self.chunk, scores.size), -1.0)
        falling = _falling(chunks)
        # What is gone for good has a score of minus infinity.
        sums = np.cumsum(np.maximum(falling.astype(np.float64), -1e200), axis=1)
        sums = np.concatenate([np.zeros((len(chunks), 1)), sums], axis=1)
        full = self.sizes(chunks.shape[1])
        sizes = np.tile(full, (len(chunks), 1))
        last = self.sizes(scores.size - (len(chunks) - 1) * chunks.shape[1])
        sizes[-1] = last[np.minimum(np.arange(full.size), last.size - 1)]
        cost = np.diff(sizes, axis=1)
        worth = np.diff(np.take_along_axis(sums, sizes, axis=1), axis=1) / np.maximum(cost, 1)
        worth[cost == 0] = -1.0
        steps = _best_steps(worth, cost, keep).sum(axis=1)
        counts = sizes[np.arange(len(sizes)), steps]
        return _largest(chunks, falling, counts).reshape(-1)[: scores.size]

    def _allows(self, mask: NDArray[np.bool_]) -> bool:
        size = min(self.chunk, mask.size)
        kept = _pieces(mask, size, fill=False).sum(axis=1)
        last = self.sizes(mask.size - (len(kept) - 1) * size)
        return bool(np.isin(kept[:-1], self.sizes(size)).all() and kept[-1] in last)


def _pieces(flat: NDArray[Any], size: int, fill: float) -> NDArray[Any]:
    """A flat array in pieces of ``size``, ``(pieces, size)``, filled up at the end."""
    pieces = -(-flat.size // size)
    filled = np.full(pieces * size, fill, flat.dtype)
    filled[: flat.size] = flat
    return filled.reshape(pieces, size)


def _falling(scores: NDArray[Any]) -> NDArray[Any]:
    """Each run's scores, the largest first; numbers are sorted several times faster than places."""
    result: NDArray[Any] = np.sort(scores, axis=-1)[..., ::-1]
    return result


def _largest(
    scores: NDArray[Any], falling: NDArray[Any], counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The ``counts`` largest scores of each run, ``(..., run)``; among equals, those that come first.

    Args:
        scores: of runs.
        falling: the same, sorted.
        counts: how many of each run, ``(...)``.
    """
    last = np.take_along_axis(falling, np.maximum(counts, 1)[..., None] - 1, axis=-1)
    kept: NDArray[np.bool_] = (scores >= last) & (counts > 0)[..., None]
    many = kept.sum(axis=-1) > counts  # of runs with equal scores at the edge
    if many.any():
        best = np.argsort(-scores[many], axis=-1, kind="stable")
        exact = np.zeros(best.shape, np.bool_)
        np.put_along_axis(exact, best, np.arange(best.shape[-1]) < counts[many][:, None], axis=-1)
        kept[many] = exact
    return kept


def _best_steps(
    worth: NDArray[np.float64], cost: NDArray[np.int64], keep: int
) -> NDArray[np.bool_]:
    """Which steps to take: of each run its first ones, together the most worth that ``keep`` allows.

    Args:
        worth: of a weight in each step, ``(..., steps)``; negative for what cannot be taken.
        cost: weights in each step.
        keep: at most so many in all.
    """
    falling = np.minimum.accumulate(worth, axis=-1)  # a short last segment may make it rise
    order = np.argsort(-falling, axis=None, kind="stable")
    taken = np.zeros(worth.size, np.bool_)
    taken[order] = (np.cumsum(cost.ravel()[order]) <= keep) & (falling.ravel()[order] >= 0)
    return taken.reshape(worth.shape)


@lru_cache(maxsize=16)
def _stored_order(layout: Layout | None, elements: int) -> NDArray[np.int64] | None:
    """Where each stored element stands in the flat matrices; None where that is the same order."""
    if layout is None or all(kind == "reshape" for kind, _ in layout.steps):
        return None
    order = layout.positions(np.arange(elements))
    order.setflags(write=False)
    return order
