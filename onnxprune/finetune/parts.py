"""The data of a run in three parts, and scores on the one that chooses the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.finetune.outputs import outputs_of
from onnxprune.finetune.train import Score
from onnxprune.metrics import find_metric

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from onnxprune.data import Dataset, DataSource
    from onnxprune.finetune.bridge import OnnxModule
    from onnxprune.finetune.train import Validate
    from onnxprune.recipe import Recipe
    from onnxprune.runtime import Session

EVALUATION_BATCH = 256
MIN_SAMPLES = 10


@dataclass(frozen=True)
class Parts:
    """The data of a run: what is trained on, what chooses the epoch, what is reported."""

    train: Dataset
    validation: Dataset
    held_out: Dataset


def deal(
    session: Session,
    data: DataSource,
    held_out: DataSource | None,
    validation: DataSource | None,
    recipe: Recipe,
) -> Parts:
    """Read the data and deal them by the recipe's seed.

    Raises:
        DataError: when they cannot be read, do not fit the model, or are too few.
    """
    settings = recipe.finetune
    samples = load_data(data, session.inputs)
    if len(samples) < MIN_SAMPLES:
        msg = f"fine-tuning needs at least {MIN_SAMPLES} samples, found {len(samples)}; give more data"
        raise DataError(msg)
    order = np.random.default_rng(recipe.seed).permutation(len(samples))
    parts = []
    for source, share in ((held_out, settings.held_out), (validation, settings.validation)):
        if source is not None:
            parts.append(load_data(source, session.inputs))
            continue
        count = max(1, round(len(samples) * share))
        parts.append(samples.take(np.sort(order[:count])))
        order = order[count:]
    return Parts(samples.take(np.sort(order)), parts[1], parts[0])


def validator(
    dense: OnnxModule, data: Dataset, metric: str | None, device: torch.device
) -> Validate:
    """Scores a module on the validation split."""
    reference = _outputs(dense, data, device)
    chosen = find_metric(metric, labelled=data.labels is not None, outputs=reference)
    known = reference if chosen.needs_dense else None

    def validate(module: OnnxModule) -> Score:
        scores = chosen.score(_outputs(module, data, device), data.labels, known)
        return Score(float(scores.mean()), float(scores.std() / np.sqrt(len(scores))))

    return validate


def _outputs(module: OnnxModule, data: Dataset, device: torch.device) -> list[NDArray[Any]]:
    made = [arrays for arrays, _ in outputs_of(module, data, EVALUATION_BATCH, device)]
    return [np.concatenate(parts) for parts in zip(*made, strict=True)]
