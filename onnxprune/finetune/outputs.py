"""What a module gives for all samples of a data set, batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onnxprune.finetune.bridge import several
from onnxprune.finetune.bridge.dtypes import from_array, to_array

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxprune.data import Dataset
    from onnxprune.finetune.bridge import OnnxModule


@torch.no_grad()
def outputs_of(
    module: OnnxModule, data: Dataset, size: int, device: torch.device
) -> Iterator[tuple[list[NDArray[Any]], bool]]:
    """For each batch of up to ``size`` samples, in order: the outputs, and whether they have a row for each sample.

    Outputs without such rows get a first axis of one. Dropout and BatchNormalization compute as exported
    meanwhile. A batch that is smaller than a model's fixed one is filled up with its last sample.
    """
    mode = (module.mode.dropout, module.mode.batch_norm)
    module.set_mode(dropout=False, batch_norm=False)
    fixed = min((n for n in module.fixed_batch if n), default=0)
    size = fixed or size
    try:
        for feeds in data.batches(size):
            count = 1 if data.stacked else len(next(iter(feeds.values())))
            tensors = {name: from_array(array).to(device) for name, array in feeds.items()}
            if fixed and not data.stacked and count < size:
                fill = torch.arange(size).clamp(max=count - 1)
                tensors = {name: tensor[fill] for name, tensor in tensors.items()}
            arrays = [to_array(value) for value in several(module(tensors))]
            by_sample = not data.stacked and all(a.ndim and len(a) >= count for a in arrays)
            yield [a[:count] if by_sample else a[None] for a in arrays], by_sample
    finally:
        module.set_mode(dropout=mode[0], batch_norm=mode[1])
