"""Which weights of a model can be pruned, and why the others cannot."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes import store
from passes.axes import NotPlain
from passes.operators import NotPrunable, weight_input
from passes.operators.roles import conv, conv_transpose
from passes.patterns import Stored
from passes.prepare import View
from passes.quantization import quantization_of
from passes.store import MAX_FILL_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from passes.layout import Layout
    from passes.operators.moves import Move
    from passes.prepare import Reading
    from passes.quantization import Quantization
    from passes.store import Constant, Place

PRUNABLE_DTYPES = (
    ir.DataType.FLOAT,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
    ir.DataType.DOUBLE,
    ir.DataType.INT8,
    ir.DataType.UINT8,
)
QUANTIZED_DTYPES = (ir.DataType.INT8, ir.DataType.UINT8)

NO_WEIGHT_DTYPES = frozenset(
    (
        ir.DataType.BOOL,
        ir.DataType.INT32,
        ir.DataType.INT64,
        ir.DataType.UINT32,
        ir.DataType.UINT64,
        ir.DataType.STRING,
        ir.DataType.COMPLEX64,
        ir.DataType.COMPLEX128,
        ir.DataType.UNDEFINED,
    )
)
"""Dtypes of shapes, indices and texts: such constants are not listed at all."""

COUNT_BLOCK = 2**24
"""Elements looked at together when zeros are counted, so that no large temporary is made."""


@dataclass(frozen=True)
class Consumer:
    """A node that reads a weight.

    Attributes:
        node: its name, or where it has none its operator and first output.
        op_type: its operator.
        input_index: the input at which it reads.
        layout: how the stored array becomes matrices as this node sees them.
        reader: the node itself, in the user's graph or in a function.
        path: the moves that the array takes on its way there; empty when the node reads it as it
            is stored.
    """

    node: str
    op_type: str
    input_index: int
    layout: Layout | None = None
    reader: ir.Node | None = field(default=None, repr=False, compare=False)
    path: tuple[Move, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Weight:
    """A constant that can be pruned.

    Attributes:
        name: unique in the model: the ONNX name of the value, with the name of its body or
            function in front where the model uses that name more than once.
        value: the value in the user's graph, an initializer or the output of a Constant or
            ConstantOfShape node. Write to it with :meth:`assign`, which keeps the ``Value`` (and so
            all ties) and the form in which the model stores it.
        consumers: all nodes that read it. More than one means it is tied, and still pruned once.
        layout: how its array becomes matrices ``(groups, rows, columns)``; of tied weights the view
            that most consumers share, of equally common ones the first.
        place: how the model stores it: "initializer", "constant" (a Constant node) or "fill"
            (a ConstantOfShape node, which becomes a Constant node when some of it is pruned).
        quantization: scale and zero point of an int8 or uint8 weight; None for floats.
    """

    name: str
    value: ir.Value
    consumers: tuple[Consumer, ...]
    layout: Layout
    place: Place = "initializer"
    quantization: Quantization | None = field(default=None, compare=False)

    @property
    def elements(self) -> int:
        """Number of weights."""
        return self.layout.elements

    @property
    def fans(self) -> tuple[int, int, tuple[int, ...]]:
        """Inputs (of one group), outputs (of all groups), and spatial sizes of the kernel."""
        groups, rows, columns = self.layout.matrix_shape
        return columns // self.taps, groups * rows, self.kernel

    @property
    def graph(self) -> ir.Graph | None:
        """The graph it is stored in: the main graph, the body of a node, or that of a function."""
        return self.value.graph

    @property
    def agreed(self) -> bool:
        """Whether all consumers see the same rows and columns."""
        return len({consumer.layout for consumer in self.consumers}) <= 1

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial sizes of a convolution's kernel, which its columns run over; () for all else.

        A column is an input channel at one place of the kernel; places run fastest.
        """
        for consumer in self.consumers:
            if consumer.layout == self.layout and consumer.reader is not None:
                axes = weight_input(consumer.reader, consumer.input_index).axes
                if axes not in {conv, conv_transpose}:
                    return ()
                shape = consumer.path[-1].after if consumer.path else self.layout.shape
                groups, _, columns = self.layout.matrix_shape
                inputs = shape[1] if axes is conv else shape[0] // groups
                return shape[2:] if columns == inputs * math.prod(shape[2:]) else ()
        return ()

    @property
    def taps(self) -> int:
        """How many columns belong to one input channel: the places of :attr:`kernel`."""
        return math.prod(self.kernel)

    @property
    def in_memory(self) -> Stored:
        """How it lies in memory, for patterns of what is fetched."""
        return Stored(self.layout, 8 * self.dtype.itemsize)

    @property
    def zero_point(self) -> NDArray[Any]:
        """The stored value that means zero: of the stored dtype, broadcasts to the stored array."""
        if self.quantization is None:
            return np.zeros((), self.dtype)
        return self.quantization.zero_point(self.layout.shape)

    @property
    def tensor(self) -> ir.TensorProtocol:
        """The tensor that holds its values as they are stored."""
        return store.tensor(self.value, self.place)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the stored elements."""
        return self.tensor.dtype.numpy()

    @property
    def common_zero_point(self) -> int:
        """The zero point that most of its elements have, as one number; 0 for floats."""
        if self.quantization is None:
            return 0
        found, counts = np.unique(self.zero_point, return_counts=True)
        return int(found[counts.argmax()])

    def array(self) -> NDArray[Any]:
        """Its values as stored; never write into them: they may belong to the model or a file."""
        array: NDArray[Any] = self.tensor.numpy()
        return array

    def values(self) -> NDArray[Any]:
        """The real numbers it stands for, of the stored shape: dequantised where it is quantised."""
        array = self.array()
        return array if self.quantization is None else self.quantization.dequantize(array)

    def matrices(self) -> NDArray[Any]:
        """:meth:`values` as matrices ``(groups, rows, columns)``; never write into it."""
        return self.layout.matrices(self.values())

    def nonzeros(self, array: NDArray[Any] | None = None) -> int:
        """How many elements are not zero; of a quantised weight, not at the zero point.

        Args:
            array: values in its stored form to count instead of its own.
        """
        counted = getattr(self.tensor, "nonzeros", None)
        if array is None and isinstance(counted, int):
            return counted
        array = self.array() if array is None else array
        if self.quantization is None:
            return count_nonzeros(array)
        return int(np.count_nonzero(array != self.zero_point))

    def masked(self, mask: NDArray[np.bool_]) -> NDArray[Any]:
        """A copy of :meth:`array` with zero, or the zero point, where ``mask`` is False.

        Args:
            mask: ``(groups, rows, columns)`` in the view of :attr:`layout`; True keeps.
        """
        return np.where(self.layout.array(mask), self.array(), self.zero_point)

    def stored(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """Real numbers in the view of :attr:`layout` as they would be stored.

        Args:
            matrices: ``(groups, rows, columns)``; cast, or for a quantised weight rounded to the
                nearest number that its scale allows.
        """
        values = self.layout.array(matrices)
        if self.quantization is not None:
            return self.quantization.quantize(values)
        return values.astype(self.dtype)

    def assign(self, array: NDArray[Any] | ir.TensorProtocol) -> None:
        """Make this the stored value, of the same shape and dtype; names and ties stay."""
        store.write(self.value, self.place, array)


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


def collect_weights(model: ir.Model, *, embeddings: bool = False) -> Collection:
    """Find the weights of a model that can be pruned, the main graph's first, in stored order.

    One value is one weight, whoever reads it. Each consumer has its own view of the stored array,
    and masks live in the one that most of them share (:attr:`Weight.layout`): every view holds the
    same elements, so an element that is pruned is pruned for all of them. A value that any node
    reads in another way than as a weight is left as it is. Values that merely hold equal numbers
    stay distinct.

    Args:
        model: it is not changed.
        embeddings: find those of Gather and EmbedLayerNormalization too.
    """
    view = View(model)
    weights: list[Weight] = []
    skipped: list[Skipped] = []
    for constant in view.constants():
        if constant.dtype in NO_WEIGHT_DTYPES:
            continue
        readings: tuple[Reading, ...] = ()
        try:
            readings = view.readings(constant)
            weights.append(_weight(constant, readings, embeddings=embeddings))
        except NotPrunable as reason:
            if constant.place == "initializer" or constant.elements > 1:
                skipped.append(Skipped(constant.name, _nodes(readings), str(reason)))
    return Collection(tuple(weights), tuple(skipped))


def node_label(node: ir.Node) -> str:
    """The node's name, or where it has none its operator and first output."""
    if node.name:
        return node.name
    return f"{node.op_type}({node.outputs[0].name})" if node.outputs else node.op_type


