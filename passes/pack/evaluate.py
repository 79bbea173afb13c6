"""The operators of chains in numpy: what a runtime computes when it loads a packed model.

Chains come from files that we do not trust: an operator that chains do not use, or an array larger
than any weight may be, is refused.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Arrays = list[NDArray[Any]]

MAX_ELEMENTS = 1 << 31
"""No array of a chain may have more."""


class ChainError(ValueError):
    """A chain that is damaged or was never written by onnxprune."""


def evaluate(node: ir.Node, inputs: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any]]:
    """The outputs of one node of a chain.

    Raises:
        ChainError: when it is no operator of chains or cannot be computed.
    """
    operator = OPERATORS.get(node.op_type) if node.domain in {"", "ai.onnx"} else None
    if operator is None:
        msg = f"'{node.op_type}' is no step of a packed weight"
        raise ChainError(msg)
    try:
        return operator(node, list(inputs))
    except (ValueError, IndexError, TypeError, KeyError, AttributeError, OverflowError) as error:
        msg = f"step '{node.outputs[0].name}' ({node.op_type}) cannot be computed: {error}"
        raise ChainError(msg) from error


def _one(compute: Callable[[ir.Node, Arrays], NDArray[Any]]) -> Callable[..., Arrays]:
    return lambda node, inputs: [compute(node, inputs)]


def _binary(compute: Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]) -> Callable[..., Arrays]:
    def operator(node: ir.Node, inputs: Arrays) -> Arrays:
        del node
        left, right = inputs
        _check_size(np.broadcast_shapes(left.shape, right.shape))
        return [compute(left, right)]

    return operator


def _check_size(shape: Sequence[int]) -> None:
    if math.prod(int(size) for size in shape) > MAX_ELEMENTS:
        msg = f"an array of shape {list(shape)} is larger than any weight"
        raise ChainError(msg)


def _constant(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    del inputs
    array: NDArray[Any] = node.attributes["value"].as_tensor().numpy()
    return array


def _cast(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    return inputs[0].astype(ir.DataType(node.attributes.get_int("to")).numpy())


def _gather(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    values, index = inputs
    _check_size((*index.shape, *values.shape[1:]))
    return np.take(values, index, axis=node.attributes.get_int("axis", 0))


def _gather_elements(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    values, index = inputs
    return np.take_along_axis(values, index, axis=node.attributes.get_int("axis", 0))


def _slice(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    value = inputs[0]
    if len(inputs) == 1:
        bounds = [node.attributes.get_ints(name) for name in ("starts", "ends", "axes")]
    else:
        bounds = [array.tolist() for array in inputs[1:4]]
        bounds += [[0]] if len(inputs) == 3 else []
    for start, end, axis in zip(*bounds, strict=True):
        value = np.take(value, range(*slice(start, end).indices(value.shape[axis])), axis=axis)
    return value


def _split(node: ir.Node, inputs: Arrays) -> Arrays:
    sizes = inputs[1].tolist() if len(inputs) > 1 else list(node.attributes.get_ints("split"))
    if sum(sizes) != inputs[0].shape[0]:
        msg = "the pieces do not add up"
        raise ChainError(msg)
    return np.split(inputs[0], np.cumsum(sizes)[:-1])


def _expand(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    del node
    _check_size(inputs[1].tolist())
    return np.broadcast_to(inputs[0], inputs[1].tolist())


def _range(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    del node
    start, limit, step = (int(array) for array in inputs)
    _check_size([len(range(start, limit, step))])
    return np.arange(start, limit, step, dtype=inputs[0].dtype)


def _cumsum(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    value = inputs[0]
    total = np.cumsum(value, axis=int(inputs[1]), dtype=value.dtype)
    return total - value if node.attributes.get_int("exclusive", 0) else total


def _scatter(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    del node
    result = inputs[0].copy()
    result[inputs[1]] = inputs[2]
    return result


def _bit_shift(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    left = node.attributes.get_string("direction") == "LEFT"
    return np.left_shift(*inputs) if left else np.right_shift(*inputs)


def _matmul_integer(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    del node
    left, right = (array.astype(np.int32) for array in inputs)
    _check_size((*right.shape[:-2], left.shape[-2], right.shape[-1]))
    product: NDArray[Any] = np.einsum("...ij,...jk->...ik", left, right)
    return product


def _max_unpool(node: ir.Node, inputs: Arrays) -> NDArray[Any]:
    """One axis is enlarged by the kernel, which is how chains say how many elements come out."""
    values, index = inputs
    (kernel,) = node.attributes.get_ints("kernel_shape")
    _check_size([values.size - 1 + kernel])
    result = np.zeros((1, 1, values.size - 1 + kernel), values.dtype)
    if index.min() < 0:
        msg = "an index is below zero"
        raise ValueError(msg)
    result.reshape(-1)[index.reshape(-1)] = values.reshape(-1)
    return result


def _divide(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    quotient: NDArray[Any] = left // right
    return quotient  # of whole numbers that are not negative


OPERATORS: dict[str, Callable[[ir.Node, Arrays], Arrays]] = {
    "Add": _binary(np.add),
    "BitShift": _one(_bit_shift),
    "Cast": _one(_cast),
    "Concat": _one(lambda node, x: np.concatenate(x, axis=node.attributes.get_int("axis"))),
    "Constant": _one(_constant),
    "CumSum": _one(_cumsum),
    "Div": _binary(_divide),
    "Expand": _one(_expand),
    "Gather": _one(_gather),
    "GatherElements": _one(_gather_elements),
    "Identity": _one(lambda _, x: x[0]),
    "Less": _binary(np.less),
    "MatMul": _one(lambda _, x: np.matmul(*x)),
    "MatMulInteger": _one(_matmul_integer),
    "MaxUnpool": _one(_max_unpool),
    "Mul": _binary(np.multiply),
    "Not": _one(lambda _, x: ~x[0]),
    "Range": _one(_range),
    "Reshape": _one(lambda _, x: x[0].reshape(x[1].tolist())),
    "Scatter": _one(_scatter),
    "ScatterElements": _one(_scatter),
    "Slice": _one(_slice),
    "Split": _split,
    "Sub": _binary(np.subtract),
    "Transpose": _one(lambda node, x: x[0].transpose(node.attributes.get_ints("perm"))),
}
"""Every operator that :mod:`passes.pack.builder` writes."""
