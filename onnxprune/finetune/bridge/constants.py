"""Which constants of a model are trained, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import TensorProto

from onnxprune.finetune.bridge.dtypes import FLOAT_CODES
from onnxprune.finetune.bridge.graphs import all_graphs

if TYPE_CHECKING:
    import onnx

    from onnxprune.finetune.bridge.graphs import Constant

Use = tuple[str, int]
"""Operator and input index of a node that reads a value."""

STATISTICS: frozenset[Use] = frozenset({("BatchNormalization", 3), ("BatchNormalization", 4)})

SETTINGS: frozenset[Use] = frozenset(
    {
        ("Resize", 1), ("Resize", 2), ("Upsample", 1),
        ("QuantizeLinear", 1), ("DequantizeLinear", 1), ("QLinearMatMul", 1), ("QLinearMatMul", 4),
        ("QLinearMatMul", 6), ("QLinearConv", 1), ("QLinearConv", 4), ("QLinearConv", 6),
        ("Clip", 1), ("Clip", 2), ("Pad", 2), ("Range", 0), ("Range", 1), ("Range", 2),
        ("OneHot", 2), ("Dropout", 1), ("RoiAlign", 1), ("NonMaxSuppression", 0),
        ("NonMaxSuppression", 3), ("NonMaxSuppression", 4), ("Shape", 0), ("Size", 0),
    }
)  # fmt: skip
"""Inputs that set how an operator works; what stands there is no weight."""

SINGLE_WEIGHTS: frozenset[str] = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "PRelu", "BatchNormalization", "LSTM", "GRU", "RNN"}
)
"""Operators whose weights are trained even when they have one element only."""

QUANTIZED_CODES = (
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.INT16,
    TensorProto.UINT16,
    TensorProto.INT32,
)


@dataclass(frozen=True)
class Grid:
    """The grid that a quantized weight lies on: ``(q - zero_point) * scale`` along ``axis``."""

    scale: str
    zero_point: str
    axis: int


def uses_by_name(graph: onnx.GraphProto) -> dict[str, list[Use]]:
    """Who reads each value of a graph or the graphs inside it; ("", -1) for a graph's output."""
    uses: dict[str, list[Use]] = {}
    for inner in all_graphs(graph):
        for node in inner.node:
            for index, name in enumerate(node.input):
                uses.setdefault(name, []).append((node.op_type, index))
        for value in inner.output:
            uses.setdefault(value.name, []).append(("", -1))
    return uses


def is_trained(tensor: onnx.TensorProto, uses: list[Use]) -> bool:
    """Whether a constant is a parameter: a float, read as a weight, and more than one number."""
    if tensor.data_type not in FLOAT_CODES or not uses or not _elements(tensor):
        return False
    settings = SETTINGS | STATISTICS
    if all(use in settings for use in uses):
        return False
    single = not tensor.dims or _elements(tensor) == 1
    return not single or (
        bool(tensor.dims) and any(op in SINGLE_WEIGHTS and index > 0 for op, index in uses)
    )


def quantized_weights(graph: onnx.GraphProto, constants: dict[str, Constant]) -> dict[str, Grid]:
    """Integer constants that only DequantizeLinear reads, on one constant grid, by name."""
    grids: dict[str, Grid | None] = {}
    readers: dict[str, int] = {}
    for inner in all_graphs(graph):
        for node in inner.node:
            for name in node.input:
                readers[name] = readers.get(name, 0) + 1
            if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
                continue
            found = _grid(node, constants)
            known = grids.setdefault(node.input[0], found)
            if known != found:
                grids[node.input[0]] = None
            readers[node.input[0]] -= 1
    return {name: grid for name, grid in grids.items() if grid is not None and not readers[name]}


def _grid(node: onnx.NodeProto, constants: dict[str, Constant]) -> Grid | None:
    zero_point = node.input[2] if len(node.input) > 2 else ""
    axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
    block = next((a.i for a in node.attribute if a.name == "block_size"), 0)
    if block or node.input[1] not in constants or (zero_point and zero_point not in constants):
        return None
    return Grid(node.input[1], zero_point, axis)


def _elements(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count
