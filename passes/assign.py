"""The pass that writes reconstructed constants into a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AssignConstantsPass(ir.passes.InPlacePass):
    """Gives initializers new values of the same shape and dtype; everything else stays as it is.

    Attributes:
        constants: arrays by initializer name.
    """

    constants: Mapping[str, NDArray[Any]] = field(repr=False)

    def requires(self, model: ir.Model) -> None:
        """Every name is an initializer of that shape and dtype."""
        for name, array in self.constants.items():
            value = model.graph.initializers.get(name)
            if value is None or value.const_value is None:
                msg = f"there are new values for '{name}', but the model has no such initializer"
                raise ir.passes.PreconditionError(msg)
            old = value.const_value
            if tuple(old.shape.numpy()) != array.shape or old.dtype.numpy() != array.dtype:
                msg = (
                    f"the new values of '{name}' are {array.dtype} {array.shape}, the initializer "
                    f"is {old.dtype.numpy()} {tuple(old.shape.numpy())}"
                )
                raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Assign the values; ``modified`` is True when any stored bit changed."""
        modified = False
        for name, array in self.constants.items():
            value = model.graph.initializers[name]
            old = value.const_value
            assert old is not None
            if old.numpy().tobytes() != array.tobytes():
                value.const_value = ir.tensor(
                    np.ascontiguousarray(array),
                    dtype=old.dtype,
                    name=old.name,
                    doc_string=old.doc_string,
                )
                modified = True
        return ir.passes.PassResult(model, modified)
