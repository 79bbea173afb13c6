"""The torch module of an ONNX model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from torch import nn

from onnxprune.errors import DataError
from onnxprune.finetune.bridge import ops
from onnxprune.finetune.bridge.constants import STATISTICS, uses_by_name
from onnxprune.finetune.bridge.dtypes import torch_dtype
from onnxprune.finetune.bridge.normalise import normalise
from onnxprune.finetune.bridge.program import Compiler
from onnxprune.finetune.bridge.registry import Mode
from onnxprune.model_io import load_proto

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import onnx

    from onnxprune.finetune.bridge.constants import Grid

ops.register_all()


class OnnxModule(nn.Module):
    """A model's graph as a module whose parameters are the model's own constants.

    Call it with the inputs in the graph's order, or with one mapping by name; it returns one tensor,
    or a tuple where the model has several outputs. ``train()`` changes nothing by itself: exported
    models compute what they compute. :meth:`set_mode` switches Dropout and BatchNormalization.

    Args:
        model: the model, as it was read.
        compute: floats narrower than this dtype are held and computed in it.

    Raises:
        UnsupportedError: naming every operator that cannot be run.
        ModelError: when the model cannot be brought into the bridge's form.
    """

    def __init__(self, model: onnx.ModelProto, *, compute: torch.dtype | None = None) -> None:
        super().__init__()
        normalised = normalise(model)
        self.mode = Mode(compute=compute)
        self._parameter_keys: dict[str, str] = {}
        self._buffer_keys: dict[str, str] = {}
        self._host: dict[str, Any] = {}
        self.grids: dict[str, Grid] = {}
        self._program = Compiler(self, normalised).compile()
        uses = uses_by_name(normalised.model.graph)
        self.statistics: tuple[str, ...] = tuple(
            name
            for name in self._buffer_keys
            if uses.get(name) and all(use in STATISTICS for use in uses[name])
        )
        graph = normalised.model.graph
        fixed = {tensor.name for tensor in graph.initializer}
        self.input_types: dict[str, int] = {
            value.name: value.type.tensor_type.elem_type
            for value in graph.input
            if value.name not in fixed
        }
        self.fixed_batch: tuple[int, ...] = tuple(
            value.type.tensor_type.shape.dim[0].dim_value
            for value in graph.input
            if value.name not in fixed and value.type.tensor_type.shape.dim
        )
        self.output_names: tuple[str, ...] = tuple(value.name for value in graph.output)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """Every trained constant by its exact ONNX name.

        A quantized weight is here as the float that it stands for, float32.
        """
        parameters = self._parameters
        return {name: parameters[key] for name, key in self._parameter_keys.items()}  # type: ignore[misc]

    @property
    def float_buffers(self) -> dict[str, torch.Tensor]:
        """Every float constant that is not trained, by its exact ONNX name."""
        return {name: self._buffers[key] for name, key in self._buffer_keys.items()}  # type: ignore[misc]

    def set_mode(
        self,
        *,
        dropout: bool | None = None,
        batch_norm: bool | None = None,
        straight_through: bool | None = None,
    ) -> None:
        """Switch how the model runs; None leaves a switch as it is.

        Args:
            dropout: Dropout drops, at its own ratio.
            batch_norm: BatchNormalization takes the batch's statistics and updates its own.
            straight_through: quantized outputs are floats that carry gradients.
        """
        given = {
            "dropout": dropout,
            "batch_norm": batch_norm,
            "straight_through": straight_through,
        }
        for name, value in given.items():
            if value is not None:
                setattr(self.mode, name, value)

    def add_parameter(self, name: str, tensor: torch.Tensor) -> None:
        """Hold a trained constant under its ONNX name."""
        key = f"weight{len(self._parameter_keys)}"
        self._parameter_keys[name] = key
        self.register_parameter(key, nn.Parameter(tensor))

    def add_constant(self, name: str, value: Any) -> None:
        """Hold a constant that is not trained; only floats move to an accelerator."""
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            key = f"constant{len(self._buffer_keys)}"
            self._buffer_keys[name] = key
            self.register_buffer(key, value)
        else:
            self._host[name] = value

    def constants(self) -> dict[str, Any]:
        """All constants by name, as they are now."""
        return {**self._host, **self.float_buffers, **self.weights}

    def forward(self, *inputs: Any) -> Any:
        """Run the model.

        Raises:
            DataError: when an input is missing, unknown, or of another dtype than the model's.
            ModelError: naming the node, when torch cannot run it on these inputs.
        """
        if len(inputs) == 1 and isinstance(inputs[0], dict):
            feeds: Mapping[str, Any] = inputs[0]
        else:
            if len(inputs) > len(self.input_types):
                msg = f"the model takes {len(self.input_types)} inputs, found {len(inputs)}"
                raise DataError(msg)
            feeds = dict(zip(self.input_types, inputs, strict=False))
        values = self.constants()
        values.update(self._checked(feeds))
        outputs = self._program.run(values, accelerated=self._accelerated(feeds))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _checked(self, feeds: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        wrong = [name for name in feeds if name not in self.input_types and name not in self._all]
        missing = [name for name in self.input_types if name not in feeds]
        if wrong or missing:
            msg = f"the model's inputs are {list(self.input_types)}, found {list(feeds)}"
            raise DataError(msg)
        for name, value in feeds.items():
            code = self.input_types.get(name, 0)
            if isinstance(value, torch.Tensor) and code:
                narrow, wanted = torch_dtype(code), torch_dtype(code, at_least=self.mode.compute)
                if value.dtype not in {narrow, wanted}:
                    msg = (
                        f"input '{name}' is {value.dtype}, but the model takes {narrow}; convert it"
                    )
                    raise DataError(msg)
                yield name, value.to(wanted)
            else:
                yield name, value

    @property
    def _all(self) -> set[str]:
        return {*self._parameter_keys, *self._buffer_keys, *self._host}

    def _accelerated(self, feeds: Mapping[str, Any]) -> bool:
        tensors = [*self._parameters.values(), *feeds.values()]
        return any(isinstance(t, torch.Tensor) and t.device.type != "cpu" for t in tensors)


def several(outputs: Any) -> tuple[torch.Tensor, ...]:
    """What a module returned as a tuple, also where it has a single output."""
    return outputs if isinstance(outputs, tuple) else (outputs,)


def to_torch(
    model: str | Path | onnx.ModelProto | ir.Model, *, compute: torch.dtype | None = None
) -> OnnxModule:
    """The torch module of a model.

    Args:
        model: path of an ONNX file, or a model; it stays as it is.
        compute: floats narrower than this dtype are computed in it; None keeps the model's own.

    Raises:
        UnsupportedError: naming every operator that the bridge cannot run.
        ModelError: when the model cannot be read or brought into the bridge's form.
    """
    if isinstance(model, (str, Path)):
        model = load_proto(model)
    elif isinstance(model, ir.Model):
        model = ir.to_proto(model)
    return OnnxModule(model, compute=compute)
