"""What one layer sees of calibration data: its reductions in the pruned stream, and its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.stream import Feeds


@dataclass(frozen=True)
class Samples:
    """What one layer sees at the positions drawn, all float32.

    Attributes:
        reductions: ``(G, P, C)``, of the pruned stream.
        wanted: ``(G, P, R)``, what the dense stream has where the layer's output goes: the output
            itself, or its sum with another value.
        added: ``(G, P, R)``, that other value in the pruned stream; zero where there is none.
    """

    reductions: NDArray[np.float32]
    wanted: NDArray[np.float32]
    added: NDArray[np.float32]

    @property
    def targets(self) -> NDArray[np.float32]:
        """What the layer should give: ``wanted`` less what is there already."""
        return self.wanted - self.added

    def rectified(
        self, weights: NDArray[np.float64], bias: NDArray[np.float64] | None
    ) -> NDArray[np.float32]:
        """Targets when a Relu follows: where the dense value is rectified away, any value below 0 will do."""
        got = self.reductions @ weights.transpose(0, 2, 1).astype(np.float32) + self.added
        if bias is not None:
            got += bias.astype(np.float32)[:, None, :]
        wanted = np.where(self.wanted > 0, self.wanted, np.minimum(got, 0))
        return wanted - self.added


def draw_samples(
    layer: Layer,
    values: NDArray[np.float64],
    dense: Sequence[Feeds],
    pruned: Sequence[Feeds],
    positions: int,
    rng: np.random.Generator,
) -> Samples:
    """Reductions of the pruned stream, and the outputs that the layer should give there."""
    name, unfold = layer.activation.name or "", layer.unfold
    counts = [unfold.positions(batch[name]) for batch in dense]
    share = min(1.0, positions / max(1, sum(counts)))
    weights = values.astype(np.float32).transpose(0, 2, 1)
    groups, rows, _ = values.shape
    bias = stored_bias(layer).reshape(groups, 1, rows)
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for count, right, ours in zip(counts, dense, pruned, strict=True):
        index = np.sort(rng.choice(count, max(1, round(count * share)), replace=False))
        output = unfold.reductions(right[name], index) @ weights + bias
        there = [_added(layer, stream, index, output, count) for stream in (right, ours)]
        parts.append((unfold.reductions(ours[name], index), output + there[0], there[1]))
    return Samples(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def stored_bias(layer: Layer) -> NDArray[np.float32]:
    """The layer's bias, float32, one number for each output; zeros where it has none."""
    if layer.bias is None or layer.bias.const_value is None:
        return np.zeros(layer.weight.matrices().shape[:2], np.float32)
    return layer.bias.const_value.numpy().astype(np.float32)


def _added(
    layer: Layer,
    stream: Feeds,
    index: NDArray[np.intp],
    output: NDArray[np.float32],
    count: int,
) -> NDArray[np.float32]:
    """What is added to the layer's output in a stream; zero where nothing is, or not one for one."""
    value = None if layer.other is None else stream.get(layer.other.name or "")
    groups, _, rows = output.shape
    channels = -1 if layer.unfold.kernel is None else 1
    if value is None or value.ndim < 2 or value.size != count * groups * rows:
        return np.zeros_like(output)
    if value.shape[channels] != groups * rows:
        return np.zeros_like(output)
    return layer.unfold.outputs(value, index)
