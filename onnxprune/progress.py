"""Telling a caller how far a function has come."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Called with the name of a step, how much of it is done, and how much there is."""


def silent(step: str, done: int, total: int) -> None:
    """The progress that nobody wants to hear of."""


def counted(items: Sequence[T], step: str, progress: Progress | None) -> Iterator[T]:
    """The items, one by one; each is told as done when the next one is asked for."""
    tell = progress or silent
    for number, item in enumerate(items):
        tell(step, number, len(items))
        yield item
    tell(step, len(items), len(items))
