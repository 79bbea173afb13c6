"""Models of single sparse products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Layer:
    """One product: its matrix as it multiplies, and how the model writes it."""

    matrix: np.ndarray
    bias: np.ndarray | None = None
    relu: bool = False
    gemm: bool = False
    transposed: bool = False

    def reference(self, x: np.ndarray) -> np.ndarray:
        """The exact outputs, float64."""
        y = x.astype(np.float64) @ self.matrix.astype(np.float64)
        y = y if self.bias is None else y + self.bias
        return np.maximum(y, 0) if self.relu else y


def sparse(rng: np.random.Generator, *shape: int, density: float = 0.1) -> np.ndarray:
    """A float32 matrix of that density."""
    values = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < density, values, np.float32(0))


def write_layer(path: Path, layer: Layer, *, rank: int = 2) -> Path:
    """A model of that one product, the number of its activations' rows left open."""
    columns, outputs = layer.matrix.shape
    stored = np.ascontiguousarray(layer.matrix.T) if layer.transposed else layer.matrix
    initializers = [numpy_helper.from_array(stored, "w")]
    if layer.bias is not None:
        initializers.append(numpy_helper.from_array(layer.bias, "b"))
    if layer.gemm:
        inputs = ["x", "w"] + (["b"] if layer.bias is not None else [])
        nodes = [helper.make_node("Gemm", inputs, ["y"], transB=int(layer.transposed))]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
        if layer.bias is not None:
            nodes.append(helper.make_node("Add", ["y", "b"], ["y1"]))
    if layer.relu:
        nodes.append(helper.make_node("Relu", [nodes[-1].output[0]], ["y2"]))
    open_sizes = [f"n{axis}" for axis in range(rank - 1)]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [*open_sizes, columns])],
        [
            helper.make_tensor_value_info(
                nodes[-1].output[0], TensorProto.FLOAT, [*open_sizes, outputs]
            )
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
