"""Metrics: a score for each sample, higher is better.

Scores stay apart by sample so that two models can be compared in pairs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import DataError, RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Outputs = Sequence["NDArray[Any]"]
"""Outputs of a model, each with samples on its first axis."""

ScoreFunction = Callable[[Outputs, "NDArray[Any] | None", "Outputs | None"], "NDArray[np.float64]"]


@dataclass(frozen=True)
class Metric:
    """A named score.

    Attributes:
        name: as in the report.
        score: takes outputs, labels and the dense model's outputs (the last two where they are
            needed); returns a float for each sample, shape ``(samples,)``.
        needs_labels: labels are required.
        needs_dense: the dense model's outputs are required; the dense model then scores 1.
    """

    name: str
    score: ScoreFunction
    needs_labels: bool = False
    needs_dense: bool = False


def find_metric(name: str | None, *, labelled: bool, outputs: Outputs) -> Metric:
    """The metric of that name; without a name, the one that fits the data.

    With labels that is ``top1``. Without, it is fidelity to the dense model: ``agreement`` (the
    share of samples whose largest output stays the same) where the first output looks like class
    scores, float ``(samples, classes)``, else ``fidelity``.

    Raises:
        RecipeError: for an unknown name.
        DataError: when the metric needs labels and there are none.
    """
    if name is None:
        name = "top1" if labelled else _label_free(outputs)
    metric = _METRICS.get(name) or _user_metric(name)
    if metric.needs_labels and not labelled:
        msg = f"metric '{name}' needs labels; add an array 'labels' to the data, or use 'agreement'"
        raise DataError(msg)
    return metric


def _label_free(outputs: Outputs) -> str:
    first = outputs[0]
    return (
        "agreement"
        if first.dtype.kind == "f" and first.ndim == 2 and first.shape[1] > 1
        else "fidelity"
    )


def _topk(k: int) -> ScoreFunction:
    def score(
        outputs: Outputs, labels: NDArray[Any] | None, _: Outputs | None
    ) -> NDArray[np.float64]:
        assert labels is not None
        scores = outputs[0].reshape(len(outputs[0]), -1)
        if labels.shape[0] != scores.shape[0] or labels.size != labels.shape[0]:
            msg = f"labels must be one class number for each sample, found shape {labels.shape}"
            raise DataError(msg)
        truth = labels.reshape(-1).astype(np.int64)
        if truth.min() < 0 or truth.max() >= scores.shape[1]:
            classes = scores.shape[1]
            msg = f"labels run from {truth.min()} to {truth.max()}, but the model has {classes} classes"
            raise DataError(msg)
        own = np.take_along_axis(scores, truth[:, None], axis=1)
        # Classes before it win ties, as argmax would have it; NaN never scores.
        ahead = (scores > own).sum(axis=1) + (
            (scores == own) & (np.arange(scores.shape[1]) < truth[:, None])
        ).sum(axis=1)
        right: NDArray[np.bool_] = (ahead < k) & np.isfinite(own[:, 0])
        return right.astype(np.float64)

    return score


def _agreement(
    outputs: Outputs, _: NDArray[Any] | None, dense: Outputs | None
) -> NDArray[np.float64]:
    assert dense is not None
    ours, theirs = (o[0].reshape(len(o[0]), -1) for o in (outputs, dense))
    same = ours.argmax(axis=1) == theirs.argmax(axis=1)
    finite = np.isfinite(ours).all(axis=1)
    scores: NDArray[np.float64] = np.where(same & finite, 1.0, 0.0)
    return scores


def _fidelity(
    outputs: Outputs, _: NDArray[Any] | None, dense: Outputs | None
) -> NDArray[np.float64]:
    """1 minus the relative error ||y - dense|| / ||dense|| over all float outputs, at least 0."""
    assert dense is not None
    error = np.zeros(len(outputs[0]))
    power = np.zeros(len(outputs[0]))
    for ours, theirs in zip(outputs, dense, strict=True):
        if theirs.dtype.kind == "f":
            left = ours.reshape(len(ours), -1).astype(np.float64)
            right = theirs.reshape(len(theirs), -1).astype(np.float64)
            error += ((left - right) ** 2).sum(axis=1)
            power += (right**2).sum(axis=1)
    relative = np.sqrt(error / np.maximum(power, np.finfo(np.float64).tiny))
    relative = np.where(np.isfinite(relative), relative, 1.0)
    return np.maximum(0.0, 1.0 - np.where(error == 0, 0.0, relative))


def _user_metric(name: str) -> Metric:
    if ":" not in name:
        msg = f"unknown metric '{name}'; known are {', '.join(_METRICS)}, or module:function"
        raise RecipeError(msg)
    module_name, _, function_name = name.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        msg = f"cannot load metric '{name}': {error}"
        raise RecipeError(msg) from error

    def score(
        outputs: Outputs, labels: NDArray[Any] | None, dense: Outputs | None
    ) -> NDArray[np.float64]:
        del dense
        scores = np.asarray(function(outputs, labels), dtype=np.float64)
        if scores.shape != (len(outputs[0]),):
            expected = (len(outputs[0]),)
            msg = f"metric '{name}' must return shape {expected}, a score a sample; found {scores.shape}"
            raise RecipeError(msg)
        return scores

    return Metric(name, score)


_METRICS = {
    "top1": Metric("top1", _topk(1), needs_labels=True),
    "top5": Metric("top5", _topk(5), needs_labels=True),
    "agreement": Metric("agreement", _agreement, needs_dense=True),
    "fidelity": Metric("fidelity", _fidelity, needs_dense=True),
}
