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
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

TINY = 1e-12


@dataclass(frozen=True)
class BatchNorm:
    """A BatchNormalization node whose mean and variance are constants of its own."""

    activation: str
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
            found[node] = BatchNorm(data.name or "", mean, variance)
    return found


def reestimated(
    norm: BatchNorm,
    dense: Sequence[Mapping[str, NDArray[Any]]],
    pruned: Sequence[Mapping[str, NDArray[Any]]],
) -> dict[str, NDArray[Any]]:
    """New mean and variance by name: the old mean moved, the old variance scaled, as the data were.

    Args:
        norm: the node.
        dense: values of the dense model, by batch and name; channels on the second axis.
        pruned: values of the pruned model.
    """
    (mean, variance), (new_mean, new_variance) = (
        _statistics([batch[norm.activation] for batch in stream]) for stream in (dense, pruned)
    )
    assert norm.mean.const_value is not None
    assert norm.variance.const_value is not None
    old_mean, old_variance = norm.mean.const_value.numpy(), norm.variance.const_value.numpy()
    ratio = np.where(variance > TINY, new_variance / np.maximum(variance, TINY), 1.0)
    return {
        norm.mean.name or "": (old_mean + (new_mean - mean)).astype(old_mean.dtype),
        norm.variance.name or "": (old_variance * ratio).astype(old_variance.dtype),
    }


def _statistics(
    arrays: Sequence[NDArray[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axes = tuple(axis for axis in range(arrays[0].ndim) if axis != 1)
    count = sum(array.size // array.shape[1] for array in arrays)
    mean = sum(array.sum(axis=axes, dtype=np.float64) for array in arrays) / count
    shape = (1, -1, *(1,) * (arrays[0].ndim - 2))
    spread = sum(
        ((array - mean.reshape(shape)) ** 2).sum(axis=axes, dtype=np.float64) for array in arrays
    )
    return mean, spread / count
