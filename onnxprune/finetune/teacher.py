"""The dense model as a teacher: its outputs for a batch, computed once where samples come again as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from onnxprune.finetune.bridge import several
from onnxprune.finetune.bridge.dtypes import from_array
from onnxprune.finetune.outputs import outputs_of

if TYPE_CHECKING:
    from onnxprune.finetune.batches import Batch, Batches
    from onnxprune.finetune.bridge import OnnxModule

    Outputs = tuple[torch.Tensor, ...]

MOST_BYTES = 1 << 28
"""More outputs than these are computed anew each time, not remembered."""


@final
class Teacher:
    """What the dense model says of each batch.

    Without augmentation a sample is the same in every pass, so its outputs are kept from the first
    call on, if they take no more than :data:`MOST_BYTES` for all samples and have one row for each.

    Args:
        dense: the model to learn from, on ``device``; it is not trained.
        batches: the training data.
        device: of the batches that it is asked about.
    """

    def __init__(self, dense: OnnxModule, batches: Batches, device: torch.device) -> None:
        self._dense, self._batches, self._device = dense, batches, device
        self._known: Outputs | None = None
        self._remembers = batches.repeats

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        """The outputs for a batch, in the model's order."""
        if self._remembers and self._known is None:
            self._known = self._all()
            self._remembers = self._known is not None
        if self._known is not None:
            return tuple(output[batch.rows].to(self._device) for output in self._known)
        return several(self._dense(batch.inputs))

    def _all(self) -> Outputs | None:
        """The outputs for all samples, in the order of the data; None where they cannot be kept."""
        data, size, found = self._batches.data, self._batches.size, []
        for arrays, by_sample in outputs_of(self._dense, data, size, self._device):
            share = len(arrays[0]) / len(data)
            if not by_sample or sum(array.nbytes for array in arrays) > MOST_BYTES * share:
                return None
            found.append(arrays)
        return tuple(from_array(np.concatenate(parts)) for parts in zip(*found, strict=True))
