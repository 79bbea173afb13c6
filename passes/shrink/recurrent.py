"""LSTM and GRU: hidden units that are provably zero, or that nobody reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.shrink.edit import set_constant, set_int
from passes.shrink.facts import Channels, Walk, constant_array, is_set

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.shrink.layers import Rule

GATES = {"LSTM": 4, "GRU": 3}
CANDIDATE = {"LSTM": 3, "GRU": 2}
"""Which gate makes the new content: where it is zero, a unit that starts at zero stays zero."""


def recurrent(walk: Walk, node: ir.Node) -> bool:
    """An LSTM or GRU with constant weights, and states that are absent or constant."""
    arrays = [constant_array(value) for value in node.inputs]
    weight, recurrence = arrays[1], arrays[2]
    given = [at for at, value in enumerate(node.inputs) if value is not None]
    odd = "activations" in node.attributes or is_set(node, "layout")
    if weight is None or recurrence is None or odd:
        return False
    if any(arrays[at] is None for at in given if at not in {0, 4}):
        return False
    if any(len(list(_value(node, at).uses())) > 1 for at in given if at not in {0, 4}):
        return False
    gates, hidden = GATES[node.op_type], recurrence.shape[2]
    bias = arrays[3] if 3 in given else np.zeros((weight.shape[0], 2 * gates * hidden))
    assert bias is not None
    found = _input(walk, node, weight)
    out = Channels(2, walk.units.new(hidden), _constants(node, weight, recurrence, bias, arrays))
    rows = recurrence.reshape(-1, gates, hidden, hidden)  # (directions, gates, to, from)
    to_others = (rows != 0) & ~np.eye(hidden, dtype=np.bool_)
    read = to_others.any(axis=(0, 1, 2)) & np.isnan(out.constant)
    walk.units.fix(out.units[read])
    for index, value in enumerate(node.outputs):
        walk.channels[value] = out.moved(3) if index == 0 else out
    walk.actions.append(lambda: _slice(walk, node, found, out, gates))
    return True


def _input(walk: Walk, node: ir.Node, weight: NDArray[Any]) -> Channels | None:
    found = walk.of(node.inputs[0])
    if found is None or found.axis != 2 or found.units.size != weight.shape[2]:
        walk.block(node.inputs[0])
        return None
    free = (weight == 0).all(axis=(0, 1)) | np.isfinite(found.constant)
    walk.units.fix(found.units[~free])
    return found


def _constants(
    node: ir.Node,
    weight: NDArray[Any],
    recurrence: NDArray[Any],
    bias: NDArray[Any],
    arrays: list[NDArray[Any] | None],
) -> NDArray[np.float64]:
    """Zero for each unit whose candidate is always tanh(0) and whose state begins at zero."""
    gates, hidden = GATES[node.op_type], recurrence.shape[2]
    at = CANDIDATE[node.op_type]
    part = slice(at * hidden, (at + 1) * hidden)
    zero = (weight[:, part] == 0).all(axis=(0, 2)) & (recurrence[:, part] == 0).all(axis=(0, 2))
    halves = bias.reshape(bias.shape[0], 2, gates * hidden)[:, :, part]
    zero &= (halves == 0).all(axis=(0, 1))
    for state in arrays[5:7]:
        if state is not None:
            zero &= (state == 0).all(axis=(0, 1))
    return np.where(zero, 0.0, np.nan)


def _slice(walk: Walk, node: ir.Node, found: Channels | None, out: Channels, gates: int) -> bool:
    kept = walk.units.kept(out.units)
    weight, recurrence = _array(node, 1), _array(node, 2)
    kept_in = np.ones(weight.shape[2], np.bool_)
    shift = np.zeros(weight.shape[:2])
    if found is not None:
        kept_in = walk.units.kept(found.units)
        held = np.where(~kept_in & np.isfinite(found.constant), found.constant, 0)
        shift = weight.astype(np.float64) @ held
    if kept.all() and kept_in.all():
        return False
    rows = np.tile(kept, gates)
    set_constant(node, 1, weight[:, rows][:, :, kept_in])
    set_constant(node, 2, recurrence[:, rows][:, :, kept])
    has_bias = len(node.inputs) > 3 and node.inputs[3] is not None
    if has_bias or shift.any():
        empty = np.zeros((weight.shape[0], 2 * weight.shape[1]), weight.dtype)
        bias = _array(node, 3) if has_bias else empty
        wide = bias.astype(np.float64)
        wide[:, : weight.shape[1]] += shift
        set_constant(node, 3, wide[:, np.tile(kept, 2 * gates)].astype(weight.dtype))
    for index in (5, 6):
        if index < len(node.inputs) and node.inputs[index] is not None:
            set_constant(node, index, _array(node, index)[:, :, kept])
    if len(node.inputs) > 7 and node.inputs[7] is not None:
        set_constant(node, 7, _array(node, 7)[:, np.tile(kept, 3)])
    set_int(node, "hidden_size", int(kept.sum()))
    return True


def _array(node: ir.Node, index: int) -> NDArray[Any]:
    array = constant_array(node.inputs[index])
    assert array is not None
    return array


def _value(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


RECURRENT: dict[str, Rule] = {"GRU": recurrent, "LSTM": recurrent}
