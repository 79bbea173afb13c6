"""From a position code to the operators that decode it. Every step has a static shape.

All chains end in a flat array of the stream's elements. ``values`` are those stored, in order; for
a code with ``leading_fill`` one fill value stands before them, so that index 0 means "not stored".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.pack.codes import Delta, PositionCode, QuickDelta, Rice, planes_of
from passes.pack.nested_codes import Nested
from passes.pack.pattern_codes import Blocks, Groups
from passes.pack.sums import running_sum

if TYPE_CHECKING:
    from collections.abc import Mapping

    from passes.pack.builder import Builder


def decode(
    builder: Builder,
    code: PositionCode,
    parts: Mapping[str, ir.Value],
    length: int,
    values: ir.Value,
    base: ir.Value | None,
    sizes: tuple[int, int],
) -> ir.Value:
    """The stream of which ``parts`` are the coded positions.

    Args:
        builder: takes the nodes.
        code: that wrote the parts.
        parts: uint8 arrays by name.
        length: of the bit string.
        values: as above, flat; a row for each block.
        base: the stream with no value stored, for codes that scatter. Without it
            :class:`QuickDelta` puts float32 values, ``(1, 1, stored)``, among zeros by itself.
        sizes: elements of the stream, and values stored.
    """
    if isinstance(code, QuickDelta):
        return _quick_delta(builder, code, parts, values, base, sizes)
    if isinstance(code, (Delta, Rice)):
        assert base is not None
        if isinstance(code, Rice):
            return _rice(builder, code, parts, length, values, base, sizes)
        return _delta(builder, code, parts, values, base, sizes)
    bits = _bits(builder, code, parts, length)
    rank = builder.op("Mul", running_sum(builder, bits, length, 1, length), bits)
    # Each set bit takes the value of its rank, every other one the fill.
    if isinstance(code, Blocks):
        return builder.op("Gather", values, rank)
    return builder.pick(values, rank, length)


def _bits(
    builder: Builder, code: PositionCode, parts: Mapping[str, ir.Value], length: int
) -> ir.Value:
    """A bit for each element or block, of codes that look up what stands there."""
    if isinstance(code, Groups):
        return _group_bits(builder, code, parts, length)
    if isinstance(code, Nested):
        return _nested_bits(builder, code, parts, length)
    return builder.bits(parts["bits"], length)


def _group_bits(
    builder: Builder, code: Groups, parts: Mapping[str, ir.Value], length: int
) -> ir.Value:
    """The bits of each group, from a table of what each byte stands for."""
    table = builder.bit_table(code.table)
    rows = builder.op("Gather", table, builder.cast(parts["groups"], ir.DataType.INT32))
    flat = builder.slice(builder.reshape(rows, -1), 0, length)
    return builder.cast(flat, ir.DataType.INT32)


def _nested_bits(
    builder: Builder, code: Nested, parts: Mapping[str, ir.Value], length: int
) -> ir.Value:
    """Level by level, each group that is not empty takes the row of its rank, others the first."""
    count = code.groups(length)
    bits = builder.bits(parts["outer"], count)
    for level, size in enumerate(code.sizes):
        part = parts[f"level{level}"]
        assert part.shape is not None
        whole = part.shape.numpy()[0] * 8 // size  # rows; bits of padding may make one more
        rows = builder.reshape(builder.bits(part, whole * size), whole, size)
        rank = running_sum(builder, bits, count, 1, count)
        bits = builder.reshape(builder.op("Gather", rows, builder.op("Mul", rank, bits)), -1)
        count *= size
    return builder.slice(bits, 0, length) if count != length else bits


def _delta(
    builder: Builder,
    code: Delta,
    parts: Mapping[str, ir.Value],
    values: ir.Value,
    base: ir.Value,
    sizes: tuple[int, int],
) -> ir.Value:
    elements, stored = sizes
    steps = builder.fields(_planes(parts, "step", code.bits), planes_of(code.bits))
    position = running_sum(builder, steps, stored, 1 << code.bits, elements)
    return builder.scatter(base, position, values)


def _quick_delta(
    builder: Builder,
    code: QuickDelta,
    parts: Mapping[str, ir.Value],
    values: ir.Value,
    base: ir.Value | None,
    sizes: tuple[int, int],
) -> ir.Value:
    """As few and as narrow arrays as can be: what onnxruntime folds it copies, in and out.

    Fields are shifted out of bytes and stay bytes until MatMulInteger adds up their planes.
    MaxUnpool needs no base and is the quickest to place values, but knows float32 and 0.0 alone.
    How much it makes is said by its kernel: onnxruntime folds nothing whose size is an input.
    """
    elements, stored = sizes
    pieces = [
        piece
        for number, width in enumerate(planes_of(code.bits))
        for piece in _shifted_out(builder, parts[f"step{number}"], width)
    ]
    planes = planes_of(code.bits)
    together = builder.op("Concat", *pieces, axis=0) if len(pieces) > 1 else pieces[0]
    rows = builder.reshape(together, 1, len(planes), stored)
    if len(planes) > 1:
        weights = np.array([[1 << sum(planes[:at]) for at in range(len(planes))]], np.uint8)
        steps = builder.op("MatMulInteger", builder.constant(weights), rows)
    else:
        steps = builder.cast(rows, ir.DataType.INT32)
    if base is not None:
        flat = builder.reshape(steps, stored)
        position = running_sum(builder, flat, stored, 1 << code.bits, elements)
        return builder.scatter(base, position, values)
    position = builder.op("CumSum", steps, builder.number(2))
    return builder.op(
        "MaxUnpool",
        values,
        builder.cast(position, ir.DataType.INT64),
        kernel_shape=[elements - stored + 1],
    )


def _shifted_out(builder: Builder, plane: ir.Value, width: int) -> list[ir.Value]:
    """The fields of each byte of a plane, lowest first, as arrays of uint8."""
    if width == 8:
        return [plane]
    pieces = []
    for above in range(8 - width, -1, -width):
        byte = plane
        if above:
            byte = builder.op("BitShift", byte, builder.shift(above), direction="LEFT")
        pieces.append(builder.op("BitShift", byte, builder.shift(8 - width), direction="RIGHT"))
    return pieces


def _rice(
    builder: Builder,
    code: Rice,
    parts: Mapping[str, ir.Value],
    length: int,
    values: ir.Value,
    base: ir.Value,
    sizes: tuple[int, int],
) -> ir.Value:
    """Each bit of the unary string has a place in the stream, so no bit need be searched for.

    A one advances by its low field + 1, to the place of its value; a zero by 2^low, to the last of
    the elements that it skips, none of which is stored, so that writing the fill there does no
    harm. Field 0 stands for all zeros: it holds 2^low - 1.
    """
    elements, stored = sizes
    bits = builder.bits(parts["unary"], length)
    rank = running_sum(builder, bits, length, 1, stored)
    number = builder.op("Mul", rank, bits)
    fields = builder.fields(_planes(parts, "low", code.low), planes_of(code.low), plus=1)
    advance = builder.pick(fields, number, length)
    after = running_sum(builder, advance, length, 1 << code.low, elements)
    place = builder.op("Add", after, builder.number(-1))
    return builder.scatter(base, place, builder.pick(values, number, length))


def _planes(parts: Mapping[str, ir.Value], name: str, width: int) -> list[ir.Value]:
    return [parts[f"{name}{number}"] for number in range(len(planes_of(width)))]
