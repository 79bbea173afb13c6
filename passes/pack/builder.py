"""Writing decoding steps into a graph: operators as the opset has them, helpers shared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.pack.scopes import scopes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MANY = 1 << 20
"""From so many elements on a slow operator is felt when a model is loaded."""

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Names:
    """Short names under one prefix that no name of the model begins with: ``~0``, ``~1``, ..."""

    def __init__(self, model: ir.Model) -> None:
        taken = set(_all_names(model))
        self.prefix = "~"
        while any(name.startswith(self.prefix) for name in taken):
            self.prefix += "~"
        self._count = 0

    def new(self) -> str:
        """A name that was not given before."""
        number, text = self._count, ""
        self._count += 1
        while number or not text:
            number, digit = divmod(number, 36)
            text = DIGITS[digit] + text
        return self.prefix + text


@dataclass(eq=False)
class Builder:
    """Collects the nodes and initializers of decoding chains for one graph.

    Attributes:
        graph: where :meth:`finish` puts them, in front of all nodes.
        opset: of the model; decides which form of an operator is written.
        names: gives names.
        in_function: whether the graph is a function's body, where data stands in Constant nodes.
        shared: what several chains read, by what it is.
        cumsum: whether running sums are made by CumSum; else by products with a triangle of ones,
            which old opsets have and OpenVINO folds.
    """

    graph: ir.Graph
    opset: int
    names: Names
    cumsum: bool = True
    in_function: bool = False
    nodes: list[ir.Node] = field(default_factory=list)
    _constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = field(default_factory=dict)
    shared: dict[Any, ir.Value] = field(default_factory=dict)

    def op(self, op_type: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        """One node with one output."""
        return self.node(op_type, inputs, 1, attributes)[0]

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        outputs: int,
        attributes: dict[str, Any],
        domain: str = "",
    ) -> Sequence[ir.Value]:
        """One node; its outputs get new names."""
        new = ir.node(op_type, list(inputs), attributes, num_outputs=outputs, domain=domain)
        for value in new.outputs:
            value.name = self.names.new()
        self.nodes.append(new)
        return new.outputs

    def data(self, array: NDArray[Any], dtype: ir.DataType | None = None) -> ir.Value:
        """An initializer of its own; in a function a Constant node."""
        if self.in_function:
            stored = ir.tensor(np.asarray(array, order="C"), dtype=dtype)
            made = self.op("Constant", value=stored)
            made.shape, made.type = ir.Shape(array.shape), ir.TensorType(stored.dtype)
            return made
        tensor = ir.tensor(np.asarray(array, order="C"), dtype=dtype, name=self.names.new())
        value = ir.Value(
            name=tensor.name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def constant(self, array: NDArray[Any]) -> ir.Value:
        """A small initializer that all chains share."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.data(array)
        return self._constants[key]

    def ints(self, *numbers: int) -> ir.Value:
        """Shared int64 ``(len,)``: shapes, bounds, axes."""
        return self.constant(np.array(numbers, np.int64))

    def number(self, number: int) -> ir.Value:
        """A shared int32 scalar."""
        return self.constant(np.array(number, np.int32))

    def shift(self, bits: int) -> ir.Value:
        """A shared uint8 scalar."""
        return self.constant(np.array(bits, np.uint8))

    def finish(self) -> None:
        """Put what was collected in front of the graph."""
        if len(self.graph):
            self.graph.insert_before(self.graph[0], self.nodes)
        else:
            self.graph.extend(self.nodes)
        for node in self.nodes:
            node.name = None  # the graph has named them; in the file that is bytes for nothing

    def shared_nodes(self) -> set[ir.Node]:
        """The nodes that make what several chains read."""
        found: set[ir.Node] = set()
        waiting = [value.producer() for value in self.shared.values()]
        while waiting:
            node = waiting.pop()
            if node is not None and node not in found:
                found.add(node)
                waiting += [value.producer() for value in node.inputs if value is not None]
        return found

    # What opsets differ in.

    def slice(self, value: ir.Value, start: int, end: int, axis: int = 0) -> ir.Value:
        """``value[start:end]`` along an axis."""
        if self.opset < 10:
            return self.op("Slice", value, axes=[axis], starts=[start], ends=[end])
        bounds = [self.ints(start), self.ints(end)]
        return self.op("Slice", value, *bounds, *([self.ints(axis)] if axis else []))

    def split(self, value: ir.Value, sizes: Sequence[int]) -> Sequence[ir.Value]:
        """Pieces of these sizes along the first axis."""
        if self.opset < 13:
            return self.node("Split", [value], len(sizes), {"axis": 0, "split": list(sizes)})
        return self.node("Split", [value, self.ints(*sizes)], len(sizes), {})

    def reshape(self, value: ir.Value, *shape: int) -> ir.Value:
        """The same elements in another shape."""
        return self.op("Reshape", value, self.ints(*shape))

    def cast(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        """The same numbers in another dtype."""
        return self.op("Cast", value, to=dtype)

    def pick(self, values: ir.Value, index: ir.Value, count: int) -> ir.Value:
        """``values[index]``, both flat, ``count`` of them.

        onnxruntime's GatherElements is 20 times faster at it than its Gather (0.6 and 15 ns an
        element), so it is taken where that matters; OpenVINO folds Gather only, and onnx's reference
        evaluator has GatherElements for few elements only.
        """
        if self.cumsum and count > MANY:
            return self.op("GatherElements", values, index)
        return self.op("Gather", values, index)

    def scatter(self, base: ir.Value, index: ir.Value, values: ir.Value) -> ir.Value:
        """``base`` with ``values`` at ``index``, all flat."""
        return self.op("Scatter" if self.opset < 11 else "ScatterElements", base, index, values)

    def filled(self, elements: int, fill: NDArray[Any], dtype: ir.DataType) -> ir.Value:
        """``elements`` times the scalar ``fill``; shared, for runtimes only read it."""
        key = ("filled", elements, dtype, fill.tobytes())
        if key not in self.shared:
            size = self.ints(elements)
            if dtype == ir.DataType.BFLOAT16:  # onnxruntime has no Expand for it
                wide = self.op("Expand", self.constant(fill.astype(np.float32)), size)
                self.shared[key] = self.cast(wide, dtype)
            else:
                self.shared[key] = self.op("Expand", self.constant(fill), size)
        return self.shared[key]

    def zeros(self, elements: int) -> ir.Value:
        """int32 zeros ``(elements,)``, shared."""
        if self.opset < 8:  # no Expand
            return self.constant(np.zeros(elements, np.int32))
        return self.filled(elements, np.zeros((), np.int32), ir.DataType.INT32)

    # Bits and fields.

    def bits(self, packed: ir.Value, length: int) -> ir.Value:
        """The first ``length`` bits of uint8 ``packed``, least significant first: int32."""
        rows = self.op("Gather", self._byte_table(), self.cast(packed, ir.DataType.INT32))
        flat = self.reshape(rows, -1)
        if length % 8:
            flat = self.slice(flat, 0, length)
        return self.cast(flat, ir.DataType.INT32)

    def fields(self, planes: Sequence[ir.Value], widths: Sequence[int], plus: int = 0) -> ir.Value:
        """Fields whose planes, of these widths, are given lowest bits first; ``plus`` added to each."""
        total, shift = None, 0
        for plane, width in zip(planes, widths, strict=True):
            numbers = self.cast(plane, ir.DataType.INT32)
            if width < 8:
                table = self._table(width, shift, 0 if total else plus)
                part = self.reshape(self.op("Gather", table, numbers), -1)
            else:
                part = self.op("Mul", numbers, self.number(1 << shift)) if shift else numbers
                if plus and not total:
                    part = self.op("Add", part, self.number(plus))
            total = self.op("Add", total, part) if total else part
            shift += width
        assert total is not None
        return total

    def _table(self, width: int, shift: int = 0, plus: int = 0) -> ir.Value:
        """``(256, 8 / width)``: the fields in each byte, times ``2^shift``, plus ``plus``; int32."""
        key = ("table", width, shift, plus)
        if key not in self.shared:
            if shift or plus:
                table = self._table(width)
                if shift:
                    table = self.op("Mul", table, self.number(1 << shift))
                if plus:
                    table = self.op("Add", table, self.number(plus))
            else:
                starts = np.array([1 << at for at in range(0, 8, width)], np.int32)
                fields = self.op("Div", self.every_byte(), self.constant(starts))
                above = self.op("Div", fields, self.number(1 << width))
                table = self.op("Sub", fields, self.op("Mul", above, self.number(1 << width)))
            self.shared[key] = table
        return self.shared[key]

    def bit_table(self, table: NDArray[np.bool_]) -> ir.Value:
        """A shared table of bits as uint8, stored eight to a byte."""
        key = ("bit table", table.shape, table.tobytes())
        if key not in self.shared:
            packed = self.constant(np.packbits(table.ravel(), bitorder="little"))
            flat = self.cast(self.bits(packed, table.size), ir.DataType.UINT8)
            self.shared[key] = self.reshape(flat, *table.shape)
        return self.shared[key]

    def _byte_table(self) -> ir.Value:
        """The bits of each byte as uint8: a quarter of the memory of int32 where there are many."""
        key = "byte table"
        if key not in self.shared:
            self.shared[key] = self.cast(self._table(1), ir.DataType.UINT8)
        return self.shared[key]

    def every_byte(self) -> ir.Value:
        """0 to 255 in a column, int32."""
        key = "every byte"
        if key not in self.shared:
            if self.opset < 11:
                column = self.constant(np.arange(256, dtype=np.uint8)[:, None])
                self.shared[key] = self.cast(column, ir.DataType.INT32)
            else:
                numbers = self.op("Range", self.number(0), self.number(256), self.number(1))
                self.shared[key] = self.reshape(numbers, 256, 1)
        return self.shared[key]


def _all_names(model: ir.Model) -> list[str]:
    names = []
    for scope in scopes(model):
        graph = scope.graph
        names += [value.name or "" for value in (*graph.inputs, *graph.initializers.values())]
        for node in graph:
            names += [node.name or "", *(value.name or "" for value in node.outputs)]
    return names
