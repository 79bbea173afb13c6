"""Constants that old models list as inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

FREE_IR_VERSION = 4
"""From this IR version on an initializer need not be an input; where it is, it is a default."""


def freeze_constants(model: ir.Model) -> None:
    """Let initializers of a model before IR version 4 be plain constants, as runtimes take them.

    They had to be listed as inputs then, although no caller may give them. The model gets IR
    version 4, for what passes add is not listed.
    """
    if (model.ir_version or 0) >= FREE_IR_VERSION:
        return
    model.ir_version = FREE_IR_VERSION
    for value in [value for value in model.graph.inputs if value.is_initializer()]:
        model.graph.inputs.remove(value)
