"""What a graph computes from constants alone: small arrays, and the shapes of large ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.operators.resolve import NodeLike

MAX_DEPTH = 64
"""Longer chains of constants than this are not looked through."""


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a Constant node, or None where ``value`` is neither."""
    if value is None:
        return None
    node = value.producer()
    if node is None:
        return value.const_value if value.is_initializer() else None
    if node.op_type != "Constant" or node.domain:
        return None
    if len(node.attributes) != 1 or any(a.is_ref() for a in node.attributes.values()):
        return None
    (attribute,) = node.attributes.values()
    if attribute.type == ir.AttributeType.TENSOR:
        # onnx-ir's own get_const_tensor names the tensor, which writes into the user's model.
        return attribute.as_tensor()
    return ir.convenience.get_const_tensor(value)


def small_array(value: ir.Value | None, limit: int = 4096) -> NDArray[Any] | None:
    """The array of a constant of at most ``limit`` elements, or None where there is none."""
    for _ in range(MAX_DEPTH):
        node = value.producer() if value is not None else None
        if node is None or node.domain or node.op_type != "Identity":
            break
        value = node.inputs[0]
    tensor = stored_tensor(value)
    if tensor is None or tensor.size > limit or tensor.dtype == ir.DataType.STRING:
        return None
    return tensor.numpy()


def integers(value: ir.Value | None) -> tuple[int, ...] | None:
    """The integers of a small constant, flattened, or None where it is none."""
    array = small_array(value)
    if array is None or array.dtype.kind not in "iu":
        return None
    return tuple(int(number) for number in np.ravel(array))


def listed_attribute(node: NodeLike, name: str) -> tuple[int, ...] | None:
    """The integers of an attribute, or None where the node has none of that name."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())
