"""The pass that writes masks into a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.weights import Weight, collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ApplyMasksPass(ir.passes.InPlacePass):
    """Sets to zero what masks do not keep.

    Attributes:
        masks: by weight name, ``(groups, rows, columns)`` in the view of the weight's layout;
            True keeps. Weights without a mask stay as they are.
    """

    masks: Mapping[str, NDArray[np.bool_]] = field(repr=False)

    def requires(self, model: ir.Model) -> None:
        """Every mask names a weight of the model and has its shape."""
        weights = {
            weight.name: weight for weight in collect_weights(model, embeddings=True).weights
        }
        for name, mask in self.masks.items():
            if name not in weights:
                msg = f"there is a mask for '{name}', but the model has no such prunable weight"
                raise ir.passes.PreconditionError(msg)
            expected = weights[name].layout.matrix_shape
            if mask.shape != expected:
                msg = f"the mask of '{name}' has shape {mask.shape}, its weight {expected}"
                raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Apply the masks; ``modified`` is True when any stored bit changed."""
        modified = False
        for weight in collect_weights(model, embeddings=True).weights:
            if weight.name in self.masks:
                modified |= _apply(weight, self.masks[weight.name])
        return ir.passes.PassResult(model, modified)


def _apply(weight: Weight, mask: NDArray[np.bool_]) -> bool:
    before = weight.array()
    after = weight.masked(mask)
    if same_bits(after, before):
        return False
    weight.assign(after)
    return True


def same_bits(left: NDArray[Any], right: NDArray[Any]) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits."""
    unsigned = f"u{left.itemsize}"
    ours, theirs = (np.ascontiguousarray(array).view(unsigned) for array in (left, right))
    return bool(np.array_equal(ours, theirs))
