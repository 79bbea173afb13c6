"""What one layer sees of calibration data: its reductions in the pruned stream, and its targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from passes.recurrent import additive

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.values import Values


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
    pairs: Iterable[tuple[Values, Values]],
    batches: int,
    positions: int,
    rng: np.random.Generator,
) -> Samples:
    """Reductions of the pruned stream, and the outputs that the layer should give there.

    Args:
        layer: whose inputs are watched.
        values: its dense weights, ``(G, R, C)``.
        pairs: for each batch the values of the dense model and of the pruned one. Where the latter have
            another number of positions, the former stand for them.
        batches: how many there are.
        positions: about how many to draw in all.
        rng: draws them.
    """
    weights = values.astype(np.float32).transpose(0, 2, 1)
    groups, rows, _ = values.shape
    bias = np.zeros((groups, 1, rows), np.float32)
    if layer.bias is not None:
        bias = layer.bias.values({}).astype(np.float32).reshape(groups, 1, rows)
    parts: list[tuple[NDArray[np.float32], ...]] = []
    total = None
    for right, ours in pairs:
        right_seen = [source.reader.prepare(right) for source in layer.sources]
        ours_seen = [source.reader.prepare(ours) for source in layer.sources]
        counts = [
            source.reader.unfold.positions(seen)
            for source, seen in zip(layer.sources, right_seen, strict=True)
        ]
        total = max(1, sum(counts) * batches) if total is None else total
        for source, count, theirs, mine in zip(
            layer.sources, counts, right_seen, ours_seen, strict=True
        ):
            if not count:
                continue
            take = min(count, max(1, round(count * min(1.0, positions / total))))
            index = np.sort(rng.choice(count, take, replace=False))
            found = source.reductions(theirs, index)
            output = found @ weights + bias
            if source.reader.unfold.positions(mine) == count:
                found = source.reductions(mine, index)
            there = [_added(layer, stream, index, output, count) for stream in (right, ours)]
            if layer.partner is not None:
                there = [given_by_partner(layer, stream, index, output) for stream in (right, ours)]
            parts.append((found, output + there[0], there[1]))
    if not parts:
        msg = "no batch of the data reaches it"
        raise ValueError(msg)
    return Samples(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def _added(
    layer: Layer,
    stream: Values,
    index: NDArray[np.intp],
    output: NDArray[np.float32],
    count: int,
) -> NDArray[np.float32]:
    """What is added to the layer's output in a stream; zero where nothing is, or not one for one."""
    value = stream.get(layer.other)
    groups, _, rows = output.shape
    unfold = layer.sources[0].reader.unfold
    axis = unfold.channel_axis
    if value is None or axis is None or value.ndim < 2 or value.size != count * groups * rows:
        return np.zeros_like(output)
    if value.shape[axis] != groups * rows:
        return np.zeros_like(output)
    return unfold.outputs(value, index, groups)


def given_by_partner(
    layer: Layer, stream: Values, index: NDArray[np.intp], output: NDArray[np.float32]
) -> NDArray[np.float32]:
    """What W gives in a stream where this layer's R gives ``output``; zero where they are not added."""
    partner = layer.partner
    assert partner is not None
    reader = partner.sources[0].reader
    seen = reader.prepare(stream)
    if index[-1] >= reader.unfold.positions(seen):
        return np.zeros_like(output)
    weights = partner.matrices(stream.constants).astype(np.float32)
    given = partner.sources[0].reductions(seen, index) @ weights.transpose(0, 2, 1)
    if partner.bias is not None:
        given += partner.bias.values(stream.constants).astype(np.float32)[:, None]
    groups, positions, rows = output.shape
    by_row = given.transpose(0, 2, 1).reshape(groups, rows, positions)
    flat = additive(layer.sources[0].reader.node, groups * rows).reshape(groups, rows, 1)
    return np.ascontiguousarray((by_row * flat).transpose(0, 2, 1), np.float32)
