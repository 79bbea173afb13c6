"""Sparse tensors in a model file, made dense when the file is read.

onnx-ir drops sparse initializers without a word and refuses sparse attributes, and most tools do
either. So a model that comes in with them goes on with dense ones; what other operators hold in
sparse attributes is none of our business and is kept as it is.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DENSE_BYTES = 2**31
"""What all sparse tensors of a file may take when dense: no ONNX file could hold more of them."""


def densify(proto: onnx.ModelProto) -> None:
    """Turn sparse initializers and sparse Constant nodes into dense ones, in place.

    Raises:
        ValueError: for sparse tensors that are damaged, or larger than a file could hold.
    """
    left = MAX_DENSE_BYTES
    for graph in graphs_of(proto):
        for sparse in graph.sparse_initializer:
            left -= _check(sparse, left)
            graph.initializer.append(_dense(sparse))
        graph.ClearField("sparse_initializer")
    for node in nodes_of(proto):
        if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
            continue
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR and not attribute.ref_attr_name:
                left -= _check(attribute.sparse_tensor, left)
                dense = _dense(attribute.sparse_tensor)
                attribute.ClearField("sparse_tensor")
                attribute.name, attribute.type = "value", onnx.AttributeProto.TENSOR
                attribute.t.CopyFrom(dense)


def graphs_of(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph of a model and the graphs in attributes of nodes, at any depth."""
    waiting = [proto.graph]
    for node in _function_nodes(proto):
        waiting += _bodies(node)
    while waiting:
        graph = waiting.pop()
        yield graph
        for node in graph.node:
            waiting += _bodies(node)


def nodes_of(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """All nodes of a model: of its graphs at any depth, and of its functions."""
    yield from _function_nodes(proto)
    for graph in graphs_of(proto):
        yield from graph.node


def _function_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for function in proto.functions:
        yield from function.node


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    found = []
    for attribute in node.attribute:
        if attribute.HasField("g"):
            found.append(attribute.g)
        found += attribute.graphs
    return found


def _check(sparse: onnx.SparseTensorProto, left: int) -> int:
    """The bytes of a sparse tensor when dense."""
    name = sparse.values.name
    if any(size < 0 for size in sparse.dims):
        msg = f"sparse tensor '{name}' has shape {list(sparse.dims)}"
        raise ValueError(msg)
    size = math.prod(sparse.dims) * _dtype(sparse.values).itemsize
    if size > left:
        msg = f"sparse tensor '{name}' would take {size} bytes when dense, more than an ONNX file can hold"
        raise ValueError(msg)
    return size


def _dtype(values: onnx.TensorProto) -> np.dtype:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(values.data_type))


def _dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(sparse.values).ravel()
    indices = numpy_helper.to_array(sparse.indices)
    shape = tuple(sparse.dims)
    if indices.ndim == 2 and indices.shape == (values.size, len(shape)):
        for axis, size in enumerate(shape):
            _check_indices(sparse, indices[:, axis], size)
        flat = np.ravel_multi_index(tuple(indices.T), shape) if values.size else indices[:, 0]
    elif indices.ndim == 1 and indices.size == values.size:
        _check_indices(sparse, indices, math.prod(shape))
        flat = indices
    else:
        msg = f"sparse tensor '{sparse.values.name}' has {values.size} values and indices of shape {indices.shape}"
        raise ValueError(msg)
    array = np.zeros(math.prod(shape), values.dtype)
    array[flat] = values
    dense = numpy_helper.from_array(array.reshape(shape), sparse.values.name)
    dense.data_type = sparse.values.data_type
    dense.doc_string = sparse.values.doc_string
    return dense


def _check_indices(sparse: onnx.SparseTensorProto, indices: np.ndarray, size: int) -> None:
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < size:
        msg = f"sparse tensor '{sparse.values.name}' has an index outside its shape {list(sparse.dims)}"
        raise ValueError(msg)
