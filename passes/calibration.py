"""Statistics of what weights multiply.

The model is run once (or as often as keeps the watched activations of one batch within
:data:`TAP_BYTES`), all activations are watched in the same run, and each batch goes into float64 sums
at once, so that memory does not grow with the number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.moments import Moments, product
from passes.stream import Stretch

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from passes.layers import Layer
    from passes.stream import Feeds, Runner

TAP_BYTES = 2**30


def calibrate(
    model: ir.Model,
    layers: Sequence[Layer],
    batches: Sequence[Feeds],
    runner: Runner,
    *,
    positions: int,
    seed: int = 0,
) -> dict[str, Moments]:
    """Moments of each layer in the dense model, its own outputs as targets, by weight name.

    Args:
        model: dense.
        layers: to watch.
        batches: feeds for the model's inputs.
        runner: runs models.
        positions: at most about so many are drawn for each layer.
        seed: of the positions.

    Raises:
        ValueError: naming the weight, when an activation holds NaN or infinity.
    """
    result: dict[str, Moments] = {}
    pending = list(layers)
    taps = len(pending)
    while pending:
        watched, sums = pending[:taps], [_Sums(layer) for layer in pending[:taps]]
        rng = np.random.default_rng(seed)
        names = {layer.activation.name or "" for layer in watched}
        stretch = Stretch(model, list(model.graph), names)
        for batch in batches:
            values = batch | stretch.run(runner, [batch], {})[0]
            size = sum(values[name].nbytes for name in names)
            if size > TAP_BYTES and len(watched) > 1:
                taps = max(1, len(watched) * TAP_BYTES // (2 * size))
                break
            for item in sums:
                item.add(values, max(1, -(-positions // len(batches))), rng)
        else:
            result |= {item.layer.name: item.moments() for item in sums}
            pending = pending[len(watched) :]
    return result


class _Sums:
    """Sums of one layer's reductions over batches."""

    def __init__(self, layer: Layer) -> None:
        groups, _, columns = layer.weight.matrices().shape
        self.layer = layer
        self._count = 0
        self._gram = np.zeros((groups, columns, columns))
        self._total = np.zeros((groups, columns))

    def add(self, values: Feeds, positions: int, rng: np.random.Generator) -> None:
        activation = values[self.layer.activation.name or ""]
        count = self.layer.unfold.positions(activation)
        index = np.sort(rng.choice(count, min(count, positions), replace=False))
        reductions = self.layer.unfold.reductions(activation, index)
        self._count += len(index)
        for group, rows in enumerate(reductions):
            self._gram[group] += product(rows, rows)
            self._total[group] += rows.sum(axis=0, dtype=np.float64)
        if not np.isfinite(self._gram).all():
            msg = (
                f"the activation of weight '{self.layer.name}' holds NaN or infinity, or numbers too "
                "large to square"
            )
            raise ValueError(msg)

    def moments(self) -> Moments:
        dense = self.layer.weight.matrices().astype(np.float64)
        mean = self._total / self._count
        return Moments(
            self._count,
            self._gram,
            self._gram @ dense.transpose(0, 2, 1),
            mean,
            np.einsum("grc,gc->gr", dense, mean),
        )
