"""Layers with weights: where channels begin and end.

Each rule takes the walk and a node, says what the node makes of its input's channels, and leaves an
action that slices the node's weights. It returns False, having changed nothing, for a node that it
cannot follow; the walk then keeps all channels that the node reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.shrink.edit import add_after, set_constant, set_int
from passes.shrink.facts import Channels, Walk, constant_array, is_set, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    Rule = Callable[[Walk, ir.Node], bool]


def conv(walk: Walk, node: ir.Node) -> bool:
    """Conv, with any number of groups."""
    weight, bias = _weight_and_bias(node)
    if weight is None or bias is None:
        return False
    groups = node.attributes.get_int("group", 1)
    found = _on_axis(walk, node.inputs[0], 1)
    if groups == 1:
        matrix = weight.reshape(*weight.shape[:2], -1).sum(axis=2, dtype=np.float64)
        zero = (weight == 0).reshape(*weight.shape[:2], -1).all(axis=2)
        taken = _reads(walk, node.inputs[0], found, matrix, zero, exact=not _padded(node))
        out = walk.make(node.outputs[0], 1, _outputs(matrix, zero, bias, found, taken))
        walk.actions.append(lambda: _slice_layer(walk, node, found, out, (1, 0), matrix))
        return True
    if found is None:
        return False
    return _grouped(walk, node, found, weight, bias, groups)


def conv_transpose(walk: Walk, node: ir.Node) -> bool:
    """ConvTranspose: how often an input counts differs at the borders, so only zeros are absorbed."""
    weight, bias = _weight_and_bias(node, outputs=1)
    if weight is None or bias is None or node.attributes.get_int("group", 1) != 1:
        return False
    found = _on_axis(walk, node.inputs[0], 1)
    turned = np.moveaxis(weight, 0, 1)
    matrix = turned.reshape(*turned.shape[:2], -1).sum(axis=2, dtype=np.float64)
    zero = (turned == 0).reshape(*turned.shape[:2], -1).all(axis=2)
    taken = _reads(walk, node.inputs[0], found, matrix, zero, exact=False)
    out = walk.make(node.outputs[0], 1, _outputs(matrix, zero, bias, found, taken))
    walk.actions.append(lambda: _slice_layer(walk, node, found, out, (0, 1), matrix))
    return True


def gemm(walk: Walk, node: ir.Node) -> bool:
    """Gemm with a constant right side."""
    weight = _own(node, 1)
    third = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant_array(third)
    if weight is None or is_set(node, "transA") or (third is not None and bias is None):
        return False
    turned = is_set(node, "transB")
    rows = weight if turned else weight.T
    alpha = node.attributes.get_float("alpha", 1.0)
    beta = node.attributes.get_float("beta", 1.0)
    outputs = rows.shape[0]
    vector = np.zeros(outputs) if bias is None else unknown(outputs)
    if bias is not None and (bias.size == 1 or bias.shape[-1] == bias.size == outputs):
        vector = np.broadcast_to(bias.reshape(-1), outputs).astype(np.float64) * beta
    found = _on_axis(walk, node.inputs[0], 1)
    matrix = rows.astype(np.float64)
    exact = alpha == 1 and beta == 1
    taken = _reads(walk, node.inputs[0], found, matrix, rows == 0, exact=exact)
    out = walk.make(node.outputs[0], 1, _outputs(matrix * alpha, rows == 0, vector, found, taken))
    axes = (1, 0) if turned else (0, 1)
    walk.actions.append(lambda: _slice_layer(walk, node, found, out, axes, matrix))
    return True


def matmul(walk: Walk, node: ir.Node) -> bool:
    """MatMul by a constant matrix on the right."""
    weight = _own(node, 1)
    rank = walk.rank(node.inputs[0])
    if weight is None or weight.ndim != 2 or rank < 2:
        return False
    found = _on_axis(walk, node.inputs[0], rank - 1)
    matrix = weight.T.astype(np.float64)
    exact = not node.outputs[0].is_graph_output()
    taken = _reads(walk, node.inputs[0], found, matrix, matrix == 0, exact=exact)
    nothing = np.zeros(matrix.shape[0])
    out = walk.make(node.outputs[0], rank - 1, _outputs(matrix, matrix == 0, nothing, found, taken))
    walk.actions.append(lambda: _slice_layer(walk, node, found, out, (0, 1), matrix))
    return True


def batch_normalization(walk: Walk, node: ir.Node) -> bool:
    """BatchNormalization with constant statistics."""
    found = _on_axis(walk, node.inputs[0], 1)
    arrays = [constant_array(value) for value in node.inputs[1:5]]
    training = is_set(node, "training_mode")
    if found is None or training or len(node.outputs) > 1 or any(a is None for a in arrays):
        return False
    scale, shift, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    deviation = np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    constant = (found.constant - mean) / deviation * scale + shift
    constant = np.where(scale == 0, shift, constant)
    return _per_channel(walk, node, found, constant, range(1, 5))


def instance_normalization(walk: Walk, node: ir.Node) -> bool:
    """InstanceNormalization: zero becomes the shift; other constants are left to rounding."""
    found = _on_axis(walk, node.inputs[0], 1)
    if found is None or any(constant_array(value) is None for value in node.inputs[1:3]):
        return False
    shift = np.asarray(constant_array(node.inputs[2]), np.float64)
    constant = np.where(found.constant == 0, shift, np.nan)
    return _per_channel(walk, node, found, constant, range(1, 3))


def _per_channel(
    walk: Walk, node: ir.Node, found: Channels, constant: NDArray[np.float64], inputs: range
) -> bool:
    walk.channels[node.outputs[0]] = found.with_constant(constant)

    def action() -> bool:
        kept = walk.units.kept(found.units)
        for index in [] if kept.all() else inputs:
            array = constant_array(node.inputs[index])
            assert array is not None
            set_constant(node, index, array[kept])
        return not kept.all()

    walk.actions.append(action)
    return True


def _grouped(
    walk: Walk,
    node: ir.Node,
    found: Channels,
    weight: NDArray[Any],
    bias: NDArray[np.float64],
    groups: int,
) -> bool:
    """A group goes or stays as a whole; with one input a group that is a depthwise convolution."""
    inputs = found.units.reshape(groups, -1)
    for column in range(1, inputs.shape[1]):
        walk.units.tie(inputs[:, 0], inputs[:, column])
    units = np.repeat(inputs[:, 0], weight.shape[0] // groups)
    zero = (weight == 0).reshape(weight.shape[0], -1).all(axis=1)
    constant = np.where(zero, bias, np.nan)
    if inputs.shape[1] == 1:
        total = weight.reshape(weight.shape[0], -1).sum(axis=1, dtype=np.float64)
        held = np.repeat(found.constant, weight.shape[0] // groups)
        held = np.where((held == 0) | (not _padded(node)), held, np.nan)
        constant = np.where(zero, bias, bias + total * held)
    out = Channels(1, units, constant)
    walk.channels[node.outputs[0]] = out

    def action() -> bool:
        kept = walk.units.kept(out.units)
        if kept.all():
            return False
        set_constant(node, 1, weight[kept])
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            set_constant(node, 2, _array(node, 2)[kept])
        set_int(node, "group", int(walk.units.kept(inputs[:, 0]).sum()))
        return True

    walk.actions.append(action)
    return True


def _reads(
    walk: Walk,
    value: ir.Value | None,
    found: Channels | None,
    matrix: NDArray[np.float64],
    zero: NDArray[np.bool_],
    *,
    exact: bool,
) -> NDArray[np.bool_]:
    """Which input channels the layer can do without; the others must stay.

    Args:
        walk: the walk.
        value: that the layer reads.
        found: its channels.
        matrix: sum of the weights from each input to each output, ``(outputs, inputs)``.
        zero: where all these weights are zero.
        exact: whether a constant other than zero reaches all of an output alike.
    """
    unread = np.asarray(zero.all(axis=0), np.bool_)
    if found is None or found.units.size != matrix.shape[1]:
        walk.block(value)
        return unread
    with np.errstate(invalid="ignore"):
        held = (found.constant == 0) | (np.isfinite(found.constant) if exact else False)
    free: NDArray[np.bool_] = np.logical_or(unread, held)
    walk.units.fix(found.units[~free])
    return free


def _outputs(
    matrix: NDArray[np.float64],
    zero: NDArray[np.bool_],
    bias: NDArray[np.float64],
    found: Channels | None,
    free: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """The constant of each output: all inputs that it reads are constants that can be absorbed."""
    read = zero | free[None, :]
    held = np.zeros(matrix.shape[1])
    if found is not None and found.units.size == matrix.shape[1]:
        held = np.where(free & np.isfinite(found.constant), found.constant, 0)
    return np.where(read.all(axis=1), bias + matrix @ held, np.nan)


def _slice_layer(
    walk: Walk,
    node: ir.Node,
    found: Channels | None,
    out: Channels,
    axes: tuple[int, int],
    matrix: NDArray[np.float64],
) -> bool:
    """Slice weight and bias; what dropped inputs held goes into the bias."""
    into, outof = axes
    weight = _array(node, 1)
    kept_out = walk.units.kept(out.units)
    kept_in = np.ones(matrix.shape[1], np.bool_)
    shift = np.zeros(matrix.shape[0])
    if found is not None and found.units.size == matrix.shape[1]:
        kept_in = walk.units.kept(found.units)
        held = np.where(~kept_in & np.isfinite(found.constant), found.constant, 0)
        shift = matrix @ held
    if kept_in.all() and kept_out.all():
        return False
    weight = np.compress(kept_in, np.compress(kept_out, weight, axis=outof), axis=into)
    set_constant(node, 1, weight)
    _slice_bias(node, kept_out, shift, weight.dtype)
    return True


def _slice_bias(
    node: ir.Node, kept: NDArray[np.bool_], shift: NDArray[np.float64], dtype: np.dtype[Any]
) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = _array(node, 2)
        if shift.any() or bias.shape[-1:] == kept.shape:
            total = (bias.astype(np.float64) + shift).astype(bias.dtype)
            set_constant(node, 2, np.compress(kept, total, axis=-1))
    elif shift.any():
        array = shift[kept].astype(dtype)
        if node.op_type == "MatMul":
            add_after(node, array)
        else:
            set_constant(node, 2, array)


def _weight_and_bias(
    node: ir.Node, outputs: int = 0
) -> tuple[NDArray[Any] | None, NDArray[np.float64] | None]:
    """The weight, where this node alone reads it, and the bias as float64, zeros where absent."""
    weight = _own(node, 1)
    third = node.inputs[2] if len(node.inputs) > 2 else None
    if weight is None:
        return None, None
    if third is None:
        return weight, np.zeros(weight.shape[outputs])
    bias = constant_array(third)
    return weight, None if bias is None else bias.astype(np.float64)


def _own(node: ir.Node, index: int) -> NDArray[Any] | None:
    """A constant float input that no other node reads."""
    value = node.inputs[index]
    array = constant_array(value)
    if array is None or value is None or len(list(value.uses())) > 1:
        return None
    return array


def _array(node: ir.Node, index: int) -> NDArray[Any]:
    array = constant_array(node.inputs[index])
    assert array is not None
    return array


def _on_axis(walk: Walk, value: ir.Value | None, axis: int) -> Channels | None:
    """The channels of a value if they lie on that axis; if they lie elsewhere they must stay."""
    found = walk.of(value)
    if found is not None and found.axis != axis:
        walk.block(value)
        return None
    return found


def _padded(node: ir.Node) -> bool:
    if node.attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
        return True
    return any(node.attributes.get_ints("pads", ()))


LAYERS: dict[str, Rule] = {
    "BatchNormalization": batch_normalization,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Gemm": gemm,
    "InstanceNormalization": instance_normalization,
    "MatMul": matmul,
}
