"""Operators that may stand between a stored constant and the operator that reads it as a weight.

Each rule takes the node, the input at which the array comes in, and the array's shape there, and
gives for each output the :class:`~passes.operators.moves.Move` that the array takes. A rule raises
:class:`NotPrunable` when the node does something that depends on the data, or that no layout
follows.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.operators.answers import NotPrunable
from passes.operators.constants import integers, listed_attribute
from passes.operators.moves import UNKNOWN, Cut, Dequantized, Kept, Move, Reshaped, Transposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from passes.operators.resolve import NodeLike

    Shape = tuple[int, ...]
    Rule = Callable[[NodeLike, int, Shape], tuple[Move, ...]]

FLOATS = frozenset(
    (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
)


def moves(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...] | None:
    """The move to each output of ``node``, or None when it is no operator to look through.

    Raises:
        NotPrunable: when it is one, but not here.
    """
    rule = CHAIN.get((node.domain, node.op_type))
    if rule is None or index != 0:
        return None
    return rule(node, index, shape)


def concatenation(node: NodeLike, shapes: tuple[Shape | None, ...], index: int) -> Move | None:
    """The move of input ``index`` through a Concat of constants of ``shapes``; None otherwise."""
    known = [shape for shape in shapes if shape is not None]
    if len(known) < len(shapes) or len({len(shape) for shape in known}) != 1 or not known[0]:
        return None
    axis = node.attributes.get_int("axis", 1) % len(known[0])
    before = known[index]
    after = list(before)
    after[axis] = sum(shape[axis] for shape in known)
    return Cut(before, tuple(after), axis, sum(shape[axis] for shape in known[:index]))


def _kept(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del node, index
    return (Kept(shape, shape),)


def _cast(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    target = ir.DataType(node.attributes.get_int("to", 0))
    if target not in FLOATS | {ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT32}:
        msg = f"it is cast to {target.name}"
        raise NotPrunable(msg)
    return _kept(node, index, shape)


def _reshape(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    wanted = listed_attribute(node, "shape") or _second(node)
    if wanted is None:
        raise NotPrunable("it is reshaped to a shape that is known only at run time")
    keep_zeros = bool(node.attributes.get_int("allowzero", 0))
    sizes = [
        shape[i] if size == 0 and not keep_zeros and i < len(shape) else size
        for i, size in enumerate(wanted)
    ]
    if sizes.count(-1) == 1:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(shape) // known if known else 0
    return _reshaped(node, shape, tuple(sizes))


def _flatten(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    axis = node.attributes.get_int("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return _reshaped(node, shape, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _squeeze(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    axes = _axes(node, optional=True)
    gone = {axis % len(shape) for axis in axes} if axes is not None else None
    sizes = tuple(
        size for i, size in enumerate(shape) if (size != 1 if gone is None else i not in gone)
    )
    return _reshaped(node, shape, sizes)


def _unsqueeze(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    axes = _axes(node, optional=False) or ()
    rank = len(shape) + len(axes)
    new = {axis % rank for axis in axes}
    rest = iter(shape)
    return _reshaped(node, shape, tuple(1 if i in new else next(rest) for i in range(rank)))


def _transpose(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    given = listed_attribute(node, "perm")
    permutation = given if given is not None else tuple(reversed(range(len(shape))))
    if sorted(permutation) != list(range(len(shape))):
        msg = f"Transpose {list(permutation)} does not fit its shape {list(shape)}"
        raise NotPrunable(msg)
    return (Transposed(shape, tuple(shape[axis] for axis in permutation), permutation),)


def _slice(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    axes = _listed(node, "axes", 3)
    try:
        starts, ends = _listed(node, "starts", 1) or (), _listed(node, "ends", 2) or ()
        steps = _listed(node, "steps", 4) or (1,) * len(starts)
    except NotPrunable:
        if axes is None or len(axes) != 1:
            raise
        return (_cut_somewhere(shape, axes[0]),)
    axes = axes if axes is not None else tuple(range(len(starts)))
    cuts = [
        (axis % len(shape), start, end, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
        if range(shape[axis])[start:end:step] != range(shape[axis])
    ]
    if not cuts:
        return (Kept(shape, shape),)
    if len(cuts) > 1:
        raise NotPrunable("it is sliced on more than one axis at once")
    axis, start, end, step = cuts[0]
    taken = range(shape[axis])[start:end:step]
    after = (*shape[:axis], len(taken), *shape[axis + 1 :])
    return (Cut(shape, after, axis, taken.start, step),)


def _split(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    axis = node.attributes.get_int("axis", 0) % max(1, len(shape))
    sizes = listed_attribute(node, "split")
    if sizes is None and len(node.inputs) > 1 and node.inputs[1] is not None:
        sizes = _second(node)
        if sizes is None:
            return (_cut_somewhere(shape, axis),) * len(node.outputs)
    if sizes is None:
        size = -(-shape[axis] // len(node.outputs))
        starts = [min(i * size, shape[axis]) for i in range(len(node.outputs) + 1)]
    else:
        starts = np.cumsum([0, *sizes]).tolist()
    return tuple(
        Cut(shape, (*shape[:axis], end - start, *shape[axis + 1 :]), axis, start)
        for start, end in itertools.pairwise(starts)
    )


def _cut_somewhere(shape: Shape, axis: int) -> Move:
    """A part whose place is computed at run time; its size does not matter to a layout."""
    return Cut(shape, shape, axis % len(shape), UNKNOWN)


def _dequantize(node: NodeLike, index: int, shape: Shape) -> tuple[Move, ...]:
    del index
    scale = node.inputs[1] if len(node.inputs) > 1 else None
    zero_point = node.inputs[2] if len(node.inputs) > 2 else None
    axis = node.attributes.get_int("axis", 1)
    if shape:
        axis = axis % len(shape) if -len(shape) <= axis < len(shape) else 0
    block_size = node.attributes.get_int("block_size", 0)
    return (Dequantized(shape, shape, scale, zero_point, axis, block_size),)


def _reshaped(node: NodeLike, before: Shape, after: Shape) -> tuple[Move, ...]:
    if math.prod(after) != math.prod(before) or min(after, default=1) < 0:
        msg = f"{node.op_type} to {list(after)} does not fit its shape {list(before)}"
        raise NotPrunable(msg)
    return (Reshaped(before, after),)


def _second(node: NodeLike) -> tuple[int, ...] | None:
    return integers(node.inputs[1]) if len(node.inputs) > 1 else None


def _axes(node: NodeLike, *, optional: bool) -> tuple[int, ...] | None:
    given = listed_attribute(node, "axes")
    if given is not None:
        return given
    if len(node.inputs) < 2 or node.inputs[1] is None:
        if optional:
            return None
        msg = f"{node.op_type} has no axes"
        raise NotPrunable(msg)
    axes = _second(node)
    if axes is None:
        msg = f"the axes of {node.op_type} are known only at run time"
        raise NotPrunable(msg)
    return axes


def _listed(node: NodeLike, name: str, place: int) -> tuple[int, ...] | None:
    given = listed_attribute(node, name)
    if given is not None:
        return given
    if place >= len(node.inputs) or node.inputs[place] is None:
        return None
    found = integers(node.inputs[place])
    if found is None:
        msg = f"the {name} of {node.op_type} are known only at run time"
        raise NotPrunable(msg)
    return found


CHAIN: dict[tuple[str, str], Rule] = {
    ("", "Identity"): _kept,
    ("", "Cast"): _cast,
    ("", "QuantizeLinear"): _kept,
    ("", "DequantizeLinear"): _dequantize,
    ("com.microsoft", "QuantizeLinear"): _kept,
    ("com.microsoft", "DequantizeLinear"): _dequantize,
    ("", "Reshape"): _reshape,
    ("", "Flatten"): _flatten,
    ("", "Squeeze"): _squeeze,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Transpose"): _transpose,
    ("", "Slice"): _slice,
    ("", "Split"): _split,
}
"""Concat, which needs to know its other inputs, is told by :func:`concatenation`."""
