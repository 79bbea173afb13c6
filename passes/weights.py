"""Which weights of a model can be pruned, and why the others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.operators import NotPrunable, layout_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from passes.layout import Layout

PRUNABLE_DTYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
)


@dataclass(frozen=True)
class Consumer:
    """A node that reads a weight: its name, operator, and the input at which it reads."""

    node: str
    op_type: str
    input_index: int


@dataclass(frozen=True)
class Weight:
    """A constant that can be pruned.

    Attributes:
        name: the ONNX name of the value.
        value: the value in the user's graph; passes assign its ``const_value``.
        consumers: all nodes that read it. More than one means it is tied, and still pruned once.
        layout: how its array becomes matrices ``(groups, rows, columns)``.
    """

    name: str
    value: ir.Value
    consumers: tuple[Consumer, ...]
    layout: Layout

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.layout.elements

    def array(self) -> NDArray[Any]:
        """Its values as stored; never write into them: they may belong to the model or a file."""
        assert self.value.const_value is not None
        return self.value.const_value.numpy()

    def matrices(self) -> NDArray[Any]:
        """Its values as matrices ``(groups, rows, columns)``; never write into it."""
        return self.layout.matrices(self.array())


@dataclass(frozen=True)
class Skipped:
    """A constant that is left as it is, and the reason in one clause."""

    name: str
    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Collection:
    """All constants of a model: those that can be pruned, and those that are left."""

    weights: tuple[Weight, ...]
    skipped: tuple[Skipped, ...]

    @property
    def elements(self) -> int:
        """Number of weights that can be pruned."""
        return sum(weight.elements for weight in self.weights)


def collect_weights(model: ir.Model) -> Collection:
    """Find the weights of a model that can be pruned, in the order of its initializers.

    One value is one weight, whoever reads it: consumers must agree on its layout up to the order
    of rows and columns, and the first one's view is taken, for unstructured masks do not depend on
    it. Values that merely hold equal numbers stay distinct.
    """
    weights: list[Weight] = []
    skipped: list[Skipped] = []
    for value in _float_initializers(model):
        name = value.name or ""
        consumers = tuple(
            Consumer(node_label(usage.node), usage.node.op_type, usage.idx)
            for usage in value.uses()
        )
        try:
            weights.append(Weight(name, value, consumers, _agreed_layout(value)))
        except NotPrunable as reason:
            skipped.append(Skipped(name, tuple(c.node for c in consumers), str(reason)))
    return Collection(tuple(weights), tuple(skipped))


def node_label(node: ir.Node) -> str:
    """The node's name, or where it has none its operator and first output."""
    if node.name:
        return node.name
    return f"{node.op_type}({node.outputs[0].name})" if node.outputs else node.op_type


def count_nonzeros(array: NDArray[Any]) -> int:
    """How many elements are not zero; -0.0 counts as zero, NaN does not."""
    return int(np.count_nonzero(array))


def _float_initializers(model: ir.Model) -> Iterator[ir.Value]:
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in PRUNABLE_DTYPES and tensor.size > 0:
            yield value


def _agreed_layout(value: ir.Value) -> Layout:
    assert value.const_value is not None
    shape = tuple(int(size) for size in value.const_value.shape.numpy())
    if value.is_graph_output():
        raise NotPrunable("it is an output of the model")
    if not value.uses():
        raise NotPrunable("no node reads it")
    layouts = [layout_of(usage.node, usage.idx, shape) for usage in value.uses()]
    return layouts[0]
