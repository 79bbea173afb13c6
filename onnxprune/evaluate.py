"""Running a model over data, and scoring it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from onnxprune.metrics import Metric, find_metric

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from onnxprune.data import Dataset, Feeds
    from onnxprune.runtime import Session

BATCH = 256
"""Samples in one feed where the model leaves the batch size open."""


def run_dataset(
    session: Session, data: Dataset, progress: Callable[[int, int], None] | None = None
) -> list[NDArray[Any]]:
    """The outputs of a model for every sample, each with samples on its first axis.

    A model with a fixed batch is fed in batches of that size, the last one filled up by repeating
    its last sample. Where outputs do not grow with the batch, samples are fed one at a time.
    ``progress`` is told of samples done and in all.
    """
    fixed = None if data.stacked else _fixed_batch(session)
    size = fixed or _open_batch(session, data)
    batches: list[list[NDArray[Any]]] = []
    done = 0
    for feeds in data.batches(size):
        samples = 1 if data.stacked else len(next(iter(feeds.values())))
        outputs = session.run(_filled(feeds, samples, fixed) if fixed else feeds)
        by_sample = not data.stacked and all(
            o.ndim and len(o) == (fixed or samples) for o in outputs
        )
        batches.append([o[:samples] if by_sample else o[None] for o in outputs])
        done += samples
        if progress:
            progress(min(done, len(data)), len(data))
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def feeds_of(session: Session, data: Dataset, size: int) -> list[Feeds]:
    """All samples as feeds: up to ``size`` in each where the model leaves the batch size open.

    A model with a fixed batch is fed in batches of that size, the last one filled up by repeating
    its last sample; one whose outputs do not grow with the batch is fed one sample at a time.
    """
    if data.stacked:
        return list(data.batches(1))
    fixed = _fixed_batch(session)
    if fixed:
        return [_filled(f, len(next(iter(f.values()))), fixed) for f in data.batches(fixed)]
    return list(data.batches(min(size, _open_batch(session, data))))


@final
class Evaluator:
    """Scores candidates against one dense model on one data set.

    Args:
        dense: session of the dense model.
        data: what to run; labels where the metric needs them.
        metric: name of a metric, or None for the one that fits the data.

    Raises:
        DataError, RecipeError: when metric and data do not fit.
    """

    def __init__(self, dense: Session, data: Dataset, metric: str | None = None) -> None:
        outputs = run_dataset(dense, data)
        self.data = data
        self.metric: Metric = find_metric(metric, labelled=data.labels is not None, outputs=outputs)
        self._dense_outputs = outputs if self.metric.needs_dense else None
        self.baseline: NDArray[Any] = self.metric.score(outputs, data.labels, self._dense_outputs)

    def scores(self, candidate: Session) -> NDArray[Any]:
        """A score for each sample, float64 ``(samples,)``."""
        outputs = run_dataset(candidate, self.data)
        return self.metric.score(outputs, self.data.labels, self._dense_outputs)


@dataclass(frozen=True)
class Splits:
    """Row numbers of the three parts of a data set; they share no sample."""

    calibration: NDArray[np.intp]
    search: NDArray[np.intp]
    held_out: NDArray[np.intp]


def split(samples: int, seed: int, *, calibration: float, search: float) -> Splits:
    """Deal samples at random into calibration, search and held-out parts.

    Args:
        samples: how many there are.
        seed: of the deal.
        calibration: share of the first part, 0 to 1.
        search: share of the second; the rest is held out.
    """
    order = np.random.default_rng(seed).permutation(samples)
    first = round(samples * calibration)
    second = first + round(samples * search)
    return Splits(np.sort(order[:first]), np.sort(order[first:second]), np.sort(order[second:]))


def _fixed_batch(session: Session) -> int | None:
    """The batch size that the model's inputs insist on, or None where they leave it open."""
    sizes = [spec.shape[0] for spec in session.inputs if spec.shape]
    return min((size for size in sizes if size is not None), default=None)


def _open_batch(session: Session, data: Dataset) -> int:
    if data.stacked or len(data) < 2:
        return 1
    probe = session.run(next(data.batches(2)))
    return BATCH if all(o.ndim and len(o) == 2 for o in probe) else 1


def _filled(feeds: Feeds, samples: int, size: int) -> Feeds:
    fill = np.minimum(np.arange(size), samples - 1)
    return feeds if samples == size else {name: array[fill] for name, array in feeds.items()}
