"""The dense model as a teacher: its outputs for a batch, computed once where batches come again as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch

if TYPE_CHECKING:
    from onnxprune.finetune.batches import Batch, Batches, Feeds
    from onnxprune.finetune.bridge.module import OnnxModule

    Outputs = tuple[torch.Tensor, ...]

MOST_BYTES = 1 << 28
"""More outputs than these are computed anew each time, not remembered."""


@final
class Teacher:
    """What the dense model says of each batch.

    Without augmentation a sample is the same in every pass, so its outputs are kept from the first
    call on, if they take no more than :data:`MOST_BYTES` for all samples and have one row for each.

    Args:
        dense: the model to learn from, on its device; it is not trained.
        batches: the training data.
    """

    def __init__(self, dense: OnnxModule, batches: Batches) -> None:
        self._dense, self._batches = dense, batches
        self._device = next(
            (tensor.device for tensor in [*dense.parameters(), *dense.buffers()]),
            torch.device("cpu"),
        )
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
        return self._run(batch.inputs)

    def _all(self) -> Outputs | None:
        """The outputs for all samples, in the order of the data; None where they cannot be kept."""
        count, found = self._batches.count, []
        for feeds in self._batches.in_order():
            outputs = self._run(feeds)
            size = len(next(iter(feeds.values())))
            by_sample = all(output.ndim and len(output) == size for output in outputs)
            if not by_sample or sum(o.nbytes for o in outputs) / size * count > MOST_BYTES:
                return None
            found.append(outputs)
        size = len(found[0][0])
        last = count - size * (len(found) - 1)  # what the last batch adds to those before it
        found[-1] = tuple(output[size - last :] for output in found[-1])
        return tuple(torch.cat(parts).cpu() for parts in zip(*found, strict=True))

    def _run(self, feeds: Feeds) -> Outputs:
        made = self._dense({name: value.to(self._device) for name, value in feeds.items()})
        return made if isinstance(made, tuple) else (made,)
