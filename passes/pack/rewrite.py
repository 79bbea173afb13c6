"""The pass that replaces sparse initializers by chains that rebuild them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.constants import freeze_constants
from passes.operators.constants import stored_tensor
from passes.pack.builder import Builder, Names
from passes.pack.codes import Bitmask, QuickDelta
from passes.pack.marks import Marks, read_marks
from passes.pack.nested_codes import Nested
from passes.pack.outline import outline
from passes.pack.pattern_codes import Blocks, Groups
from passes.pack.patterns import by_blocks, by_rows
from passes.pack.plan import AUTO, codes_for, is_dense, make_item, plan_streams
from passes.pack.scopes import scopes
from passes.pack.values import KEEP, Prepared, parse_values, prepare
from passes.pack.write import chain_bytes, write_stream
from passes.store import constants_of
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from passes.layout import Layout
    from passes.pack.codes import PositionCode
    from passes.pack.plan import Item
    from passes.pack.scopes import Scope

    Layouts = Mapping[int, Layout]

MIN_OPSET = 7
"""Older opsets have no broadcasting as it is today."""

CUMSUM_OPSET = 11

MODERN_OPSET = 13

MODEL_BYTES = 1500
"""About what the chains of small weights cost in a file beside their arrays."""

TRANSPOSE_BYTES = 60
"""About what it costs to store a weight in another order of elements."""

BLOCK_BYTES = 900
"""About what a chain of its own, for the blocks of one weight, costs."""

MIN_ELEMENTS = 64
"""Smaller constants stay as they are."""

FOLD_LIMIT_BYTES = 1 << 30
"""onnxruntime folds no node whose output is larger, unless the session option says so."""

FOLD_LIMIT_OPTION = "optimization.constant_folding_max_output_size_in_bytes"

FLOATS = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)
PACKABLE = (*FLOATS, ir.DataType.INT8, ir.DataType.UINT8)


@dataclass(frozen=True)
class PackWeightsPass(ir.passes.InPlacePass):
    """Replaces each constant that gets smaller by it with a chain that rebuilds it.

    The rebuilt value keeps the name of the initializer or Constant node. Those that would not get smaller stay dense, and
    so do those that :func:`why_dense` gives a reason for.

    Attributes:
        positions: the kind of position code, one of :data:`POSITIONS`; with ``auto`` each weight
            takes the one of fewest bytes.
        values: how values of floats are stored: ``keep``, bit for bit; ``float16``; ``int8`` with a
            scale for each output channel; ``codebookK``, K of 2 to 256 values for each weight.
        saliency: by weight name, in the weight's shape: how much each element matters when the
            values of a codebook are chosen.
        cumsum: False makes running sums by matrix products, and no functions: opset 11 and later
            have CumSum, which OpenVINO does not fold, and IR version 8 has functions, which it does
            not read.
        freeze_inputs: pack also what the caller could give another value for when the model runs;
            it is then no input any more.
        fold_limit_bytes: weights above it stay dense.
        progress: told of constants looked at and in all, graph by graph.
    """

    positions: str = AUTO
    values: str = KEEP
    saliency: Mapping[str, NDArray[Any]] | None = field(default=None, repr=False)
    cumsum: bool = True
    freeze_inputs: bool = False
    fold_limit_bytes: int = FOLD_LIMIT_BYTES
    progress: Callable[[int, int], None] = field(default=lambda *_: None, repr=False)

    def requires(self, model: ir.Model) -> None:
        """The opset broadcasts as it does today, and the form of values is one that there is."""
        opset = model.opset_imports.get("", 0)
        if opset < MIN_OPSET:
            msg = (
                f"the model has opset {opset}, and rebuilding packed weights needs opset "
                f"{MIN_OPSET} or later: let it be converted with --opset, 13 for instance"
            )
            raise ir.passes.PreconditionError(msg)
        try:
            parse_values(self.values)
        except ValueError as error:
            raise ir.passes.PreconditionError(str(error)) from error

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pack; ``modified`` is True when any initializer was."""
        if read_marks(model) is not None:
            return ir.passes.PassResult(model, modified=False)
        names = Names(model)
        layouts = {id(weight.value): weight.layout for weight in collect_weights(model).weights}
        found = [self._pack_scope(model, scope, names, layouts) for scope in scopes(model)]
        packed = [(number, places) for number, places in enumerate(found) if places is not None]
        if packed:
            by_graph = {number: places for number, places in packed if places}
            Marks(names.prefix, by_graph).write(model)
            freeze_constants(model)
        return ir.passes.PassResult(model, modified=bool(packed))

    def why_dense(self, model: ir.Model, value: ir.Value) -> str | None:
        """Why a constant may not be packed, in one clause; None when it may.

        Args:
            model: that it belongs to.
            value: of an initializer or a Constant node.
        """
        tensor = stored_tensor(value)
        if tensor is None or tensor.dtype not in PACKABLE:
            return "its numbers are of another kind than weights"
        if tensor.size < MIN_ELEMENTS or len(tensor.shape) < 2:
            return "it is small"
        if value.is_graph_output() or not value.uses():
            return "no node reads it, or it is an output of the model"
        if value.is_graph_input() and not self.freeze_inputs and (model.ir_version or 0) >= 4:
            return (
                "it is also an input of the model, so that the caller may give another value; "
                "--freeze-inputs makes it a constant"
            )
        if exceeds(tensor, self.fold_limit_bytes):
            return (
                f"it has more than {self.fold_limit_bytes} bytes, which onnxruntime does not fold "
                f"by itself; --large packs it, for sessions with '{FOLD_LIMIT_OPTION}' set to 0"
            )
        return None

    def _pack_scope(
        self, model: ir.Model, scope: Scope, names: Names, layouts: Layouts
    ) -> tuple[int, ...] | None:
        """Pack the constants of a scope; the places where its packed initializers stood.

        None when nothing was packed.
        """
        if scope.opset < MIN_OPSET:
            return None
        graph = scope.graph
        cumsum = self.cumsum and scope.opset >= CUMSUM_OPSET
        builder = Builder(graph, scope.opset, names, cumsum, scope.in_function)
        order = {name: place for place, name in enumerate(graph.initializers)}
        constants = self._constants(model, graph)
        items = []
        for number, (name, value) in enumerate(constants.items()):
            self.progress(number, len(constants))
            items.append(self._item(name, value, builder.opset, layouts.get(id(value))))
        self.progress(len(constants), len(constants))
        rebuilt: dict[str, ir.Value] = {}
        costs = {code: self._chain_bytes(code, builder) for code in self._codes(scope.opset)}
        alone = []
        for stream in plan_streams(items, costs):
            start = len(builder.nodes)
            new = write_stream(builder, stream)
            rebuilt |= zip((item.name for item in stream.items), new, strict=True)
            if len(new) == 1:
                alone.append((slice(start, len(builder.nodes)), new[0]))
        outlined = self.cumsum and not scope.in_function
        calls = outline(model, builder, alone) if outlined else {}
        for name, value in rebuilt.items():
            _replace(graph, constants[name], calls.get(value, value))
        builder.finish()
        places = tuple(sorted(order[name] for name in rebuilt if name in order))
        return places if rebuilt else None

    def _constants(self, model: ir.Model, graph: ir.Graph) -> dict[str, ir.Value]:
        """Initializers and outputs of Constant nodes that may be packed, by name."""
        return {
            value.name or "": value
            for value, place in constants_of(graph)
            if place != "fill" and self.why_dense(model, value) is None
        }

    def _item(self, name: str, value: ir.Value, opset: int, layout: Layout | None) -> Item:
        form = parse_values(self.values)
        tensor = stored_tensor(value)
        assert tensor is not None
        prepared = Prepared(tensor.numpy())
        if form.lossy and tensor.dtype in FLOATS:
            saliency = (self.saliency or {}).get(name)
            prepared = prepare(tensor.numpy(), form, layout, saliency)
        codes = [code for code in self._codes(opset) if self._suits(code, prepared)]
        item = make_item(name, prepared, tensor.dtype, codes)
        return _in_best_order(item, layout, codes)

    def _codes(self, opset: int) -> tuple[PositionCode, ...]:
        return codes_for(opset, self.positions, quick=self.cumsum)

    def _suits(self, code: PositionCode, prepared: Prepared) -> bool:
        if prepared.codebook is not None and not code.leading_fill:
            return False
        elements = prepared.array.size
        if isinstance(code, QuickDelta):  # positions are int64, one for each value and filler
            most = self.fold_limit_bytes // 9
            return elements <= most or int(np.count_nonzero(prepared.array)) <= most
        # The ranks of a bitmask are int32, one for each element.
        by_rank = isinstance(code, (Bitmask, Groups, Nested))
        return not by_rank or elements * 4 <= self.fold_limit_bytes

    @staticmethod
    def _chain_bytes(code: PositionCode, builder: Builder) -> int:
        return chain_bytes(code, builder.opset, builder.cumsum)


