"""The pass that replaces sparse initializers by chains that rebuild them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.pack.builder import Builder, Names
from passes.pack.chains import decode
from passes.pack.marks import Marks, read_marks
from passes.pack.plan import AUTO, Stream, codes_for, make_item, plan_streams

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.pack.codes import PositionCode
    from passes.pack.plan import Item

MIN_OPSET = 7
"""Older opsets have no broadcasting as it is today."""

CUMSUM_OPSET = 11

MODERN_OPSET = 13

MODEL_BYTES = 1500
"""About what the chains of small weights cost in a file beside their arrays."""

MIN_ELEMENTS = 64
"""Smaller constants stay as they are."""

FOLD_LIMIT_BYTES = 1 << 30
"""onnxruntime folds no node whose output is larger, unless the session option says so."""

PACKABLE = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.UINT8,
)


@dataclass(frozen=True)
class PackWeightsPass(ir.passes.InPlacePass):
    """Replaces each initializer that gets smaller by it with a chain that rebuilds it bit for bit.

    The rebuilt value keeps the initializer's name. Those that would not get smaller stay dense.

    Attributes:
        positions: the kind of position code, ``bitmask``, ``delta`` or ``rice``; with ``auto`` each
            weight takes the one of fewest bytes.
    """

    positions: str = AUTO

    def requires(self, model: ir.Model) -> None:
        """The opset broadcasts as it does today."""
        opset = model.opset_imports.get("", 0)
        if opset < MIN_OPSET:
            msg = (
                f"the model has opset {opset}, and rebuilding packed weights needs opset "
                f"{MIN_OPSET} or later: let it be converted with --opset, 13 for instance"
            )
            raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pack; ``modified`` is True when any initializer was."""
        if read_marks(model) is not None:
            return ir.passes.PassResult(model, modified=False)
        names = Names(model)
        opset = model.opset_imports.get("", 0)
        places = {}
        for number, graph in enumerate(model.graphs()):
            builder = Builder(graph, opset, names, opset >= CUMSUM_OPSET)
            places[number] = _pack_graph(builder, self.positions, model.ir_version)
        places = {number: found for number, found in places.items() if found}
        if places:
            Marks(names.prefix, places).write(model)
            _drop_constant_inputs(model)
        modified = bool(places)
        return ir.passes.PassResult(model, modified)


def packed_bytes(array: NDArray[Any]) -> float:
    """What a weight with these values adds to a packed model, packed or dense as is smaller.

    Its share of a stream whose chain (:data:`MODEL_BYTES`) is counted once for the model; for the
    opsets of today.
    """
    item = make_item("", array, codes_for(MODERN_OPSET))
    return min(float(array.nbytes), *(item.bytes_under(code) for code in item.costs))


@functools.cache
def chain_bytes(code: PositionCode, opset: int, cumsum: bool) -> int:
    """What a chain of this code costs in the file beside its arrays.

    Measured: the chain of a middling weight is written into an empty model.
    """
    array = np.zeros((256, 256), np.float32)
    array.ravel()[:: 1 << 4] = 1
    item = make_item("", array, [code])
    graph = ir.Graph([], [], nodes=[], opset_imports={"": opset})
    model = ir.Model(graph, ir_version=8)
    empty = len(ir.to_proto(model).SerializeToString())
    builder = Builder(graph, opset, Names(model), cumsum)
    _write_stream(builder, Stream(code, (item,)), ir.DataType.FLOAT)
    builder.finish()
    coded = code.encode(Stream(code, (item,)).positions)
    arrays = sum(part.nbytes for part in coded.arrays.values())
    values = (coded.source.size + code.leading_fill) * array.itemsize
    return len(ir.to_proto(model).SerializeToString()) - empty - arrays - values


def _pack_graph(builder: Builder, positions: str, ir_version: int | None) -> tuple[int, ...]:
    """Pack the initializers of a graph; the places where those that were packed stood."""
    graph = builder.graph
    order = {name: place for place, name in enumerate(graph.initializers)}
    values = {
        name: value for name, value in graph.initializers.items() if _may_pack(value, ir_version)
    }
    costs = {
        code: chain_bytes(code, builder.opset, builder.cumsum)
        for code in codes_for(builder.opset, positions)
    }
    items = [make_item(name, _array(value), costs) for name, value in values.items()]
    rebuilt: dict[str, ir.Value] = {}
    for stream in plan_streams(items, costs):
        tensor = values[stream.items[0].name].const_value
        assert tensor is not None
        new = _write_stream(builder, stream, tensor.dtype)
        rebuilt |= zip((item.name for item in stream.items), new, strict=True)
    for name, new_value in rebuilt.items():
        _replace(graph, values[name], new_value)
    builder.finish()
    return tuple(sorted(order[name] for name in rebuilt))


def _may_pack(value: ir.Value, ir_version: int | None) -> bool:
    tensor = value.const_value
    if tensor is None or tensor.dtype not in PACKABLE or tensor.size < MIN_ELEMENTS:
        return False
    if len(tensor.shape) < 2 or tensor.nbytes > FOLD_LIMIT_BYTES or not value.uses():
        return False
    if value.is_graph_output():
        return False
    # From IR version 4 on the caller may give another value when the model runs.
    return not (value.is_graph_input() and (ir_version or 0) >= 4)


def _array(value: ir.Value) -> NDArray[Any]:
    assert value.const_value is not None
    return value.const_value.numpy()


def _write_stream(builder: Builder, stream: Stream, dtype: ir.DataType) -> list[ir.Value]:
    """Write the chain of a stream; the rebuilt weights, in the order of its items."""
    coded = stream.code.encode(stream.positions)
    fill = stream.items[0].fill
    stored = np.where(coded.source < 0, fill, stream.values[coded.source])
    stored = stored.astype(fill.dtype, copy=False)
    if stream.code.leading_fill:
        stored = np.concatenate([fill.reshape(1), stored])
    elements = stream.positions.elements
    parts = {name: builder.data(array) for name, array in coded.arrays.items()}
    values = builder.data(stored, dtype)
    base = None if "bits" in parts else builder.filled(elements, fill, dtype)
    flat = decode(builder, stream.code, parts, coded.length, values, base, (elements, stored.size))
    pieces = [flat]
    if len(stream.items) > 1:
        pieces = list(builder.split(flat, [item.array.size for item in stream.items]))
    return [_shaped(builder, piece, item) for piece, item in zip(pieces, stream.items, strict=True)]


def _shaped(builder: Builder, flat: ir.Value, item: Item) -> ir.Value:
    return builder.reshape(flat, *item.array.shape)


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """``new`` takes the name and the place of the initializer ``old``."""
    name = old.name
    assert name is not None
    graph.initializers.pop(name)
    if old.is_graph_input():
        graph.inputs.remove(old)
    old.name = None
    new.name, new.type, new.shape = name, old.type, old.shape
    old.replace_all_uses_with(new)


def _drop_constant_inputs(model: ir.Model) -> None:
    """Before IR version 4 constants had to be listed as inputs; what chains read is not."""
    if (model.ir_version or 0) >= 4:
        return
    model.ir_version = 4
    graph = model.graph
    for value in [value for value in graph.inputs if value.is_initializer()]:
        graph.inputs.remove(value)
