"""Packed ONNX: sparse weights stored compressed, rebuilt by standard operators.

A runtime that folds constants, as onnxruntime does when it loads a model, expands the weights once
and then runs the dense graph. So the file is smaller and inference is as before. Every step has a
static shape, without which onnxruntime would leave the chain in the graph.

A weight of N elements with n nonzeros is stored as a bit vector of N bits, least significant bit
first, and n values behind a leading zero::

    bits  = Slice(Reshape(Gather(table, bytes)), 0, N)     table: the eight bits of each byte
    index = CumSum(bits) * bits                            0 where pruned, else 1, 2, ... n
    array = Reshape(Gather(values, index), shape)          values[0] is the zero
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.weights import Weight, collect_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_OPSET = 11
"""CumSum came with opset 11."""

CHAIN_BYTES = 1100
"""What the nodes and names of one chain cost in the file, about; measured on the shipped models."""

TABLE_NAME = "onnxprune.bit_table"
SUFFIX = ".packed"


@dataclass(frozen=True)
class PackWeightsPass(ir.passes.InPlacePass):
    """Replaces each weight that gets smaller by it with a chain that rebuilds it bit for bit.

    The rebuilt value keeps the weight's name. Weights that would not get smaller stay dense.
    """

    def requires(self, model: ir.Model) -> None:
        """The opset has CumSum."""
        opset = model.opset_imports.get("", 0)
        if opset < MIN_OPSET:
            msg = (
                f"the model has opset {opset}, and rebuilding packed weights needs opset "
                f"{MIN_OPSET} (CumSum): convert it first, for instance with onnx.version_converter"
            )
            raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pack; ``modified`` is True when any weight was."""
        chosen = [
            weight
            for weight in collect_weights(model).weights
            if weight.place == "initializer" and weight.graph is model.graph and _pays(weight)
        ]
        if not chosen:
            return ir.passes.PassResult(model, modified=False)
        table = _bit_table(model.graph)
        for weight in chosen:
            _pack_weight(model.graph, weight, table)
        return ir.passes.PassResult(model, modified=True)


def packed_bytes(elements: int, nonzeros: int, value_bits: int) -> int:
    """About how many bytes a weight takes in the packed file, packed or dense as is smaller."""
    dense = math.ceil(elements * value_bits / 8)
    packed = math.ceil(elements / 8) + math.ceil((nonzeros + 1) * value_bits / 8) + CHAIN_BYTES
    return min(dense, packed)


def packed_names(model: ir.Model) -> tuple[str, ...]:
    """The names of the weights that a packed model rebuilds."""
    return tuple(
        name.removesuffix(SUFFIX + ".bits")
        for name in model.graph.initializers
        if name.endswith(SUFFIX + ".bits")
    )


def _pays(weight: Weight) -> bool:
    if weight.value.is_graph_input():
        return False  # the caller may override it when the model runs
    stored = stored_mask(weight.array())
    bits = weight.array().itemsize * 8
    return packed_bytes(stored.size, int(np.count_nonzero(stored)), bits) < stored.size * bits // 8


def stored_mask(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Which elements must be stored to rebuild the array bit for bit: all but +0.0."""
    codes = np.ascontiguousarray(array).view(f"u{array.itemsize}")
    mask: NDArray[np.bool_] = codes != 0
    return mask


def _pack_weight(graph: ir.Graph, weight: Weight, table: ir.Value) -> None:
    tensor = weight.value.const_value
    assert tensor is not None
    array = weight.array()
    mask = stored_mask(array)
    store = _Store(graph, weight.name + SUFFIX)
    bit_bytes = np.packbits(mask.ravel(), bitorder="little")
    zero_and_values = np.concatenate([np.zeros(1, array.dtype), array[mask]])
    tape = ir.tape.Tape()

    numbers = tape.op("Cast", [store.add("bits", bit_bytes)], {"to": ir.DataType.INT32})
    every_bit = tape.op(
        "Reshape", [tape.op("Gather", [table, numbers]), store.ints("flat", bit_bytes.size * 8)]
    )
    ends = [store.ints("start", 0), store.ints("end", mask.size)]
    ones = tape.op("Cast", [tape.op("Slice", [every_bit, *ends])], {"to": ir.DataType.INT32})
    rank = tape.op("CumSum", [ones, store.add("axis", np.array(0, np.int32))])
    index = tape.op("Mul", [rank, ones])
    values = store.add("values", zero_and_values, tensor.dtype)
    flat = tape.op("Gather", [values, index])
    rebuilt = tape.op("Reshape", [flat, store.ints("shape", *array.shape)])
    _replace(graph, weight.value, tape, rebuilt, store.prefix)


def _replace(
    graph: ir.Graph, value: ir.Value, tape: ir.tape.Tape, new: ir.Value, prefix: str
) -> None:
    """Put the tape's nodes in front of the graph; ``new`` takes the place of ``value``."""
    for number, node in enumerate(tape.nodes):
        node.name = f"{prefix}.{number}"
        node.outputs[0].name = f"{prefix}.{number}"
    name = value.name
    assert name is not None
    graph.initializers.pop(name)
    value.name = None
    new.name, new.type, new.shape = name, value.type, value.shape
    value.replace_all_uses_with(new)
    graph.insert_before(graph[0], tape.nodes)


@dataclass(frozen=True)
class _Store:
    """Registers initializers of one chain under a common prefix."""

    graph: ir.Graph
    prefix: str

    def add(self, part: str, array: NDArray[Any], dtype: ir.DataType | None = None) -> ir.Value:
        return _initializer(self.graph, f"{self.prefix}.{part}", ir.tensor(array, dtype=dtype))

    def ints(self, part: str, *numbers: int) -> ir.Value:
        return self.add(part, np.array(numbers, np.int64))


def _bit_table(graph: ir.Graph) -> ir.Value:
    """The bits of every byte, least significant first: uint8 (256, 8), shared by all chains."""
    if TABLE_NAME in graph.initializers:
        return graph.initializers[TABLE_NAME]
    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return _initializer(graph, TABLE_NAME, ir.tensor(table))


def _initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    kind = ir.TensorType(tensor.dtype)
    value = ir.Value(name=name, shape=shape, type=kind, const_value=tensor)
    graph.register_initializer(value)
    return value
