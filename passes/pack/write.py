"""A planned stream as initializers and nodes of a graph."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from hwmodel.bits import width_of
from passes.pack.builder import Builder, Names
from passes.pack.chains import decode
from passes.pack.codes import Delta, QuickDelta, Rice, alignment, planes_of, to_planes
from passes.pack.pattern_codes import Blocks
from passes.pack.plan import Stream, make_item
from passes.pack.values import Prepared, nearest

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from passes.pack.codes import Coded, PositionCode
    from passes.pack.plan import Item


def write_stream(builder: Builder, stream: Stream) -> list[ir.Value]:
    """Write the chain of a stream; the rebuilt weights, in the order of its items."""
    coded = stream.code.encode(stream.positions)
    first = stream.items[0]
    dtype = ir.DataType.from_numpy(first.array.dtype)
    elements = stream.positions.elements
    parts = {name: builder.data(array) for name, array in coded.arrays.items()}
    if first.prepared.codebook is None:
        values, stored = _plain_values(builder, stream, coded, dtype)
    else:
        values, stored = _codebook_values(builder, stream, first.prepared.codebook)
    base = None
    if isinstance(stream.code, (Delta, Rice)) and not _pooled(stream, dtype):
        base = builder.filled(elements, first.fill, dtype)
    flat = decode(builder, stream.code, parts, coded.length, values, base, (elements, stored))
    pieces = [flat]
    if len(stream.items) > 1:
        pieces = list(builder.split(flat, [item.array.size for item in stream.items]))
    return [_finish(builder, piece, item) for piece, item in zip(pieces, stream.items, strict=True)]


@functools.cache
def chain_bytes(code: PositionCode, opset: int, cumsum: bool) -> int:
    """What a chain of this code costs in the file beside its arrays.

    Measured: the chain of a middling weight is written into an empty model.
    """
    array = np.zeros((256, 256), np.float32)
    array.ravel()[::16] = 1
    unit = 16 if isinstance(code, Blocks) else 1
    item = make_item("", Prepared(array), ir.DataType.FLOAT, [code], unit=unit)
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset})
    model = ir.Model(graph, ir_version=8)
    empty = len(ir.to_proto(model).SerializeToString())
    builder = Builder(graph, opset, Names(model), cumsum)
    stream = Stream(code, (item,))
    write_stream(builder, stream)
    builder.finish()
    coded = code.encode(stream.positions)
    arrays = sum(part.nbytes for part in coded.arrays.values())
    values = (coded.source.size + code.leading_fill) * array.itemsize * unit
    return len(ir.to_proto(model).SerializeToString()) - empty - arrays - values


def _pooled(stream: Stream, dtype: ir.DataType) -> bool:
    """Whether MaxUnpool puts the values in place."""
    return isinstance(stream.code, QuickDelta) and dtype == ir.DataType.FLOAT


def _plain_values(
    builder: Builder, stream: Stream, coded: Coded, dtype: ir.DataType
) -> tuple[ir.Value, int]:
    fill = stream.items[0].fill
    stored: NDArray[Any] = stream.values[coded.source]
    stored[coded.source < 0] = fill
    if stream.code.leading_fill:
        stored = np.concatenate([np.full_like(stored[:1], fill), stored])
    if _pooled(stream, dtype):
        return builder.data(stored.reshape(1, 1, -1), dtype), len(stored)
    return builder.data(stored, dtype), len(stored)


def _codebook_values(
    builder: Builder, stream: Stream, codebook: NDArray[Any]
) -> tuple[ir.Value, int]:
    """Which entry of the codebook each value is, packed to the bit; the fill stands before them."""
    entries = nearest(codebook, stream.values)
    width = max(1, width_of(codebook.size))
    padded = np.zeros(entries.size + -entries.size % alignment(width), np.int64)
    padded[: entries.size] = entries
    planes = [builder.data(array) for array in to_planes("", padded, width).values()]
    index = builder.fields(planes, planes_of(width))
    fill = stream.items[0].fill.reshape(1)
    book = builder.data(codebook, ir.DataType.from_numpy(codebook.dtype))
    values = builder.op(
        "Concat", builder.constant(fill), builder.pick(book, index, entries.size), axis=0
    )
    return values, entries.size + 1


def _finish(builder: Builder, flat: ir.Value, item: Item) -> ir.Value:
    shaped = flat
    for kind, argument in item.steps:
        if kind == "reshape":
            shaped = builder.reshape(shaped, *argument)
        else:
            shaped = builder.op("Transpose", shaped, perm=list(argument))
    if item.prepared.scale is not None:
        wide = builder.cast(shaped, item.dtype)
        return builder.op("Mul", wide, builder.data(item.prepared.scale, item.dtype))
    if item.dtype != ir.DataType.from_numpy(item.array.dtype):
        return builder.cast(shaped, item.dtype)
    return shaped