def count_nonzeros(array: NDArray[Any]) -> int:
    """How many elements are not zero; -0.0 counts as zero, NaN does not."""
    if array.size <= COUNT_BLOCK or not array.flags.c_contiguous:
        return int(np.count_nonzero(array))
    flat = array.reshape(-1)
    blocks = range(0, flat.size, COUNT_BLOCK)
    return sum(int(np.count_nonzero(flat[start : start + COUNT_BLOCK])) for start in blocks)


def _weight(constant: Constant, readings: Sequence[Reading], *, embeddings: bool) -> Weight:
    if not readings:
        read = bool(constant.value.uses())
        raise NotPrunable("no node reads its elements" if read else "no node reads it")
    consumers, quantizations = [], []
    for reading in readings:
        consumer, quantization = _consumer(constant, reading, embeddings=embeddings)
        consumers.append(consumer)
        quantizations.append(quantization)
    if constant.dtype not in PRUNABLE_DTYPES:
        msg = f"its values are {constant.dtype.name}; floats of 16 bits or more, int8 and uint8 can be pruned"
        raise NotPrunable(msg)
    if constant.place == "fill" and constant.elements * constant.dtype.itemsize > MAX_FILL_BYTES:
        raise NotPrunable("ConstantOfShape fills more bytes than should be stored in its place")
    first = quantizations[0]
    for other in quantizations[1:]:
        if first is not None and other is not None and not first.same_zero(other, constant.shape):
            raise NotPrunable("the nodes that read it do not agree on its zero point")
    layout = Counter(consumer.layout for consumer in consumers).most_common(1)[0][0]
    assert layout is not None
    unique = tuple(dict.fromkeys(consumers))
    return Weight(constant.name, constant.value, unique, layout, constant.place, first)


