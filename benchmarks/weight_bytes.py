"""The weight bytes of a model, counted from its message alone: what a collection is held against.

Constants are followed by name through operators that only move or convert them; nothing of
onnxprune's own collection is used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx
from onnx import TensorProto

if TYPE_CHECKING:
    from pathlib import Path

PLACES = {
    **dict.fromkeys(("Conv", "ConvTranspose", "FusedConv", "ConvInteger"), (1,)),
    **dict.fromkeys(("MatMul", "Gemm", "FusedMatMul", "MatMulInteger", "Einsum"), (0, 1)),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), (1, 2)),
    **dict.fromkeys(("Attention", "QAttention"), (1,)),
    "QLinearConv": (3,),
    "QLinearMatMul": (0, 3),
    "Gather": (0,),
    "EmbedLayerNormalization": (2, 3, 4),
}
LISTED = frozenset(PLACES)
THROUGH = frozenset(
    (
        "Identity",
        "Cast",
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Concat",
        "DequantizeLinear",
        "QuantizeLinear",
    )
)
DTYPES = {
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
}

Carried = dict[str, dict[int, int]]
"""By value name, the constants that it carries: an identity of each, and its bytes."""


def weight_bytes(path: Path) -> tuple[int, int]:
    """Bytes at weights' places, matrices and more, and bytes of all constants of these dtypes."""
    model = onnx.load(path, load_external_data=False)
    weights: dict[int, int] = {}
    constants: dict[int, int] = {}
    _walk(model.graph, {}, weights, constants)
    return sum(weights.values()), sum(constants.values())


def _walk(
    graph: onnx.GraphProto, outer: Carried, weights: dict[int, int], constants: dict[int, int]
) -> None:
    carried = dict(outer)
    tensors = [(tensor.name, tensor) for tensor in graph.initializer]
    tensors += [
        (node.output[0], attribute.t)
        for node in graph.node
        if node.op_type == "Constant"
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for name, tensor in tensors:
        size = math.prod(tensor.dims) * DTYPES.get(tensor.data_type, 0)
        carried[name] = {len(constants): size} if size else {}
        constants[len(constants)] = size
    for node in graph.node:
        _read(node, carried, weights)
        for attribute in node.attribute:
            for body in [attribute.g, *attribute.graphs]:
                _walk(body, carried, weights, constants)


def _read(node: onnx.NodeProto, carried: Carried, weights: dict[int, int]) -> None:
    for index in PLACES.get(node.op_type, ()):
        if index < len(node.input):
            weights |= carried.get(node.input[index], {})
    if node.op_type not in THROUGH:
        return
    sources = node.input if node.op_type == "Concat" else node.input[:1]
    if all(name in carried for name in sources):
        merged = {key: size for name in sources for key, size in carried[name].items()}
        for output in node.output:
            carried[output] = merged
