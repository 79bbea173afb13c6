"""Running a model over data, and scoring it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from onnxprune.metrics import Metric, find_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
    prepared = prepare(session, data)
    parts = []
    for number, done in enumerate(np.cumsum(prepared.sizes).tolist()):
        parts.append(prepared.outputs(session, number))
        if progress:
            progress(done, len(data))
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


@dataclass(frozen=True, eq=False)
class Prepared:
    """Data as a model is to be fed with them; the same for all models with its inputs.

    Attributes:
        feeds: in order.
        sizes: how many samples each holds, without those that only fill up a fixed batch.
        fixed: the batch that the model insists on.
        stacked: whether samples have their own batch axis.
    """

    feeds: tuple[Feeds, ...]
    sizes: tuple[int, ...]
    fixed: int | None
    stacked: bool

    def outputs(self, session: Session, number: int) -> list[NDArray[Any]]:
        """Outputs of one feed, each with samples on its first axis."""
        outputs, samples = session.run(self.feeds[number]), self.sizes[number]
        by_sample = not self.stacked and all(
            o.ndim and len(o) == (self.fixed or samples) for o in outputs
        )
        return [o[:samples] if by_sample else o[None] for o in outputs]


def prepare(session: Session, data: Dataset, size: int = BATCH) -> Prepared:
    """Feeds of up to ``size`` samples each; see :func:`run_dataset`."""
    if data.stacked:
        feeds = tuple(data.batches(1))
        return Prepared(feeds, (1,) * len(feeds), None, stacked=True)
    fixed = _fixed_batch(session)
    raw = tuple(data.batches(fixed or min(size, _open_batch(session, data))))
    sizes = tuple(len(next(iter(feed.values()))) for feed in raw)
    if fixed:
        raw = tuple(_filled(feed, count, fixed) for feed, count in zip(raw, sizes, strict=True))
    return Prepared(raw, sizes, fixed, stacked=False)


@final
class Evaluator:
    """Scores candidates against one dense model on one data set.

    Args:
        dense: session of the dense model.
        data: what to run; labels where the metric needs them.
        metric: name of a metric, or None for the one that fits the data.
        size: samples in one feed where the model leaves the batch size open.

    Raises:
        DataError, RecipeError: when metric and data do not fit.
    """

    def __init__(
        self, dense: Session, data: Dataset, metric: str | None = None, size: int = BATCH
    ) -> None:
        self._feeds = prepare(dense, data, size)
        self._labels = data.labels
        outputs = self._run(dense, range(len(self._feeds.feeds)))
        self.metric: Metric = find_metric(metric, labelled=data.labels is not None, outputs=outputs)
        self._dense_outputs = outputs if self.metric.needs_dense else None
        self.baseline: NDArray[Any] = self._score(outputs, 0)

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return sum(self._feeds.sizes)

    def scores(self, candidate: Session) -> NDArray[Any]:
        """A score for each sample, float64 ``(samples,)``."""
        return np.concatenate(list(self.stages(candidate, (1.0,))))

    def stages(self, candidate: Session, shares: Sequence[float]) -> Iterator[NDArray[Any]]:
        """The scores piece by piece: whenever at least such a share of all samples has been run.

        Args:
            candidate: to score.
            shares: rising, the last 1.
        """
        ends = np.cumsum(self._feeds.sizes)
        done = 0
        for share in shares:
            stop = int(np.searchsorted(ends, share * ends[-1] - 1e-9)) + 1
            if stop > done:
                first = int(ends[done - 1]) if done else 0
                yield self._score(self._run(candidate, range(done, stop)), first)
                done = stop

    def _run(self, session: Session, numbers: Iterable[int]) -> list[NDArray[Any]]:
        parts = [self._feeds.outputs(session, number) for number in numbers]
        return [np.concatenate(columns) for columns in zip(*parts, strict=True)]

    def _score(self, outputs: list[NDArray[Any]], first: int) -> NDArray[Any]:
        """Scores of outputs that begin at sample ``first``."""
        here = slice(first, first + len(outputs[0]))
        labels = None if self._labels is None else self._labels[here]
        dense = self._dense_outputs and [array[here] for array in self._dense_outputs]
        return self.metric.score(outputs, labels, dense)


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
