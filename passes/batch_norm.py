"""BatchNormalization after pruning: its statistics follow what the pruned model really gives.

A pruned layer shifts and shrinks its outputs, while the statistics in the file are those of the dense
model. Both models see the same calibration data, so the change between them is what is corrected;
that the data's own statistics differ from those of training does no harm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.values import Values

TINY = 1e-12


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNormalization node whose mean and variance are constants of its own."""

    activation: ir.Value
    mean: ir.Value
    variance: ir.Value


def find_batch_norms(graph: ir.Graph) -> dict[ir.Node, BatchNorm]:
    """The nodes of the main graph whose statistics may be changed."""
    found = {}
    for node in graph:
        if node.op_type != "BatchNormalization" or len(node.inputs) < 5:
            continue
        data, mean, variance = node.inputs[0], node.inputs[3], node.inputs[4]
        if data is None or mean is None or variance is None or mean is variance:
            continue
        if all(v.is_initializer() and len(v.uses()) == 1 for v in (mean, variance)):
            found[node] = BatchNorm(data, mean, variance)
    return found


def reestimated(norm: BatchNorm, pairs: Iterable[tuple[Values, Values]]) -> dict[str, NDArray[Any]]:
    """New mean and variance by name: the old mean moved, the old variance scaled, as the data were.

    Args:
        norm: the node.
        pairs: for each batch the values of the dense and of the pruned model; channels are on the second
            axis of what the node reads.
    """
    dense, pruned = _Statistics(), _Statistics()
    for right, ours in pairs:
        dense.add(right[norm.activation])
        pruned.add(ours[norm.activation])
    assert norm.mean.const_value is not None
    assert norm.variance.const_value is not None
    old_mean, old_variance = norm.mean.const_value.numpy(), norm.variance.const_value.numpy()
    variance = dense.variance
    ratio = np.where(variance > TINY, pruned.variance / np.maximum(variance, TINY), 1.0)
    return {
        norm.mean.name or "": (old_mean + (pruned.mean - dense.mean)).astype(old_mean.dtype),
        norm.variance.name or "": (old_variance * ratio).astype(old_variance.dtype),
    }


class _Statistics:
    """Mean and variance of channels, gathered batch by batch (Chan et al. 1983)."""

    def __init__(self) -> None:
        self._count = 0
        self.mean: NDArray[np.float64] = np.zeros(1)
        self._spread: NDArray[np.float64] = np.zeros(1)

    def add(self, array: NDArray[Any]) -> None:
        """Take in a batch."""
        axes = tuple(axis for axis in range(array.ndim) if axis != 1)
        shape = (1, -1, *(1,) * (array.ndim - 2))
        count = array.size // array.shape[1]
        mean = array.mean(axis=axes, dtype=np.float64)
        spread = ((array - mean.reshape(shape)) ** 2).sum(axis=axes, dtype=np.float64)
        total = self._count + count
        moved = mean - self.mean
        self._spread = self._spread + spread + moved**2 * (self._count * count / total)
        self.mean = self.mean + moved * (count / total)
        self._count = total

    @property
    def variance(self) -> NDArray[np.float64]:
        """Of each channel."""
        return self._spread / max(1, self._count)
