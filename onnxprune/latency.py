"""How long models take, beside each other: rounds in turn, so that what else the machine does meets all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.evaluate import prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from onnxprune.data import Dataset, Feeds
    from onnxprune.runtime import Session

ROUNDS = 21
FIRST = np.array([0])
"""The sample that is run where nobody says which."""


@dataclass(frozen=True)
class Latency:
    """Of one model: the median over rounds, and between which values the middle half of them lies.

    Attributes:
        median_ms: milliseconds of one run.
        quartiles_ms: a quarter of the rounds took no longer than the first, a quarter no less than the second.
    """

    median_ms: float
    quartiles_ms: tuple[float, float]


def inferences(sessions: Sequence[Session], data: Dataset) -> list[Callable[[], object]]:
    """One run of each model over the same data, which is put into its feeds beforehand."""
    feeds = prepare(sessions[0], data).feeds
    return [partial(_run, session, feeds) for session in sessions]


def _run(session: Session, feeds: Iterable[Feeds]) -> None:
    for feed in feeds:
        session.run(feed)


def latencies(
    runs: Sequence[Callable[[], object]], *, rounds: int = ROUNDS, repeat: int = 1
) -> tuple[Latency, ...]:
    """Call each in turn, round after round, after a round that does not count.

    Args:
        runs: one inference of each model that is compared.
        rounds: that count.
        repeat: calls in one round, whose mean is taken: more for models that take microseconds.
    """
    taken = np.zeros((rounds + 1, len(runs)))
    for number in range(rounds + 1):
        for place, run in enumerate(runs):
            start = time.perf_counter()
            for _ in range(repeat):
                run()
            taken[number, place] = (time.perf_counter() - start) / repeat * 1e3
    low, middle, high = np.percentile(taken[1:], (25, 50, 75), axis=0).round(4)
    return tuple(
        Latency(float(median), (float(least), float(most)))
        for least, median, most in zip(low, middle, high, strict=True)
    )
