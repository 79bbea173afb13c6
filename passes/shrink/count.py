"""How large a model is: parameters, and multiply-adds of one inference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.shrink.facts import is_set
from passes.shrink.shapes import infer_shapes

if TYPE_CHECKING:
    import onnx_ir as ir

FLOATING = {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"}


@dataclass(frozen=True)
class Size:
    """Numbers of a model.

    Attributes:
        parameters: elements of all floating-point initializers.
        multiply_adds: of convolutions, matrix products and recurrent layers in one inference; a
            size that the model leaves open counts as 1.
    """

    parameters: int
    multiply_adds: int


def size_of(model: ir.Model) -> Size:
    """Count a model."""
    shapes = infer_shapes(model)
    parameters = sum(
        value.const_value.size
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None and value.const_value.dtype.name in FLOATING
    )
    return Size(parameters, sum(_multiply_adds(node, shapes) for node in model.graph))


def _multiply_adds(node: ir.Node, shapes: dict[str, tuple[int | None, ...]]) -> int:
    if node.op_type not in {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU"}:
        return 0
    data, weight = (_shape(value, shapes) for value in node.inputs[:2])
    out = _shape(node.outputs[0], shapes)
    if not weight:
        return 0
    if node.op_type == "Conv":
        return math.prod(out[2:]) * math.prod(weight) * (out[:1] or (1,))[0]
    if node.op_type == "ConvTranspose":
        return math.prod(data[2:]) * math.prod(weight) * (data[:1] or (1,))[0]
    if node.op_type in {"LSTM", "GRU"}:
        recurrence = _shape(node.inputs[2], shapes)
        return math.prod(data[:2]) * (math.prod(weight) + math.prod(recurrence))
    if node.op_type == "Gemm" and is_set(node, "transA"):
        data = data[::-1]
    return math.prod(out) * (data[-1] if data else 1)


def _shape(value: ir.Value | None, shapes: dict[str, tuple[int | None, ...]]) -> tuple[int, ...]:
    if value is None:
        return ()
    if value.const_value is not None:
        return tuple(int(size) for size in value.const_value.shape.numpy())
    return tuple(1 if size is None else size for size in shapes.get(value.name or "", ()))
