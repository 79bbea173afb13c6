"""The contract of all patterns: which shapes a mask may take inside one tensor.

The columns of a weight's matrices run over input channels and, inside each channel, over the taps of
the kernel (one tap for a matrix product). A pattern sees columns as *cells*: sets of columns that are
decided about together.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.masks import keep_largest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.layout import Layout


@dataclass(frozen=True)
class Stored:
    """How a weight lies in memory.

    Attributes:
        layout: how its array becomes matrices.
        bits: of a value.
    """

    layout: Layout
    bits: int


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

    def fitted(self, taps: int, stored: Stored | None = None) -> Pattern:
        """The same pattern for one weight.

        Args:
            taps: of its kernel.
            stored: how its array lies in memory; patterns of rows and columns do not mind.
        """
        del stored
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

    @property
    def whole(self) -> bool:
        """Whether a weight is decided about as one: no columns can be settled before the others are."""
        return False

    @property
    def counts(self) -> bool:
        """Whether any weight may go, and only how many stay, of which others, is bound."""
        return False


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


@lru_cache(maxsize=64)
def groups_of(columns: int, taps: int, size: int) -> NDArray[np.intp]:
    """Channels at each tap in groups of ``size``: ``(groups, size)`` of columns, -1 where short."""
    channels = columns // taps
    width = min(size, channels)
    padded = np.full((taps, -(-channels // width) * width), -1)
    padded[:, :channels] = np.arange(columns).reshape(channels, taps).T
    groups = padded.reshape(-1, width)
    groups.setflags(write=False)
    return groups
