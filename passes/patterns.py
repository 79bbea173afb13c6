"""Patterns: which shapes a mask may take inside one tensor."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from passes.masks import keep_largest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Pattern(abc.ABC):
    """The contract of all patterns; ``tests/contracts/test_patterns.py`` checks it.

    A pattern turns scores and a budget into a mask, and can tell whether a mask obeys it.
    """

    name: ClassVar[str]

    @abc.abstractmethod
    def mask(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        """The mask of highest total score that obeys the pattern and keeps at most ``keep``.

        Args:
            scores: ``(groups, rows, columns)``.
            keep: 0 to ``scores.size``.
        """

    @abc.abstractmethod
    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Whether a mask ``(groups, rows, columns)`` has the pattern's shape."""


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Any weight may go: the fine-grained mask. Keeps exactly the budget."""

    name: ClassVar[str] = "unstructured"

    def mask(self, scores: NDArray[Any], keep: int) -> NDArray[np.bool_]:
        """Exactly ``keep`` elements of highest score."""
        return keep_largest(scores, keep)

    def obeys(self, mask: NDArray[np.bool_]) -> bool:
        """Every mask does."""
        return mask.ndim == 3
