"""Running sums in a graph: CumSum, or products with a triangle of ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from passes.pack.builder import Builder

BLOCK = 256
"""Elements that one product with a triangle of ones sums up."""

EXACT_FLOAT = 1 << 24
"""Whole numbers up to here are exact in float32."""


def running_sum(
    builder: Builder,
    numbers: ir.Value,
    length: int,
    widest: int,
    bound: int,
    *,
    exclusive: bool = False,
) -> ir.Value:
    """Sums of all elements up to each one, that one left out if ``exclusive``.

    Args:
        builder: takes the nodes.
        numbers: int32 ``(length,)``.
        length: how many.
        widest: the largest magnitude of an element.
        bound: the largest magnitude of a partial sum.
        exclusive: leave out the element itself.
    """
    if builder.cumsum:
        extra = {"exclusive": 1} if exclusive else {}
        return builder.op("CumSum", numbers, builder.number(0), **extra)
    largest = min(bound, widest * BLOCK)
    if length <= BLOCK:
        rows = builder.reshape(numbers, 1, length)
        return builder.reshape(_times_triangle(builder, rows, length, largest, exclusive), length)
    count = -(-length // BLOCK)
    if missing := count * BLOCK - length:
        numbers = builder.op("Concat", numbers, builder.zeros(missing), axis=0)
    rows = builder.reshape(numbers, count, BLOCK)
    sums = _times_triangle(builder, rows, BLOCK, largest, exclusive)
    totals = builder.slice(sums, BLOCK - 1, BLOCK, axis=1)
    if exclusive:
        totals = builder.op("Add", totals, builder.slice(rows, BLOCK - 1, BLOCK, axis=1))
    totals = builder.reshape(totals, count)
    before = running_sum(builder, totals, count, widest * BLOCK, bound, exclusive=True)
    flat = builder.reshape(builder.op("Add", sums, builder.reshape(before, count, 1)), -1)
    return builder.slice(flat, 0, length) if missing else flat


def _times_triangle(
    builder: Builder, rows: ir.Value, size: int, largest: int, exclusive: bool
) -> ir.Value:
    if largest > EXACT_FLOAT:
        return builder.op("MatMul", rows, _triangle(builder, size, exclusive, ir.DataType.INT32))
    triangle = _triangle(builder, size, exclusive, ir.DataType.FLOAT)
    product = builder.op("MatMul", builder.cast(rows, ir.DataType.FLOAT), triangle)
    return builder.cast(product, ir.DataType.INT32)


def _triangle(builder: Builder, size: int, exclusive: bool, dtype: ir.DataType) -> ir.Value:
    """``(size, size)``: one where the row is before the column, or is it unless ``exclusive``."""
    key = ("triangle", size, exclusive, dtype)
    if key not in builder.shared:
        if size < BLOCK:
            square = _triangle(builder, BLOCK, exclusive, dtype)
            part = builder.slice(builder.slice(square, 0, size), 0, size, axis=1)
            builder.shared[key] = part
        else:
            row = builder.cast(builder.every_byte(), ir.DataType.FLOAT)
            column = builder.reshape(row, 1, BLOCK)
            if exclusive:
                ones = builder.op("Less", row, column)
            else:
                ones = builder.op("Not", builder.op("Less", column, row))
            builder.shared[key] = builder.cast(ones, dtype)
    return builder.shared[key]