def exceeds(tensor: ir.TensorProtocol, limit_bytes: int) -> bool:
    """Whether an array on the way to a weight has more bytes: itself, or its positions."""
    return max(tensor.nbytes, tensor.size) > limit_bytes


def _in_best_order(item: Item, layout: Layout | None, codes: list[PositionCode]) -> Item:
    """The item with its elements by rows, where a pattern shows in that order and pays."""
    if layout is None or item.prepared.codebook is not None:
        return item
    if is_dense(item.array, item.fill):
        return item
    found = [item]
    if rows := by_rows(item.prepared, layout):
        grouped = [code for code in codes if isinstance(code, Groups)]
        found.append(make_item(item.name, rows[0], item.dtype, grouped, rows[1]))
    if blocks := by_blocks(item.prepared, layout):
        whole = [code for code in codes if isinstance(code, Blocks)]
        found.append(make_item(item.name, blocks[0], item.dtype, whole, *blocks[1:]))

    def bits(one: Item) -> float:
        extra = 0 if one is item else 8 * (BLOCK_BYTES if one.unit > 1 else TRANSPOSE_BYTES)
        return min(one.costs.values(), default=math.inf) + extra

    return min(found, key=bits)


def packed_bytes(array: NDArray[Any]) -> float:
    """What a weight with these values adds to a packed model, packed or dense as is smaller.

    Its share of a stream whose chain (:data:`MODEL_BYTES`) is counted once for the model; for the
    opsets of today.
    """
    dtype = ir.DataType.from_numpy(array.dtype)
    item = make_item("", Prepared(array), dtype, codes_for(MODERN_OPSET))
    return min([float(array.nbytes), *(item.bytes_under(code) for code in item.costs)])


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """``new`` takes the name and the place of an initializer, or of a Constant node's output.

    What stands in a Constant node stays there by name and place: an Identity, which runtimes drop.
    """
    constant = old.producer()
    if constant is not None:
        (new,) = ir.node("Identity", [new], name=constant.name).outputs
    elif old.is_graph_input():
        graph.inputs.remove(old)
    name = old.name
    assert name is not None
    graph.initializers.pop(name, None)
    new.name, new.type = name, old.type
    new.shape = old.shape if constant is not None else None  # chains tell it: no bytes for it
    old.replace_all_uses_with(new)
    if constant is not None:
        identity = new.producer()
        assert identity is not None
        graph.insert_before(constant, identity)
        graph.remove(constant, safe=True)
