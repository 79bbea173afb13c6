"""Small models with one weight, for every operator that reads one: what the layout tests draw from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, helper, numpy_helper

GROUP, ROW, COLUMN = 0, 1, 2
MS = "com.microsoft"


@dataclass
class Case:
    """A node that reads ``W`` and ``x``, and what the axes of ``W`` mean to it.

    Attributes:
        node: reads "W" and "x", writes "y".
        shape: of ``W`` at the node.
        data: shape of ``x``.
        roles: group, row and column number of every element of ``W``, each of its shape.
        extra: further initializers.
    """

    node: object
    shape: tuple[int, ...]
    data: tuple[int, ...]
    roles: tuple[np.ndarray, np.ndarray, np.ndarray]
    extra: dict[str, np.ndarray]


def merge(shape: tuple[int, ...], *axes: int) -> np.ndarray:
    """One number for the position on some axes, for every element of an array."""
    grids = np.indices(shape)
    chosen = tuple(grids[axis] for axis in axes)
    sizes = tuple(shape[axis] for axis in axes)
    return np.ravel_multi_index(chosen, sizes) if axes else np.zeros(shape, int)


def conv(draw: Callable[[int, int], int], rank: int) -> Case:
    groups, inputs, outputs = draw(1, 3), draw(1, 3), draw(1, 3)
    kernel = tuple(draw(1, 3) for _ in range(rank))
    shape = (groups * outputs, inputs, *kernel)
    node = helper.make_node("Conv", ["x", "W"], ["y"], "op", group=groups)
    channel = np.indices(shape)[0]
    roles = (channel // outputs, channel % outputs, merge(shape, *range(1, rank + 2)))
    return Case(node, shape, (1, groups * inputs, *(4 for _ in kernel)), roles, {})


def conv_transpose(draw: Callable[[int, int], int], rank: int) -> Case:
    groups, inputs, outputs = draw(1, 3), draw(1, 3), draw(1, 3)
    kernel = tuple(draw(1, 3) for _ in range(rank))
    shape = (groups * inputs, outputs, *kernel)
    node = helper.make_node("ConvTranspose", ["x", "W"], ["y"], "op", group=groups)
    channel = np.indices(shape)[0]
    taps = merge(shape, *range(2, rank + 2))
    column = channel % inputs * math.prod(kernel) + taps
    roles = (channel // inputs, np.indices(shape)[1], column)
    return Case(node, shape, (1, groups * inputs, *(3 for _ in kernel)), roles, {})


def gemm(draw: Callable[[int, int], int], left: int) -> Case:
    rows, columns, others, flip = draw(1, 5), draw(1, 5), draw(1, 4), draw(0, 1)
    stored_rows_first = bool(flip) != bool(left)
    shape = (rows, columns) if stored_rows_first else (columns, rows)
    names = ["W", "x"] if left else ["x", "W"]
    data = (columns, others) if left else (others, columns)
    node = helper.make_node(
        "Gemm", names, ["y"], "op", alpha=0.5, **{"transA" if left else "transB": flip}
    )
    grid = np.indices(shape)
    row, column = (grid[0], grid[1]) if stored_rows_first else (grid[1], grid[0])
    return Case(node, shape, data, (np.zeros(shape, int), row, column), {})


def matmul(draw: Callable[[int, int], int], left: int) -> Case:
    stack = tuple(draw(1, 3) for _ in range(draw(0, 2)))
    rows, columns, others = draw(1, 4), draw(1, 4), draw(1, 4)
    shape = (*stack, rows, columns) if left else (*stack, columns, rows)
    data = (*stack, columns, others) if left else (*stack, others, columns)
    node = helper.make_node("MatMul", ["W", "x"] if left else ["x", "W"], ["y"], "op")
    grid, last = np.indices(shape), len(shape) - 1
    row, column = (grid[last - 1], grid[last]) if left else (grid[last], grid[last - 1])
    return Case(node, shape, data, (merge(shape, *range(last - 1)), row, column), {})


def fused_matmul(draw: Callable[[int, int], int], left: int) -> Case:
    """transBatch brings the axis before the stack behind it."""
    stack, rows, columns, others = draw(1, 3), draw(1, 4), draw(1, 4), draw(1, 4)
    flip, batch, side = draw(0, 1), draw(0, 1), "A" if left else "B"
    rows_first = bool(flip) != bool(left)
    matrix = (rows, columns) if rows_first else (columns, rows)
    shape = (matrix[0], stack, matrix[1]) if batch else (stack, *matrix)
    data = (stack, columns, others) if left else (stack, others, columns)
    node = helper.make_node(
        "FusedMatMul",
        ["W", "x"] if left else ["x", "W"],
        ["y"],
        "op",
        domain=MS,
        **{f"trans{side}": flip, f"transBatch{side}": batch},
    )
    grid = np.indices(shape)
    first, group = (grid[0], grid[1]) if batch else (grid[1], grid[0])
    row, column = (first, grid[2]) if rows_first else (grid[2], first)
    return Case(node, shape, data, (group, row, column), {})


def einsum(draw: Callable[[int, int], int], left: int) -> Case:
    batch, rows, extra, columns = draw(1, 3), draw(1, 3), draw(1, 2), draw(1, 3)
    sizes = {"b": batch, "r": rows, "s": extra, "c": columns, "t": 2}
    letters = ["brsc", "cbr", "rc", "sbcr", "rsc"][draw(0, 4)]
    other = "tc" + ("b" if "b" in letters else "")
    result = "".join(x for x in "btrs" if x in letters + other)
    pair = f"{letters},{other}" if left else f"{other},{letters}"
    node = helper.make_node(
        "Einsum", ["W", "x"] if left else ["x", "W"], ["y"], "op", equation=f"{pair}->{result}"
    )
    shape = tuple(sizes[x] for x in letters)
    place = letters.index
    roles = (
        merge(shape, *([place("b")] if "b" in letters else [])),
        merge(shape, *(place(x) for x in letters if x in "rs")),
        merge(shape, place("c")),
    )
    return Case(node, shape, tuple(sizes[x] for x in other), roles, {})


def recurrent(draw: Callable[[int, int], int], op_type: str, recurrence: int) -> Case:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    directions, hidden, inputs = draw(1, 2), draw(1, 3), draw(1, 4)
    columns = hidden if recurrence else inputs
    shape = (directions, gates * hidden, columns)
    rng = np.random.default_rng(0)
    other = (directions, gates * hidden, inputs if recurrence else hidden)
    names = ["x", "V", "W"] if recurrence else ["x", "W", "V"]
    node = helper.make_node(
        op_type,
        names,
        ["y"],
        "op",
        hidden_size=hidden,
        direction="bidirectional" if directions == 2 else "forward",
    )
    grid = np.indices(shape)
    group = grid[0] * gates + grid[1] // hidden
    extra = {"V": rng.standard_normal(other).astype(np.float32)}
    return Case(node, shape, (3, 2, inputs), (group, grid[1] % hidden, grid[2]), extra)


def attention(draw: Callable[[int, int], int]) -> Case:
    heads, size, inputs = draw(1, 2), draw(1, 2), draw(1, 4)
    shape = (inputs, 3 * heads * size)
    bias = {"bias": np.zeros(shape[1], np.float32)}
    node = helper.make_node(
        "Attention", ["x", "W", "bias"], ["y"], "op", domain=MS, num_heads=heads
    )
    grid = np.indices(shape)
    return Case(node, shape, (1, 3, inputs), (np.zeros(shape, int), grid[1], grid[0]), bias)


FAMILIES: dict[str, Callable[[Callable[[int, int], int]], Case]] = {
    "Conv 1-D": lambda draw: conv(draw, 1),
    "Conv 2-D": lambda draw: conv(draw, 2),
    "Conv 3-D": lambda draw: conv(draw, 3),
    "ConvTranspose 1-D": lambda draw: conv_transpose(draw, 1),
    "ConvTranspose 2-D": lambda draw: conv_transpose(draw, 2),
    "Gemm left": lambda draw: gemm(draw, 1),
    "Gemm right": lambda draw: gemm(draw, 0),
    "MatMul left": lambda draw: matmul(draw, 1),
    "MatMul right": lambda draw: matmul(draw, 0),
    "FusedMatMul left": lambda draw: fused_matmul(draw, 1),
    "FusedMatMul right": lambda draw: fused_matmul(draw, 0),
    "Einsum left": lambda draw: einsum(draw, 1),
    "Einsum right": lambda draw: einsum(draw, 0),
    "LSTM W": lambda draw: recurrent(draw, "LSTM", 0),
    "LSTM R": lambda draw: recurrent(draw, "LSTM", 1),
    "GRU W": lambda draw: recurrent(draw, "GRU", 0),
    "GRU R": lambda draw: recurrent(draw, "GRU", 1),
    "RNN W": lambda draw: recurrent(draw, "RNN", 0),
    "RNN R": lambda draw: recurrent(draw, "RNN", 1),
    "Attention": attention,
}


def ints(name: str, *numbers: int):
    return numpy_helper.from_array(np.array(numbers, np.int64), name)


@dataclass
class Link:
    """A node of a chain, its initializers, and what it does, in numpy."""

    node: object
    initializers: list
    forward: Callable[[np.ndarray], np.ndarray]


def draw_chain(
    draw: Callable[[int, int], int], shape: tuple[int, ...], output: str
) -> tuple[list[Link], tuple[int, ...], str]:
    """Links that end in ``output`` of ``shape``; also the shape that goes in, and its name.

    Drawn backwards: each link is the inverse of a step from ``shape`` to another shape.
    """
    links: list[Link] = []
    name = output
    for number in range(draw(0, 3)):
        source = f"c{number}"
        link, shape = _draw_link(draw, shape, source, name)
        links.insert(0, link)
        name = source
    return links, shape, name


def _draw_link(draw, shape, source, target):
    kinds = (_transpose, _reshape, _squeeze, _unsqueeze, _slice, _split, _cast, _identity)
    kind = kinds[draw(0, len(kinds) - 1)]
    if kind is _unsqueeze and (1 not in shape or len(shape) == 1):
        kind = _identity
    return kind(draw, shape, source, target)


def _node(op_type, source, target, *more, **attributes):
    return helper.make_node(op_type, [source, *more], [target], f"to_{target}", **attributes)


def _transpose(draw, shape, source, target):
    order = list(range(len(shape)))
    for i in range(len(shape) - 1, 0, -1):
        j = draw(0, i)
        order[i], order[j] = order[j], order[i]
    before = tuple(shape[order.index(i)] for i in range(len(shape)))
    node = _node("Transpose", source, target, perm=order)
    return Link(node, [], lambda a: a.transpose(order)), before


def _reshape(draw, shape, source, target):
    place = draw(0, len(shape) - 1)
    before = (*shape[:place], math.prod(shape[place : place + 2]), *shape[place + 2 :])
    sizes = ints(f"{source}.shape", *shape)
    node = _node("Reshape", source, target, sizes.name)
    return Link(node, [sizes], lambda a: a.reshape(shape)), before


def _squeeze(draw, shape, source, target):
    place = draw(0, len(shape))
    axes = ints(f"{source}.axes", place)
    node = _node("Squeeze", source, target, axes.name)
    return Link(node, [axes], lambda a: a.reshape(shape)), (*shape[:place], 1, *shape[place:])


def _unsqueeze(draw, shape, source, target):
    place = shape.index(1)
    axes = ints(f"{source}.axes", place)
    node = _node("Unsqueeze", source, target, axes.name)
    return Link(node, [axes], lambda a: a.reshape(shape)), (*shape[:place], *shape[place + 1 :])


def _slice(draw, shape, source, target):
    axis, extra = draw(0, len(shape) - 1), draw(1, 2)
    start = shape[axis] * draw(0, extra)
    end = start + shape[axis]
    named = (("starts", start), ("ends", end), ("axes", axis))
    given = [ints(f"{source}.{part}", number) for part, number in named]
    cut = (*(slice(None),) * axis, slice(start, end))
    node = _node("Slice", source, target, *(g.name for g in given))
    before = (*shape[:axis], shape[axis] * (1 + extra), *shape[axis + 1 :])
    return Link(node, given, lambda a: a[cut]), before


def _split(draw, shape, source, target):
    axis = draw(0, len(shape) - 1)
    before = (*shape[:axis], shape[axis] * 2, *shape[axis + 1 :])
    sizes = ints(f"{source}.split", shape[axis], shape[axis])
    outputs = [target, f"{target}.rest"]
    node = helper.make_node("Split", [source, sizes.name], outputs, f"to_{target}", axis=axis)
    return Link(node, [sizes], lambda a: np.split(a, 2, axis)[0]), before


def _cast(draw, shape, source, target):
    return Link(_node("Cast", source, target, to=TensorProto.FLOAT), [], lambda a: a), shape


def _identity(draw, shape, source, target):
    return Link(_node("Identity", source, target), [], lambda a: a), shape
