"""Statistics of what weights multiply.

The model is run once (or as often as keeps the watched activations of one batch within
:data:`TAP_BYTES`), all activations are watched in the same run, and each batch goes into float64 sums
at once, so that memory does not grow with the number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from passes.moments import Moments, product
from passes.operators.constants import stored_tensor
from passes.schedule import folded_nodes
from passes.stream import Stretch
from passes.values import Values, tap_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

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
    taps, folded = len(pending), folded_nodes(model.graph)
    while pending:
        watched, sums = pending[:taps], [_Sums(layer) for layer in pending[:taps]]
        rng = np.random.default_rng(seed)
        needs = [v for layer in watched for v in layer.needs if stored_tensor(v) is None]
        stretch = Stretch(model, list(model.graph), {tap_name(value) for value in needs}, folded)
        for batch, found in zip(batches, stretch.each(runner, batches, {}), strict=True):
            size = sum(array.nbytes for array in found.values())
            if size > TAP_BYTES and len(watched) > 1:
                taps = max(1, len(watched) * TAP_BYTES // (2 * size))
                break
            for item in sums:
                item.add(Values(batch | found, {}), max(1, -(-positions // len(batches))), rng)
        else:
            result |= {item.layer.name: item.moments() for item in sums}
            pending = pending[len(watched) :]
    return result


class _Sums:
    """Sums of one layer's reductions over batches."""

    def __init__(self, layer: Layer) -> None:
        groups, _, columns = layer.shape
        self.layer = layer
        self._count = 0
        self._gram = np.zeros((groups, columns, columns))
        self._total = np.zeros((groups, columns))

    def add(self, values: Values, positions: int, rng: np.random.Generator) -> None:
        """Take in about so many positions of a batch."""
        sources = self.layer.sources
        seen = [source.reader.prepare(values) for source in sources]
        counts = [s.reader.unfold.positions(a) for s, a in zip(sources, seen, strict=True)]
        share = min(1.0, positions / max(1, sum(counts)))
        for source, activation, count in zip(sources, seen, counts, strict=True):
            if count:
                take = min(count, max(1, round(count * share)))
                index = np.sort(rng.choice(count, take, replace=False))
                self._add(source.reductions(activation, index))

    def _add(self, reductions: NDArray[np.float32]) -> None:
        self._count += reductions.shape[1]
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
        if not self._count:
            msg = f"no batch of the data reaches weight '{self.layer.name}'"
            raise ValueError(msg)
        dense = self.layer.matrices()
        mean = self._total / self._count
        return Moments(
            self._count,
            self._gram,
            self._gram @ dense.transpose(0, 2, 1),
            mean,
            np.einsum("grc,gc->gr", dense, mean),
        )
