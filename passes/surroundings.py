"""What stands around a node that reads a weight: its bias, what is added to its outputs, a Relu after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from passes.bias import Bias, bias_at
from passes.operators.constants import small_array, stored_tensor
from passes.recurrent import GATES, bias_places
from passes.schedule import depends

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.reader import Reader
    from passes.weights import Weight

SHIFTED = frozenset(
    ("Conv", "FusedConv", "ConvTranspose", "Gemm", "MatMul", "Attention", "QLinearConv")
)
"""Operators after which, or in which, a bias is added to what the weight gives."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Of one node.

    Attributes:
        bias: the constant added to each output, when this node alone reads it.
        other: in ``node + other``, the value added, when the node's output goes nowhere else.
        rectified: whether the output (or that sum) goes into a Relu and nowhere else.
    """

    bias: Bias | None = None
    other: ir.Value | None = None
    rectified: bool = False


def surroundings(weight: Weight, reader: Reader, shape: tuple[int, int, int]) -> Surroundings:
    """Those of the one node that reads a weight.

    Args:
        weight: that it reads whole.
        reader: the node.
        shape: groups, rows and columns of the layer's view.
    """
    node, unfold = reader.node, reader.unfold
    if node.op_type in GATES:
        return Surroundings(_recurrent_bias(node, weight, shape))
    scaled = node.op_type in {"Gemm", "FusedGemm"} and not all(
        node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta")
    )
    if scaled or node.op_type not in SHIFTED:
        return Surroundings()
    place = 8 if node.op_type == "QLinearConv" else 2
    bias = None
    if len(node.inputs) > place and unfold.channel_axis in {-1, 1}:
        bias = bias_at(node.inputs[place], shape[:2])
        bias = _rescaled(bias, node) if node.op_type == "QLinearConv" else bias
    if node.op_type == "QLinearConv" or unfold.channel_axis is None:
        return Surroundings(bias)
    if node.op_type == "FusedConv":
        other = node.inputs[3] if len(node.inputs) > 3 else None
        relu = node.attributes.get_string("activation", "") == "Relu"
        return Surroundings(bias, other, relu)
    output = node.outputs[0]
    add = _only_reader(output, "Add")
    if add is not None and bias is None:
        value = _operand(add, output)
        if _is_row(value, weight, unfold.channel_axis):
            bias = bias_at(value, shape[:2])
            if bias is not None:
                output = add.outputs[0]
    output, other = _added(output, node)
    relu = _only_reader(output, "Relu") is not None
    return Surroundings(bias, other, relu)


def _recurrent_bias(node: ir.Node, weight: Weight, shape: tuple[int, int, int]) -> Bias | None:
    """The part of B that is added to what W, or R, gives."""
    value = node.inputs[3] if len(node.inputs) > 3 else None
    if value is None:
        return None
    recurrent = weight.consumers[0].input_index == 2
    return bias_places(value, shape, recurrent=recurrent)


def _rescaled(bias: Bias | None, node: ir.Node) -> Bias | None:
    """The bias of QLinearConv counts in the scales of input and weight."""
    scales = [small_array(node.inputs[place], 2**20) for place in (1, 4)]
    if bias is None or scales[0] is None or scales[1] is None:
        return None
    product = scales[0].reshape(-1)[:1].astype(np.float64) * scales[1].reshape(-1)
    return Bias(bias.value, bias.shape, product)


def _added(output: ir.Value, node: ir.Node) -> tuple[ir.Value, ir.Value | None]:
    """Behind an Add, and the value that it adds; quantisation on the way is looked through."""
    reached = _through_grid(output)
    add = _only_reader(reached, "Add")
    other = None if add is None else _operand(add, reached)
    if add is None or other is None or stored_tensor(other) is not None or depends(other, node):
        return output, None
    return add.outputs[0], other


def _through_grid(value: ir.Value) -> ir.Value:
    """Behind QuantizeLinear and DequantizeLinear that nothing else reads."""
    quantize = _only_reader(value, "QuantizeLinear")
    dequantize = None if quantize is None else _only_reader(quantize.outputs[0], "DequantizeLinear")
    return value if dequantize is None else dequantize.outputs[0]


def _is_row(constant: ir.Value | None, weight: Weight, axis: int) -> bool:
    """Whether a constant that is added has one number for each output channel."""
    node = None if constant is None else constant.producer()
    if node is not None and node.op_type == "DequantizeLinear":
        constant = node.inputs[0]
    tensor = stored_tensor(constant)
    if tensor is None:
        return False
    shape = tuple(int(size) for size in tensor.shape.numpy())
    groups, rows, _ = weight.layout.matrix_shape
    if axis == -1:
        return shape[-1:] == (groups * rows,) and all(size == 1 for size in shape[:-1])
    spatial = (1,) * (len(weight.layout.shape) - 2)
    return axis == 1 and shape in {(groups * rows, *spatial), (1, groups * rows, *spatial)}


def _operand(add: ir.Node, value: ir.Value) -> ir.Value | None:
    """The other side of an Add; None when both sides are the same value."""
    first, second = add.inputs
    if first is second:
        return None
    return second if first is value else first


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != op_type:
        return None
    return uses[0].node
