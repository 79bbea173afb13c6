"""From a node and an input to what the weight there means."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import onnx

from passes.operators.answers import NotPrunable
from passes.operators.table import LEFT_ALONE, WEIGHT_INPUTS

if TYPE_CHECKING:
    from passes.layout import Layout
    from passes.operators.resolve import NodeLike
    from passes.operators.table import WeightInput

_BY_PLACE = {(w.domain, w.op_type, w.index): w for w in WEIGHT_INPUTS}
_OPERATORS = {(w.domain, w.op_type) for w in WEIGHT_INPUTS}


def weight_input(node: NodeLike, index: int) -> WeightInput:
    """What the table says about input ``index`` of ``node``.

    Raises:
        NotPrunable: with the reason, when that input holds no weight.
    """
    found = _BY_PLACE.get((node.domain, node.op_type, index))
    if found is not None:
        return found
    operator = (node.domain, node.op_type)
    if operator in LEFT_ALONE:
        raise NotPrunable(LEFT_ALONE[operator])
    if operator not in _OPERATORS:
        msg = f"{node.op_type} has no weights that onnxprune can prune"
        raise NotPrunable(msg)
    role = input_name(node.domain, node.op_type, index)
    if role is None:
        msg = f"it is input {index} of {node.op_type}, not its weight"
        raise NotPrunable(msg)
    if role.lower() in {"b", "c", "bias"}:
        msg = f"a bias of {node.op_type} is kept: it is small and every output needs it"
        raise NotPrunable(msg)
    msg = f"it is input '{role}' of {node.op_type}, not its weight"
    raise NotPrunable(msg)


def layout_of(node: NodeLike, index: int, shape: tuple[int, ...]) -> Layout:
    """The layout of a constant that stands right at input ``index`` of ``node``.

    Raises:
        NotPrunable: with the reason, when it is not a weight or the operator has no rule.
    """
    return weight_input(node, index).axes(node, index, shape).layout()


@cache
def input_name(domain: str, op_type: str, index: int) -> str | None:
    """The name of an input in ONNX's own description of the operator, or None where it has none."""
    try:
        inputs = onnx.defs.get_schema(op_type, domain=domain).inputs
    except onnx.defs.SchemaError:
        inputs = []
    return inputs[index].name if index < len(inputs) else None
