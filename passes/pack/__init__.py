"""Packed ONNX: sparse weights stored compressed, rebuilt by standard operators.

A runtime that folds constants, as onnxruntime does when it loads a model, expands the weights once
and then runs the dense graph. So the file is smaller and inference is as before. Every step has a
static shape, without which onnxruntime would leave the chain in the graph.
"""

from passes.pack.marks import chain_nodes, packed_names, read_marks
from passes.pack.plan import POSITIONS
from passes.pack.rewrite import (
    FOLD_LIMIT_BYTES,
    FOLD_LIMIT_OPTION,
    MIN_OPSET,
    MODEL_BYTES,
    PackWeightsPass,
    exceeds,
    packed_bytes,
)
from passes.pack.values import parse_values

__all__ = [
    "FOLD_LIMIT_BYTES",
    "FOLD_LIMIT_OPTION",
    "MIN_OPSET",
    "MODEL_BYTES",
    "POSITIONS",
    "PackWeightsPass",
    "chain_nodes",
    "exceeds",
    "packed_bytes",
    "packed_names",
    "parse_values",
    "read_marks",
]
