"""The meaning of a weight's axes for each family of operators.

Every function takes the node, the input at which the weight stands, and the weight's shape there,
and returns its :class:`~passes.axes.Axes`, or raises :class:`NotPrunable`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from passes.axes import COLUMN, GROUP, ROW, Axes, axes_of
from passes.operators.answers import NotPrunable

if TYPE_CHECKING:
    from collections.abc import Callable

    from passes.operators.resolve import NodeLike

    Rule = Callable[[NodeLike, int, tuple[int, ...]], Axes]

Shape = tuple[int, ...]


def conv(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(outputs, inputs / groups, kernel...)``: the groups are on the axis of outputs."""
    del index
    _at_least(node, shape, 2)
    groups = _groups(node, shape[0], "output")
    kernel = (((COLUMN, size),) for size in shape[1:])
    return axes_of(((GROUP, groups), (ROW, shape[0] // groups)), *kernel)


def conv_transpose(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(inputs, outputs / groups, kernel...)``: an output sums over inputs and places of the kernel."""
    del index
    _at_least(node, shape, 2)
    groups = _groups(node, shape[0], "input")
    kernel = (((COLUMN, size),) for size in shape[2:])
    return axes_of(((GROUP, groups), (COLUMN, shape[0] // groups)), ((ROW, shape[1]),), *kernel)


def gemm_left(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(outputs, reduction)``, swapped by transA."""
    del index
    return _matrix(node, shape, rows_first=not _flag(node, "transA"))


def gemm_right(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(reduction, outputs)``, swapped by transB."""
    del index
    return _matrix(node, shape, rows_first=_flag(node, "transB"))


def matmul_left(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(stack..., outputs, reduction)``; each matrix of a stack is a group."""
    del index
    return _stack(node, shape, rows_first=True)


def matmul_right(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(stack..., reduction, outputs)``; each matrix of a stack is a group."""
    del index
    return _stack(node, shape, rows_first=False)


def fused_matmul_left(node: NodeLike, index: int, shape: Shape) -> Axes:
    """As the left of MatMul, after transBatchA and transA."""
    del index
    rows_first = not _flag(node, "transA")
    return _fused_stack(node, shape, rows_first=rows_first, batch=_flag(node, "transBatchA"))


def fused_matmul_right(node: NodeLike, index: int, shape: Shape) -> Axes:
    """As the right of MatMul, after transBatchB and transB."""
    del index
    rows_first = _flag(node, "transB")
    return _fused_stack(node, shape, rows_first=rows_first, batch=_flag(node, "transBatchB"))


def recurrent(gates: int) -> Rule:
    """``(directions, gates * hidden, inputs)``: a group for each direction and gate."""

    def rule(node: NodeLike, index: int, shape: Shape) -> Axes:
        del index
        if len(shape) != 3 or shape[1] % gates:
            msg = f"its shape {list(shape)} does not fit {node.op_type}, which has {gates} gates"
            raise NotPrunable(msg)
        directions, stacked, inputs = shape
        hidden = ((GROUP, gates), (ROW, stacked // gates))
        return axes_of(((GROUP, directions),), hidden, ((COLUMN, inputs),))

    return rule


def recurrent_transposed(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(directions, inputs, 4 * hidden)``, as onnxruntime's quantised LSTM stores it."""
    del index
    if len(shape) != 3 or shape[2] % 4:
        msg = f"its shape {list(shape)} does not fit {node.op_type}, which has 4 gates"
        raise NotPrunable(msg)
    gates = ((GROUP, 4), (ROW, shape[2] // 4))
    return axes_of(((GROUP, shape[0]),), ((COLUMN, shape[1]),), gates)


def embedding(node: NodeLike, index: int, shape: Shape) -> Axes:
    """A row for each entry of the gathered axis, the other axes as columns."""
    del index
    axis = node.attributes.get_int("axis", 0) % max(1, len(shape))
    if len(shape) < 2:
        msg = f"a vector that {node.op_type} picks from is kept: it is no embedding"
        raise NotPrunable(msg)
    return axes_of(*(((ROW if i == axis else COLUMN, size),) for i, size in enumerate(shape)))


def experts(node: NodeLike, index: int, shape: Shape) -> Axes:
    """``(experts, outputs, reduction)``: a group for each expert."""
    del index
    if len(shape) != 3:
        msg = f"its shape {list(shape)} does not fit {node.op_type}, which wants three axes"
        raise NotPrunable(msg)
    return axes_of(((GROUP, shape[0]),), ((ROW, shape[1]),), ((COLUMN, shape[2]),))


def einsum(node: NodeLike, index: int, shape: Shape) -> Axes:
    """By its letters: kept ones are rows, reduced ones columns, those in every operand groups.

    Raises:
        NotPrunable: with other than two operands, an ellipsis or a repeated letter in the weight,
            or a letter of the weight that is summed alone.
    """
    equation = (node.attributes.get_string("equation") or "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    if len(operands) != 2 or len(node.inputs) != 2:
        raise NotPrunable("Einsum of other than two operands is left alone")
    weight, other = operands[index], operands[1 - index]
    if "." in weight or len(set(weight)) < len(weight) or len(weight) != len(shape):
        msg = f"Einsum reads it as '{weight}', which is no plain layout"
        raise NotPrunable(msg)
    if not arrow:
        letters = [letter for letter in terms if letter.isalpha()]
        result = "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    roles = []
    for letter in weight:
        if letter in result:
            roles.append(GROUP if letter in other else ROW)
        elif letter in other:
            roles.append(COLUMN)
        else:
            msg = (
                f"Einsum '{equation}' sums '{letter}' of the weight alone, which is no plain layout"
            )
            raise NotPrunable(msg)
    return axes_of(*(((role, size),) for role, size in zip(roles, shape, strict=True)))


def _matrix(node: NodeLike, shape: Shape, *, rows_first: bool) -> Axes:
    if len(shape) != 2:
        msg = f"its shape {list(shape)} does not fit {node.op_type}, which wants a matrix"
        raise NotPrunable(msg)
    return _stack(node, shape, rows_first=rows_first)


def _stack(node: NodeLike, shape: Shape, *, rows_first: bool) -> Axes:
    if len(shape) < 2:
        msg = f"a vector in {node.op_type} is kept: it has one output only"
        raise NotPrunable(msg)
    roles = (ROW, COLUMN) if rows_first else (COLUMN, ROW)
    groups = (((GROUP, size),) for size in shape[:-2])
    matrix = (((role, size),) for role, size in zip(roles, shape[-2:], strict=True))
    return axes_of(*groups, *matrix)


def _fused_stack(node: NodeLike, shape: Shape, *, rows_first: bool, batch: bool) -> Axes:
    if not batch or len(shape) < 3:
        return _stack(node, shape, rows_first=rows_first)
    # The stored array has its first matrix axis in front of the stack: (a, stack..., b).
    permutation = (*range(1, len(shape) - 1), 0, len(shape) - 1)
    seen = tuple(shape[axis] for axis in permutation)
    return _stack(node, seen, rows_first=rows_first).before_transpose(permutation)


def _groups(node: NodeLike, channels: int, kind: str) -> int:
    groups = node.attributes.get_int("group", 1)
    if groups < 1 or channels % groups:
        msg = f"its {channels} {kind} channels do not divide into {groups} groups"
        raise NotPrunable(msg)
    return groups


def _flag(node: NodeLike, name: str) -> bool:
    return bool(node.attributes.get_int(name, 0))


def _at_least(node: NodeLike, shape: Shape, axes: int) -> None:
    if len(shape) < axes:
        msg = (
            f"its shape {list(shape)} does not fit {node.op_type}, which wants {axes} axes or more"
        )
        raise NotPrunable(msg)
