"""The data of a run in three parts, and scores on the one that chooses the epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.finetune.bridge.dtypes import from_array, to_array
from onnxprune.finetune.train import Score
from onnxprune.metrics import find_metric

if TYPE_CHECKING:
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


@torch.no_grad()
def _outputs(module: OnnxModule, data: Dataset, device: torch.device) -> list[NDArray[Any]]:
    mode = (module.mode.dropout, module.mode.batch_norm)
    module.set_mode(dropout=False, batch_norm=False)
    fixed = min((n for n in module.fixed_batch if n), default=0)
    size = fixed or EVALUATION_BATCH
    rows: list[list[NDArray[Any]]] = []
    for feeds in data.batches(size):
        count = 1 if data.stacked else len(next(iter(feeds.values())))
        tensors = {name: from_array(array).to(device) for name, array in feeds.items()}
        if fixed and not data.stacked and count < size:  # filled up with the last sample
            fill = torch.arange(size).clamp(max=count - 1)
            tensors = {name: tensor[fill] for name, tensor in tensors.items()}
        results = module(tensors)
        several = results if isinstance(results, tuple) else (results,)
        arrays = [to_array(value) for value in several]
        by_sample = not data.stacked and all(a.ndim and len(a) >= count for a in arrays)
        rows.append([a[:count] if by_sample else a[None] for a in arrays])
    module.set_mode(dropout=mode[0], batch_norm=mode[1])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]
