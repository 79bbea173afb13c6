"""The pass that writes reconstructed constants into a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from passes.weights import Weight


@dataclass(frozen=True, eq=False)
class AssignConstantsPass(ir.passes.InPlacePass):
    """Gives weights and initializers new values of the same shape and dtype; all else stays.

    Attributes:
        constants: arrays in stored form, by the name of a weight or of an initializer of the main
            graph.
    """

    constants: Mapping[str, NDArray[Any]] = field(repr=False)

    def requires(self, model: ir.Model) -> None:
        """Every name is there, with that shape and dtype."""
        weights = _weights(model)
        for name, array in self.constants.items():
            old = weights[name].array() if name in weights else _initializer(model, name)
            if old.shape != array.shape or old.dtype != array.dtype:
                msg = (
                    f"the new values of '{name}' are {array.dtype} {array.shape}, the model's are "
                    f"{old.dtype} {old.shape}"
                )
                raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Assign the values; ``modified`` is True when any stored bit changed."""
        modified = False
        weights = _weights(model)
        for name, array in self.constants.items():
            old = weights[name].array() if name in weights else _initializer(model, name)
            if old.tobytes() == array.tobytes():
                continue
            modified = True
            if name in weights:
                weights[name].assign(array)
                continue
            tensor = model.graph.initializers[name].const_value
            assert tensor is not None
            model.graph.initializers[name].const_value = ir.tensor(
                np.ascontiguousarray(array),
                dtype=tensor.dtype,
                name=tensor.name,
                doc_string=tensor.doc_string,
            )
        return ir.passes.PassResult(model, modified)


def _weights(model: ir.Model) -> dict[str, Weight]:
    return {weight.name: weight for weight in collect_weights(model, embeddings=True).weights}


def _initializer(model: ir.Model, name: str) -> NDArray[Any]:
    value = model.graph.initializers.get(name)
    if value is None or value.const_value is None:
        msg = f"there are new values for '{name}', but the model has no such weight or initializer"
        raise ir.passes.PreconditionError(msg)
    return value.const_value.numpy()
