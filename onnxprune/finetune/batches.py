"""Batches of training data: shuffled by seed and epoch, changed by seed and step, and by nothing else.

No random state is carried along, so a run that is resumed at a step sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.errors import DataError, RecipeError
from onnxprune.finetune.bridge.dtypes import from_array
from onnxprune.finetune.losses import load_function

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Dataset

Feeds = dict[str, "Tensor"]
Augment = Callable[[Feeds, torch.Generator], Feeds]
"""From a batch of inputs by name to a changed batch; randomness comes from the generator alone."""


@dataclass(frozen=True)
class Batch:
    """Inputs by name, labels where there are some, and which rows of the data they are."""

    inputs: Feeds
    labels: Tensor | None
    rows: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same with inputs and labels on a device."""
        return Batch(
            {name: value.to(device) for name, value in self.inputs.items()},
            None if self.labels is None else self.labels.to(device),
            self.rows,
        )


class Batches:
    """The batches of a data set, for one of several ranks that share each batch.

    Args:
        data: samples; not stacked.
        size: samples of a batch over all ranks.
        seed: of the order and of augmentation.
        augment: changes the inputs of each batch, or None.
        rank: which share of each batch is ours.
        ranks: how many share it.

    Attributes:
        data: the samples.
        size: samples of a batch over all ranks, no more than there are.
    """

    def __init__(
        self,
        data: Dataset,
        size: int,
        seed: int,
        *,
        augment: Augment | None = None,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self._inputs = {name: from_array(array) for name, array in data.inputs.items()}
        self._labels = None if data.labels is None else from_array(data.labels)
        self.data = data
        self.size = 1 if data.stacked else min(size, len(data))
        self._seed, self._augment = seed, augment
        self._rank, self._ranks = rank, ranks
        self._order: tuple[int, Tensor] = (-1, torch.empty(0))
        if self.size < ranks:
            msg = f"a batch of {self.size} samples cannot be shared by {ranks} processes; use larger batches"
            raise DataError(msg)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in one pass over the data."""
        return len(self.data) // self.size

    @property
    def repeats(self) -> bool:
        """Whether every pass shows the very same samples: nothing changes their inputs."""
        return self._augment is None and not self.data.stacked

    @property
    def labels(self) -> Tensor | None:
        """All labels."""
        return self._labels

    def batch(self, step: int) -> Batch:
        """The batch of a step, counted from 0 over the whole run."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order[0] != epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self.data))
            self._order = (epoch, torch.from_numpy(order))
        rows = self._order[1][place * self.size : (place + 1) * self.size]
        rows = rows[self._rank :: self._ranks]
        inputs = {
            name: values[rows[0]] if self.data.stacked else values[rows]
            for name, values in self._inputs.items()
        }
        if self._augment is not None:
            generator = torch.Generator().manual_seed(
                _mixed(self._seed, step * self._ranks + self._rank)
            )
            try:
                inputs = self._augment(inputs, generator)
            except TypeError as error:
                msg = f"the augmentation cannot be called with (inputs, generator): {error}"
                raise RecipeError(msg) from error
        return Batch(inputs, None if self._labels is None else self._labels[rows], rows)


def _mixed(seed: int, number: int) -> int:
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def find_augment(name: str | None) -> Augment | None:
    """Augmentation by name: None, ``shift:N``, ``flip``, both joined by ``+``, or ``module:function``.

    ``shift:N`` moves each image ``(C, H, W)`` by up to N pixels both ways, zeros coming in; ``flip``
    mirrors half of them from left to right. Both change the first input that has four axes.

    Raises:
        RecipeError: for anything else.
    """
    if name is None:
        return None
    parts = name.split("+")
    if all(part == "flip" or part.startswith("shift:") for part in parts):
        steps = [_flip if part == "flip" else _shift(part) for part in parts]

        def both(inputs: Feeds, generator: torch.Generator) -> Feeds:
            for step in steps:
                inputs = step(inputs, generator)
            return inputs

        return both
    if ":" in name:
        function: Any = load_function(name, "augmentation")
        return function
    msg = f"unknown augmentation '{name}'; write shift:2, flip, shift:2+flip or module:function"
    raise RecipeError(msg)


def _image(inputs: Feeds) -> str:
    for name, value in inputs.items():
        if value.ndim == 4:
            return name
    msg = "shift and flip need an input with four axes (samples, channels, height, width)"
    raise DataError(msg)


def _flip(inputs: Feeds, generator: torch.Generator) -> Feeds:
    name = _image(inputs)
    images = inputs[name]
    turned = torch.rand(len(images), generator=generator) < 0.5
    return {**inputs, name: torch.where(turned[:, None, None, None], images.flip(-1), images)}


def _shift(text: str) -> Augment:
    digits = text.partition(":")[2]
    if not digits.isdecimal():
        msg = f"'{text}' is not understood; write shift:2 for moves of up to 2 pixels"
        raise RecipeError(msg)
    most = int(digits)

    def shift(inputs: Feeds, generator: torch.Generator) -> Feeds:
        name = _image(inputs)
        images = inputs[name]
        count, channels, height, width = images.shape
        padded = torch.nn.functional.pad(images, (most,) * 4).flatten(2)
        down, right = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
        across = width + 2 * most
        corner = (torch.arange(height)[:, None] * across + torch.arange(width)).reshape(1, -1)
        places = (corner + down * across + right)[:, None].expand(count, channels, -1)
        return {**inputs, name: padded.gather(2, places).reshape(images.shape)}

    return shift
