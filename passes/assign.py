"""The pass that writes reconstructed constants into a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes import store
from passes.prepare import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from passes.store import Constant


@dataclass(frozen=True, eq=False)
class AssignConstantsPass(ir.passes.InPlacePass):
    """Gives weights and initializers new values of the same shape and dtype; all else stays.

    Attributes:
        constants: arrays in stored form, by the name of a weight or of another constant, as
            :class:`passes.prepare.View` names them.
    """

    constants: Mapping[str, NDArray[Any]] = field(repr=False)

    def requires(self, model: ir.Model) -> None:
        """Every name is there, with that shape and dtype."""
        known = _constants(model)
        for name, array in self.constants.items():
            if name not in known:
                msg = f"there are new values for '{name}', but the model has no such constant"
                raise ir.passes.PreconditionError(msg)
            old = store.tensor(known[name].value, known[name].place).numpy()
            if old.shape != array.shape or old.dtype != array.dtype:
                msg = (
                    f"the new values of '{name}' are {array.dtype} {array.shape}, the model's are "
                    f"{old.dtype} {old.shape}"
                )
                raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Assign the values; ``modified`` is True when any stored bit changed."""
        modified = False
        known = _constants(model)
        for name, array in self.constants.items():
            constant = known[name]
            old = store.tensor(constant.value, constant.place).numpy()
            if old.tobytes() == array.tobytes():
                continue
            modified = True
            store.write(constant.value, constant.place, np.ascontiguousarray(array))
        return ir.passes.PassResult(model, modified)


def _constants(model: ir.Model) -> dict[str, Constant]:
    return {constant.name: constant for constant in View(model).constants()}