def _consumer(
    constant: Constant, reading: Reading, *, embeddings: bool
) -> tuple[Consumer, Quantization | None]:
    if reading.reason is not None or reading.node is None or reading.seen is None:
        raise NotPrunable(reading.reason or "it leaves the graph")
    node, seen, index = reading.node, reading.seen, reading.index
    place = weight_input(node, index)
    if place.opt_in and not embeddings:
        msg = (
            f"an embedding that {node.op_type} reads is kept unless it is asked for (--embeddings)"
        )
        raise NotPrunable(msg)
    shape = reading.path[-1].after if reading.path else constant.shape
    try:
        axes = place.axes(seen, index, shape)
        for move in reversed(reading.path):
            axes = move.back(axes)
    except NotPlain:
        msg = f"no matrix view of it fits the reshapes and cuts between it and {node.op_type}"
        raise NotPrunable(msg) from None
    quantization = None
    if constant.dtype in QUANTIZED_DTYPES:
        dtype = constant.dtype.numpy()
        quantization = quantization_of(seen, place, reading.path, constant.shape, dtype)
    layout = axes.layout(constant.shape)
    consumer = Consumer(node_label(node), node.op_type, index, layout, node, reading.path)
    return consumer, quantization


def _nodes(readings: Sequence[Reading]) -> tuple[str, ...]:
    labels = (node_label(reading.node) for reading in readings if reading.node is not None)
    return tuple(dict.fromkeys(labels))
