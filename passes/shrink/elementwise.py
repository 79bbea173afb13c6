"""Operators on each element by itself: channels stay, their constants change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.shrink.edit import set_constant
from passes.shrink.facts import Channels, Walk, channel_vector, constant_array, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.shrink.layers import Rule

    Function = Callable[[NDArray[np.float64], ir.Node], NDArray[np.float64]]


def _clip(x: NDArray[np.float64], node: ir.Node) -> NDArray[np.float64]:
    low, high = node.attributes.get_float("min", -np.inf), node.attributes.get_float("max", np.inf)
    for index, name in enumerate(("low", "high"), 1):
        if index < len(node.inputs) and node.inputs[index] is not None:
            array = constant_array(node.inputs[index])
            if array is None:
                return np.full_like(x, np.nan)
            low, high = (float(array), high) if name == "low" else (low, float(array))
    return np.clip(x, low, high)


def _same(x: NDArray[np.float64], node: ir.Node) -> NDArray[np.float64]:
    del node
    return x


def _not_followed(x: NDArray[np.float64], node: ir.Node) -> NDArray[np.float64]:
    """The channel stays apart from others, but what a constant becomes is not computed here."""
    del node
    return np.full_like(x, np.nan)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


ELEMENTWISE: dict[str, Function] = {
    "Abs": lambda x, _: np.abs(x),
    "Cast": _same,
    "Clip": _clip,
    "Elu": lambda x, n: np.where(x >= 0, x, n.attributes.get_float("alpha", 1.0) * np.expm1(x)),
    "Erf": lambda x, _: np.where(x == 0, 0.0, np.nan),
    "Exp": lambda x, _: np.exp(x),
    "Gelu": lambda x, _: np.where(x == 0, 0.0, np.nan),
    "HardSigmoid": lambda x, n: np.clip(
        n.attributes.get_float("alpha", 0.2) * x + n.attributes.get_float("beta", 0.5), 0, 1
    ),
    "HardSwish": lambda x, _: x * np.clip(x / 6 + 0.5, 0, 1),
    "Identity": _same,
    "LeakyRelu": lambda x, n: np.where(x >= 0, x, n.attributes.get_float("alpha", 0.01) * x),
    "Mish": lambda x, _: x * np.tanh(np.log1p(np.exp(x))),
    "Neg": lambda x, _: -x,
    "Relu": lambda x, _: np.maximum(x, 0),
    "Selu": _not_followed,
    "Sigmoid": lambda x, _: _sigmoid(x),
    "Softplus": lambda x, _: np.log1p(np.exp(x)),
    "Softsign": lambda x, _: x / (1 + np.abs(x)),
    "Sqrt": lambda x, _: np.sqrt(x),
    "Tanh": lambda x, _: np.tanh(x),
}


def elementwise(walk: Walk, node: ir.Node) -> bool:
    """One value in, each element by itself."""
    found = walk.of(node.inputs[0])
    if found is None:
        return False
    walk.channels[node.outputs[0]] = found.with_constant(
        ELEMENTWISE[node.op_type](found.constant, node)
    )
    return True


def dropout(walk: Walk, node: ir.Node) -> bool:
    """Does nothing unless it trains."""
    found = walk.of(node.inputs[0])
    if found is None or len(node.outputs) > 1 or len(node.inputs) > 2:
        return False
    walk.channels[node.outputs[0]] = found
    return True


ARITHMETIC: dict[str, Callable[..., NDArray[Any]]] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "PRelu": lambda x, slope: np.where(x >= 0, x, x * slope),
    "Sub": np.subtract,
}


def arithmetic(walk: Walk, node: ir.Node) -> bool:
    """Two values, or a value and a constant, with broadcasting."""
    left, right = node.inputs
    if constant_array(right) is not None:
        return _with_constant(walk, node, 0, 1)
    if constant_array(left) is not None and node.op_type != "PRelu":
        return _with_constant(walk, node, 1, 0)
    return node.op_type != "PRelu" and _of_two(walk, node, left, right)


def _with_constant(walk: Walk, node: ir.Node, value_at: int, constant_at: int) -> bool:
    found = walk.of(node.inputs[value_at])
    array = constant_array(node.inputs[constant_at])
    rank = walk.rank(node.inputs[value_at])
    if found is None or array is None or rank < array.ndim:
        return False
    count = found.units.size
    at = found.axis - (rank - array.ndim)
    if at >= 0 and array.shape[at] not in {1, count}:
        return False
    vector = channel_vector(array, found.axis, rank, count)
    constant = unknown(count)
    if vector is not None:
        constant = _compute(node.op_type, found.constant, vector, swapped=value_at == 1)
    walk.channels[node.outputs[0]] = found.with_constant(constant)

    def action() -> bool:
        kept = walk.units.kept(found.units)
        if kept.all() or at < 0 or array.shape[at] == 1:
            return False
        set_constant(node, constant_at, np.compress(kept, array, axis=at))
        return True

    walk.actions.append(action)
    return True


def _compute(
    op_type: str, value: NDArray[np.float64], other: NDArray[Any], *, swapped: bool
) -> NDArray[np.float64]:
    wide = other.astype(np.float64)
    pair = (wide, value) if swapped else (value, wide)
    result: NDArray[np.float64] = ARITHMETIC[op_type](*pair)
    if op_type == "Mul":  # zero times anything
        result = np.where((value == 0) | (wide == 0), 0.0, result)
    return np.where(np.isfinite(result), result, np.nan)


def _of_two(walk: Walk, node: ir.Node, left: ir.Value | None, right: ir.Value | None) -> bool:
    a, b = walk.of(left), walk.of(right)
    ranks = walk.rank(left), walk.rank(right)
    if min(ranks) < 0:
        return False
    if a is None or b is None:
        value, known, other = (right, b, left) if a is None else (left, a, right)
        return known is not None and _beside(
            walk, node, known.axis - walk.rank(value), known, other
        )
    place = a.axis - ranks[0]
    if place != b.axis - ranks[1] or a.units.size != b.units.size:
        return False
    if a.units is not b.units:
        walk.units.tie(a.units, b.units)
    constant = _compute(node.op_type, a.constant, b.constant, swapped=False)
    walk.channels[node.outputs[0]] = Channels(max(ranks) + place, a.units, constant)
    return True


def _beside(walk: Walk, node: ir.Node, place: int, known: Channels, other: ir.Value | None) -> bool:
    """One side has no channels that are followed: it must be the same for all channels."""
    shape = walk.shape(other)
    if shape is None or (len(shape) >= -place and shape[place] != 1):
        return False
    constant = unknown(known.units.size)
    if node.op_type == "Mul":
        constant = np.where(known.constant == 0, 0.0, np.nan)
    rank = max(len(shape), known.axis - place)
    walk.channels[node.outputs[0]] = Channels(rank + place, known.units, constant)
    return True


BY_ELEMENT: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(ARITHMETIC, arithmetic),
    "Dropout": dropout,
}
