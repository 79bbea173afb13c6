"""Shapes of all values, as far as they can be told."""

from __future__ import annotations

import onnx
import onnx_ir as ir

Shapes = dict[str, tuple[int | None, ...]]


def infer_shapes(model: ir.Model) -> Shapes:
    """Shapes by value name, as onnx infers them; sizes that are open are None.

    Where onnx cannot read the model (operators of domains without an opset, or more than 2 GB),
    the shapes that the model itself states are all there is.
    """
    try:
        proto = onnx.shape_inference.infer_shapes(ir.to_proto(model), data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError):
        return _stated(model)
    shapes: Shapes = {}
    for info in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
        kind = info.type.tensor_type
        if kind.HasField("shape"):
            shapes[info.name] = tuple(
                size.dim_value if size.HasField("dim_value") and size.dim_value >= 0 else None
                for size in kind.shape.dim
            )
    return shapes


def _stated(model: ir.Model) -> Shapes:
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {
        value.name or "": tuple(
            size if isinstance(size, int) and size >= 0 else None for size in value.shape
        )
        for value in values
        if value.shape is not None
    }
