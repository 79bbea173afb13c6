"""Reading and writing constants where the user's model stores them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.operators.constants import stored_tensor
from passes.prepare import fill_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.prepare import Place


def tensor(value: ir.Value, place: Place) -> ir.TensorProtocol:
    """The tensor that holds a constant's array."""
    node = value.producer()
    if place == "fill" and node is not None and node.op_type == "ConstantOfShape":
        return ir.tensor(fill_array(node), name=value.name)
    found = value.const_value if place == "initializer" else stored_tensor(value)
    assert found is not None
    return found


def write(value: ir.Value, place: Place, array: NDArray[Any] | ir.TensorProtocol) -> None:
    """Store another array of the same shape and dtype in the place of a constant.

    An initializer gets a new tensor. A Constant node keeps its attribute, be it ``value``,
    ``value_float`` or ``value_floats``. A ConstantOfShape node becomes a Constant node with the
    same name and output.
    """
    node = value.producer()
    if place == "initializer" or node is None:
        before = value.const_value
        assert before is not None
        value.const_value = _tensor(array, before)
        return
    if node.op_type == "ConstantOfShape":
        name = value.name
        node.op_type = "Constant"
        node.resize_inputs(0)
        node.attributes.clear()
        node.attributes.add(ir.AttrTensor("value", ir.tensor(array, name=name)))
        return
    (attribute,) = node.attributes.values()
    if attribute.type == ir.AttributeType.TENSOR:
        made = _tensor(array, attribute.as_tensor())
        node.attributes[attribute.name] = ir.AttrTensor(attribute.name, made)
        return
    numbers = array if isinstance(array, np.ndarray) else array.numpy()
    listed = numbers.astype(float).reshape(-1).tolist()
    if attribute.type == ir.AttributeType.FLOATS:
        node.attributes[attribute.name] = ir.AttrFloat32s(attribute.name, listed)
    else:
        node.attributes[attribute.name] = ir.AttrFloat32(attribute.name, listed[0])


def _tensor(array: NDArray[Any] | ir.TensorProtocol, old: ir.TensorProtocol) -> ir.TensorProtocol:
    if not isinstance(array, np.ndarray):
        return array
    return ir.tensor(array, dtype=old.dtype, name=old.name, doc_string=old.doc_string)
