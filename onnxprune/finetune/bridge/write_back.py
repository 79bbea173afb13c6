"""Writing trained weights back into the user's own model, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from onnxprune.finetune.bridge.dtypes import from_array, to_array
from onnxprune.finetune.bridge.graphs import constant_tensor, named_constants
from onnxprune.finetune.bridge.ops.quantise import grid_shape, on_grid, to_codes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxprune.finetune.bridge.graphs import Constant
    from onnxprune.finetune.bridge.module import OnnxModule

_DATA_FIELDS = (
    "float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data",
    "uint64_data", "external_data", "data_location",
)  # fmt: skip


def write_back(model: onnx.ModelProto, module: OnnxModule) -> tuple[str, ...]:
    """Put a module's weights into the model that it was made from.

    Only values whose bits changed are written; names, graph, opset and all else stay. Statistics of
    BatchNormalization are written when they were re-estimated; quantized weights go back to their
    own grid.

    Args:
        model: the model as it was read; changed in place.
        module: its module.

    Returns:
        The names of the constants that changed.
    """
    held = dict(named_constants(model.graph))
    trained: dict[str, torch.Tensor] = {
        **module.weights,
        **{name: module.float_buffers[name] for name in module.statistics},
    }
    changed = []
    for name, tensor in trained.items():
        constant = held[name]
        stored = constant_tensor(constant)
        assert stored is not None  # strings are never trained
        before = numpy_helper.to_array(stored)
        after = _array(name, tensor, before, module, held)
        if after.tobytes() != before.tobytes():
            _store(constant, after)
            changed.append(name)
    return tuple(changed)


def _array(
    name: str,
    tensor: torch.Tensor,
    before: NDArray[Any],
    module: OnnxModule,
    held: dict[str, Constant],
) -> NDArray[Any]:
    """The values in the model's own dtype."""
    grid = module.grids.get(name)
    if grid is None:
        wanted = from_array(before)
        return to_array(tensor.detach().to("cpu", wanted.dtype)).reshape(before.shape)
    scale = grid_shape(_read(held[grid.scale]), before.ndim, grid.axis)
    zero = (
        grid_shape(_read(held[grid.zero_point]), before.ndim, grid.axis) if grid.zero_point else 0
    )
    codes = from_array(before)
    nearest = to_codes(tensor.detach().cpu().double(), scale, zero, codes.dtype).to(codes.dtype)
    # Where the float did not move, its own code stays: large codes have no exact float32.
    unmoved = tensor.detach().cpu() == on_grid(codes, scale, zero).to(tensor.dtype)
    return to_array(torch.where(unmoved, codes, nearest))


def _read(constant: Constant) -> torch.Tensor:
    tensor = constant_tensor(constant)
    assert tensor is not None
    return from_array(numpy_helper.to_array(tensor))


def _store(constant: Constant, array: NDArray[Any]) -> None:
    if isinstance(constant, onnx.TensorProto):
        _fill(constant, array)
    elif isinstance(constant, onnx.SparseTensorProto):
        _fill_sparse(constant, array)
    elif constant.type == AttributeProto.TENSOR:
        _fill(constant.t, array)
    elif constant.type == AttributeProto.SPARSE_TENSOR:
        _fill_sparse(constant.sparse_tensor, array)
    else:
        values = helper.make_attribute(constant.name, array.tolist())
        constant.floats[:] = values.floats


def _fill(tensor: onnx.TensorProto, array: NDArray[Any]) -> None:
    """Replace a tensor's values; its name, type, shape and notes stay."""
    for field in _DATA_FIELDS:
        tensor.ClearField(field)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    tensor.raw_data = np.ascontiguousarray(little).tobytes()


def _fill_sparse(sparse: onnx.SparseTensorProto, array: NDArray[Any]) -> None:
    """Replace a sparse tensor's values and places by the nonzeros of ``array``."""
    flat = np.flatnonzero(array)
    linear = len(sparse.indices.dims) == 1
    places = flat if linear else np.stack(np.unravel_index(flat, array.shape), axis=1)
    _fill(sparse.values, array.reshape(-1)[flat])
    sparse.values.dims[:] = [len(flat)]
    _fill(sparse.indices, places.astype(np.int64))
    sparse.indices.dims[:] = list(places.shape)
    sparse.indices.data_type = TensorProto.INT64
