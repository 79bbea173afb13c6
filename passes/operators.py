"""What each operator does with a weight: the only place that knows operators.

Each entry takes the node, the input that the weight stands at, and the weight's shape, and returns
the :class:`~passes.layout.Layout` of the weight, or raises :class:`NotPrunable` with the reason in
one clause, which goes into the report as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from passes.layout import Layout, columns_first, rows_first

if TYPE_CHECKING:
    import onnx_ir as ir

LayoutRule = Callable[["ir.Node", int, tuple[int, ...]], Layout]


class NotPrunable(Exception):  # noqa: N818 - an answer, not an error: it carries a reason
    """Why a constant is not a weight that can be pruned, in one clause."""


def layout_of(node: ir.Node, input_index: int, shape: tuple[int, ...]) -> Layout:
    """The layout of the constant at input ``input_index`` of ``node``.

    Raises:
        NotPrunable: with the reason, when it is not a weight or the operator has no rule.
    """
    rule = RULES.get((node.domain, node.op_type))
    if rule is None:
        msg = f"{node.op_type} has no weights that onnxprune can prune"
        raise NotPrunable(msg)
    return rule(node, input_index, shape)


def _conv(node: ir.Node, input_index: int, shape: tuple[int, ...]) -> Layout:
    if input_index == 2:
        raise NotPrunable("a bias of Conv is kept: it is small and every output needs it")
    if input_index != 1:
        raise NotPrunable("it is the data input of Conv, not its weight")
    groups = node.attributes.get_int("group", 1)
    if shape[0] % groups:
        msg = f"its {shape[0]} output channels do not divide into {groups} groups"
        raise NotPrunable(msg)
    return rows_first(shape, groups)


def _gemm(node: ir.Node, input_index: int, shape: tuple[int, ...]) -> Layout:
    if input_index == 2:
        raise NotPrunable("a bias of Gemm is kept: it is small and every output needs it")
    transposed = bool(node.attributes.get_int("transB" if input_index else "transA", 0))
    # B is stored (reduction, outputs), A is (outputs, reduction); a transpose swaps them.
    return rows_first(shape) if transposed == (input_index == 1) else columns_first(shape)


def _matmul(node: ir.Node, input_index: int, shape: tuple[int, ...]) -> Layout:
    del node
    if len(shape) < 2:
        raise NotPrunable("a vector in MatMul is kept: it has one output only")
    if input_index == 1:
        return columns_first(shape)
    if len(shape) > 2:
        raise NotPrunable("a stack of matrices on the left of MatMul is not supported yet")
    return rows_first(shape)


RULES: dict[tuple[str, str], LayoutRule] = {
    ("", "Conv"): _conv,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
}
