"""Element types of ONNX as torch dtypes, and tensors of one as tensors of the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from onnxprune.errors import ModelError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TORCH = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.DOUBLE: torch.float64,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.INT8: torch.int8,
    TensorProto.INT16: torch.int16,
    TensorProto.INT32: torch.int32,
    TensorProto.INT64: torch.int64,
    TensorProto.UINT8: torch.uint8,
    TensorProto.UINT16: torch.uint16,
    TensorProto.UINT32: torch.uint32,
    TensorProto.UINT64: torch.uint64,
    TensorProto.BOOL: torch.bool,
    TensorProto.COMPLEX64: torch.complex64,
    TensorProto.COMPLEX128: torch.complex128,
}

FLOAT_CODES = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.FLOAT16,
    TensorProto.BFLOAT16,
)

WIDE_UNSIGNED = frozenset((torch.uint16, torch.uint32, torch.uint64))
"""Dtypes that torch stores but has few kernels for; they are computed in int64."""


def is_supported(code: int) -> bool:
    """Whether values of an ONNX element type can be held."""
    return code in _TORCH


def type_name(code: int) -> str:
    """``FLOAT8E4M3FN`` and the like, for messages."""
    return str(TensorProto.DataType.Name(code)) if code in TensorProto.DataType.values() else "?"


def torch_dtype(code: int, *, at_least: torch.dtype | None = None) -> torch.dtype:
    """The torch dtype of an ONNX element type.

    Args:
        code: a ``TensorProto.DataType``.
        at_least: narrower floats become this dtype; None leaves all as they are.

    Raises:
        ModelError: when torch has no such dtype.
    """
    if code not in _TORCH:
        msg = f"tensors of type {type_name(code)} are not supported by the torch bridge"
        raise ModelError(msg)
    dtype = _TORCH[code]  # type: ignore[index]  # the stubs have an enum, protobuf gives ints
    return widened(dtype, at_least)


def widened(dtype: torch.dtype, at_least: torch.dtype | None) -> torch.dtype:
    """``at_least`` for narrower floats; all else stays."""
    if at_least is None or not dtype.is_floating_point or dtype.itemsize >= at_least.itemsize:
        return dtype
    return at_least


def from_array(array: NDArray[Any], *, at_least: torch.dtype | None = None) -> torch.Tensor:
    """A tensor with a copy of the array's values, of its shape and dtype (widened if asked)."""
    array = np.array(array, order="C")  # a copy: it may belong to a model
    if array.dtype == ml_dtypes.bfloat16:
        tensor = torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    else:
        tensor = torch.from_numpy(array)
    return tensor.to(widened(tensor.dtype, at_least))


def to_array(tensor: torch.Tensor) -> NDArray[Any]:
    """The values of a tensor, of its shape and dtype; the inverse of :func:`from_array`."""
    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return np.asarray(tensor.contiguous().view(torch.int16).numpy()).view(ml_dtypes.bfloat16)
    return np.asarray(tensor.numpy())


def from_proto(tensor: onnx.TensorProto, *, at_least: torch.dtype | None = None) -> torch.Tensor:
    """The values of an ONNX tensor.

    Raises:
        ModelError: when torch has no such dtype.
    """
    torch_dtype(tensor.data_type)
    return from_array(numpy_helper.to_array(tensor), at_least=at_least)


def dense(sparse: onnx.SparseTensorProto) -> onnx.TensorProto:
    """A sparse tensor as an ordinary one of the same name; indices are linear or coordinates."""
    values = numpy_helper.to_array(sparse.values)
    indices = numpy_helper.to_array(sparse.indices)
    array = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(indices.T)] = values
    return numpy_helper.from_array(array, sparse.values.name)
