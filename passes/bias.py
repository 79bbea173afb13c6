"""Biases that move together with the weights of their layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.operators.constants import small_array, stored_tensor

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

MAX_SCALES = 2**20


@dataclass(frozen=True, eq=False)
class Bias:
    """A constant with a number for each output of a layer, which no other node reads.

    Attributes:
        value: the constant.
        shape: groups and rows.
        scale: of integers; broadcasts to ``shape`` flattened. None for floats.
        zero_point: likewise.
        places: where the numbers stand in the flat constant, when it holds others too: ``shape``.
    """

    value: ir.Value
    shape: tuple[int, int]
    scale: NDArray[Any] | None = None
    zero_point: NDArray[Any] | None = None
    places: NDArray[np.intp] | None = None

    @property
    def name(self) -> str:
        """The constant's name."""
        return self.value.name or ""

    def values(self, constants: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
        """The numbers ``(groups, rows)``, float64.

        Args:
            constants: arrays that take the place of the model's own, by name.
        """
        flat = self._stored(constants).reshape(-1).astype(np.float64)
        if self.places is not None:
            flat = flat[self.places.reshape(-1)]
        if self.zero_point is not None:
            flat = flat - self.zero_point
        return (flat if self.scale is None else flat * self.scale).reshape(self.shape)

    def stored(
        self, numbers: NDArray[np.float64], constants: Mapping[str, NDArray[Any]]
    ) -> NDArray[Any]:
        """The constant with other numbers ``(groups, rows)``, of its own shape and dtype."""
        before = self._stored(constants)
        flat = numbers.reshape(-1)
        if self.scale is not None:
            info = np.iinfo(before.dtype)
            flat = np.rint(flat / self.scale) + (0 if self.zero_point is None else self.zero_point)
            flat = np.clip(flat, info.min, info.max)
        after = before.reshape(-1).copy()
        after[slice(None) if self.places is None else self.places.reshape(-1)] = flat
        return after.reshape(before.shape)

    def _stored(self, constants: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        if self.name in constants:
            return constants[self.name]
        tensor = stored_tensor(self.value)
        assert tensor is not None
        array: NDArray[Any] = tensor.numpy()
        return array


def bias_at(value: ir.Value | None, shape: tuple[int, int]) -> Bias | None:
    """The bias that ``value`` holds, as it is or behind DequantizeLinear; None when it is none.

    Args:
        value: what is added to the outputs of a layer.
        shape: groups and rows of the layer.
    """
    own = own_constant(value)
    if own is not None:
        return Bias(own, shape) if _fits(own, shape) else None
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or len(_uses(value)) != 1:
        return None
    own = own_constant(node.inputs[0])
    scale = small_array(node.inputs[1], MAX_SCALES)
    zero = small_array(node.inputs[2], MAX_SCALES) if len(node.inputs) > 2 else None
    if own is None or scale is None or not _fits(own, shape):
        return None
    zero = None if zero is None else zero.reshape(-1).astype(np.float64)
    return Bias(own, shape, scale.reshape(-1).astype(np.float64), zero)


def own_constant(value: ir.Value | None) -> ir.Value | None:
    """The value when it is a constant that one node alone reads and nobody can feed."""
    if value is None or stored_tensor(value) is None or len(_uses(value)) != 1:
        return None
    return None if value.is_graph_input() or value.is_graph_output() else value


def _uses(value: ir.Value | None) -> tuple[Any, ...]:
    return () if value is None else tuple(value.uses())


def _fits(value: ir.Value, shape: tuple[int, int]) -> bool:
    tensor = stored_tensor(value)
    return tensor is not None and tensor.size == shape[0] * shape[1]
