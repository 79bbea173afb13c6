"""Finding, reading and writing constants where the user's model stores them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir

from passes.operators.constants import integers, stored_tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


Shape = tuple[int, ...]
Place = Literal["initializer", "constant", "fill"]

MAX_FILL_BYTES = 2**28
"""A ConstantOfShape that fills more than this is never stored in its place."""


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant of the model.

    Attributes:
        name: of its value where no other constant has that name; otherwise the name of the body or
            function it is in stands before it.
        value: its value in the user's graph.
        place: an initializer, a Constant node, or a ConstantOfShape node ("fill").
        dtype: of its elements.
        shape: of the array.
    """

    name: str
    value: ir.Value
    place: Place
    dtype: ir.DataType
    shape: Shape

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def fill_array(node: ir.Node) -> np.ndarray:
    """The array that a ConstantOfShape of known shape makes, its one number broadcast; read only."""
    tensor = node.attributes.get_tensor("value")
    number = np.zeros(1, np.float32) if tensor is None else tensor.numpy().reshape(-1)[:1]
    return np.broadcast_to(number.reshape(()), integers(node.inputs[0]) or ())


def constants_of(graph: ir.Graph) -> Iterator[tuple[ir.Value, Place]]:
    """The values of one graph that hold constants: initializers first, then nodes in order."""
    for value in graph.initializers.values():
        if value.const_value is not None:
            yield value, "initializer"
    for node in graph:
        if node.domain or not node.outputs:
            continue
        if node.op_type == "Constant" and stored_tensor(node.outputs[0]) is not None:
            yield node.outputs[0], "constant"
        elif fills(node):
            yield node.outputs[0], "fill"


def fills(node: ir.Node) -> bool:
    """Whether a node is a ConstantOfShape whose shape and number are known."""
    if node.op_type != "ConstantOfShape" or node.domain or not node.inputs:
        return False
    sizes = integers(node.inputs[0])
    if sizes is None or min(sizes, default=1) < 0:
        return False
    attribute = node.attributes.get("value")
    return attribute is None or not attribute.is_ref()


def described(value: ir.Value, place: Place) -> tuple[ir.DataType, Shape]:
    """Dtype and shape of a constant; its elements are not read."""
    if place == "fill":
        node = value.producer()
        assert node is not None
        tensor = node.attributes.get_tensor("value")
        return ir.DataType.FLOAT if tensor is None else tensor.dtype, integers(node.inputs[0]) or ()
    stored = stored_tensor(value)
    assert stored is not None
    return stored.dtype, tuple(int(size) for size in stored.shape.numpy())


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
