"""Which element of a weight stands where in the matrices of an operator that reads it.

A weight that is cut, concatenated or reordered on its way is not seen whole or in its own order. Its
elements are numbered and the numbers carried along the way, so that rows and columns of the operator
can be told by those of the weight's own view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.operators import NotPrunable, layout_of
from passes.operators.chains import concatenation, moves
from passes.operators.constants import stored_tensor
from passes.operators.moves import UNKNOWN, Cut, apply

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.layout import Layout
    from passes.operators.moves import Move
    from passes.weights import Consumer, Weight

OUTSIDE = -1
"""Where another constant stands, or nothing."""

MAX_DEPTH = 100


def columns_seen(weight: Weight, consumer: Consumer) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """How an operator sees the rows and columns of a weight's view.

    Returns:
        For each row of the view, all groups together, the operator's group, :data:`OUTSIDE` where it
        does not read the row: ``(G * R,)``. And for each element the operator's column, or
        :data:`OUTSIDE`: ``(G * R, C)``.

    Raises:
        NotPrunable: when a row of the operator is not made of one row of the view.
    """
    groups, rows, columns = weight.layout.matrix_shape
    theirs = _numbered(weight, consumer)
    place = np.full((groups * rows, columns), OUTSIDE, np.intp)
    group = np.full(groups * rows, OUTSIDE, np.intp)
    flat = theirs.reshape(-1, theirs.shape[2])
    known = flat != OUTSIDE
    view = weight.layout.positions(np.where(known, flat, 0).astype(np.int64))
    row, column = np.divmod(view, columns)
    own = np.where(known, row, OUTSIDE).max(axis=1)
    if np.any(known & (row != own[:, None])):
        raise NotPrunable("its readers do not see the same rows")
    read = own != OUTSIDE
    if len(np.unique(own[read])) != int(read.sum()):
        raise NotPrunable("a reader sees some of its rows twice")
    number = np.broadcast_to(np.arange(flat.shape[1]), flat.shape)
    place[np.broadcast_to(own[:, None], flat.shape)[known], column[known]] = number[known]
    group[own[read]] = np.flatnonzero(read) // theirs.shape[1]
    return group, place


def _numbered(weight: Weight, consumer: Consumer) -> NDArray[np.intp]:
    """The operator's matrices, holding for each element where the weight stores it."""
    node, index = consumer.reader, consumer.input_index
    assert node is not None
    numbers = np.arange(weight.elements, dtype=np.intp).reshape(weight.layout.shape)
    if not any(isinstance(move, Cut) for move in consumer.path):
        assert consumer.layout is not None
        return consumer.layout.matrices(numbers)
    value = node.inputs[index]
    assert value is not None
    array = _carried(value, weight.value, numbers, MAX_DEPTH)
    layout: Layout = layout_of(node, index, array.shape)
    return layout.matrices(array)


def _carried(
    value: ir.Value, weight: ir.Value, numbers: NDArray[np.intp], depth: int
) -> NDArray[np.intp]:
    """What becomes of the numbers at ``value``, which is computed from constants alone."""
    if value is weight:
        return numbers
    tensor = stored_tensor(value)
    if tensor is not None:
        return np.full(tuple(tensor.shape.numpy()), OUTSIDE, np.intp)
    node = value.producer()
    if node is None or depth == 0:
        raise NotPrunable("the way from it to its reader is not made of constants")
    if (node.domain, node.op_type) == ("", "Concat"):
        parts = [_carried(v, weight, numbers, depth - 1) for v in node.inputs if v is not None]
        shapes = tuple(part.shape for part in parts)
        if concatenation(node, shapes, 0) is None:
            raise NotPrunable("it is concatenated in a way that cannot be followed")
        return np.concatenate(parts, axis=node.attributes.get_int("axis", 1))
    source = node.inputs[0] if node.inputs else None
    if source is None:
        raise NotPrunable("the way from it to its reader is not made of constants")
    array = _carried(source, weight, numbers, depth - 1)
    steps = moves(node, 0, array.shape)
    if steps is None:
        msg = f"it goes through {node.op_type} before it is read"
        raise NotPrunable(msg)
    return _moved(steps[value.index() or 0], array)


def _moved(move: Move, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(move, Cut):
        return apply((move,), array)
    if move.start == UNKNOWN:
        raise NotPrunable("it is cut at a place that is known only at run time")
    size = move.after[move.axis]
    places = move.start + move.step * np.arange(size)
    return array.take(places, axis=move.axis)
