"""How each operator reads the activation that meets its weight.

A :class:`~passes.reader.Reader` says which values must be watched and turns them into reductions. Operators without a
rule here have their reason in :data:`NOT_WATCHED`; weights of both kinds are found and pruned all the
same (:mod:`passes.operators.table`), the latter by magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from passes.operators import NotPrunable
from passes.operators.table import MICROSOFT
from passes.reader import Reader, required_input
from passes.recurrent import hidden_reader, input_reader
from passes.unfold import Product, Stack, TransposedWindow, Window

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.unfold import Unfold
    from passes.values import Values

    Shape = tuple[int, ...]
    Rule = Callable[[ir.Node, int, Shape], "Reader"]


def reader_of(node: ir.Node, index: int, shape: Shape) -> Reader:
    """How ``node`` multiplies the weight of ``shape`` at input ``index``.

    Raises:
        NotPrunable: with the reason why what it multiplies cannot be watched.
    """
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = RULES.get((domain, node.op_type, index))
    if rule is None:
        known = NOT_WATCHED.get((domain, node.op_type))
        raise NotPrunable(known or f"what {node.op_type} multiplies it with cannot be watched")
    return rule(node, index, shape)


def _direct(node: ir.Node, place: int, unfold: Unfold, groups: int = 1) -> Reader:
    """A reader of one input as it is."""
    value = required_input(node, place)
    return Reader(node, unfold, (value,), lambda values: values[value], tuple(range(groups)))


def _window(place: int) -> Rule:
    def rule(node: ir.Node, index: int, shape: Shape) -> Reader:
        del index
        kernel, groups = shape[2:], node.attributes.get_int("group", 1)
        return _direct(node, place, Window(groups, kernel, *_geometry(node, kernel)), groups)

    return rule


def _channels_first(node: ir.Node, index: int, shape: Shape) -> Reader:
    if node.attributes.get_int("channels_last", 0):
        msg = f"{node.op_type} has its channels last, which is not watched"
        raise NotPrunable(msg)
    return _window(0)(node, index, shape)


def _transposed_window(node: ir.Node, index: int, shape: Shape) -> Reader:
    del index
    kernel, groups = shape[2:], node.attributes.get_int("group", 1)
    zeros = (0,) * len(kernel)
    given = tuple(node.attributes.get_ints("output_shape", ()))
    strides, dilations, pads, auto_pad = _geometry(node, kernel)
    unfold = TransposedWindow(
        groups,
        kernel,
        strides,
        dilations,
        None if given else pads,
        auto_pad,
        tuple(node.attributes.get_ints("output_padding", zeros)) or zeros,
        given[-len(kernel) :] if given else None,
    )
    return _direct(node, 0, unfold, groups)


def _geometry(
    node: ir.Node, kernel: Shape
) -> tuple[Shape, Shape, tuple[tuple[int, int], ...] | None, str]:
    """Strides, dilations, pads (None where they follow from the sizes) and auto_pad."""
    ones, rank = (1,) * len(kernel), len(kernel)
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET") or "NOTSET"
    flat = tuple(node.attributes.get_ints("pads", ())) or (0,) * (2 * rank)
    pads = tuple(zip(flat[:rank], flat[rank:], strict=True)) if auto_pad == "NOTSET" else None
    strides = tuple(node.attributes.get_ints("strides", ones)) or ones
    return strides, tuple(node.attributes.get_ints("dilations", ones)) or ones, pads, auto_pad


def _gemm(other: int, *, left: bool) -> Rule:
    def rule(node: ir.Node, index: int, shape: Shape) -> Reader:
        del index, shape
        flag = node.attributes.get_int("transB" if left else "transA", 0)
        return _direct(node, other, Product(transposed=bool(flag) != left, weight_first=left))

    return rule


def _matmul(other: int, *, left: bool) -> Rule:
    def rule(node: ir.Node, index: int, shape: Shape) -> Reader:
        del index
        if len(shape) == 2:
            return _direct(node, other, Product(transposed=left, weight_first=left))
        return _direct(node, other, *_stack(shape[:-2], -2 if left else -1))

    return rule


def _fused_matmul(node: ir.Node, index: int, shape: Shape) -> Reader:
    left = index == 0
    ours, theirs = ("A", "B") if left else ("B", "A")
    flags = {
        name: bool(node.attributes.get_int(name, 0))
        for name in (f"trans{theirs}", f"transBatch{ours}", f"transBatch{theirs}")
    }
    if flags[f"transBatch{theirs}"]:
        raise NotPrunable(f"{node.op_type} moves the batch axis of what it multiplies it with")
    transposed = flags[f"trans{theirs}"] != left
    if len(shape) == 2:
        return _direct(node, 1 - index, Product(transposed=transposed, weight_first=left))
    batch = flags[f"transBatch{ours}"]
    stack = (*shape[1:-1],) if batch else shape[:-2]
    return _direct(node, 1 - index, *_stack(stack, -2 if transposed else -1))


def _stack(stack: Shape, column: int) -> tuple[Stack, int]:
    """How a stack of matrices meets an activation, and how many groups that makes."""
    shape = (*stack, 1, 1)
    groups = tuple(axis - len(shape) for axis, size in enumerate(stack) if size > 1)
    return Stack(shape, groups, (column,)), int(np.prod(stack, dtype=np.int64))


def _einsum(node: ir.Node, index: int, shape: Shape) -> Reader:
    equation = (node.attributes.get_string("equation") or "").replace(" ", "")
    terms, arrow, result = equation.partition("->")
    operands = terms.split(",")
    weight, other = operands[index], operands[1 - index]
    if "." in other or len(set(other)) < len(other):
        raise NotPrunable(f"Einsum '{equation}' repeats letters of what it multiplies")
    if not arrow:
        result = "".join(
            letter for letter in set(weight + other) if (weight + other).count(letter) == 1
        )
    if not set(other) <= set(weight) | set(result):
        raise NotPrunable(f"Einsum '{equation}' sums letters of what it multiplies alone")
    sizes = dict(zip(weight, shape, strict=True))
    shared = [letter for letter in weight if letter in other]
    groups = tuple(other.index(x) - len(other) for x in shared if x in result)
    columns = tuple(other.index(x) - len(other) for x in shared if x not in result)
    total = int(np.prod([sizes[x] for x in shared if x in result], dtype=np.int64))
    return _direct(node, 1 - index, Stack((1,) * len(other), groups, columns), total)


def _dequantized(inner: Rule, place: int, scale: int | None, zero: int) -> Rule:
    """A reader whose integer activation stands for ``(x - zero) * scale``."""

    def rule(node: ir.Node, index: int, shape: Shape) -> Reader:
        plain = inner(node, index, shape)
        value = required_input(node, place)
        shift, factor = (
            node.inputs[at] if at is not None and at < len(node.inputs) else None
            for at in (zero, scale)
        )
        by_row = place == 0 and not isinstance(plain.unfold, Window)

        def prepare(values: Values) -> NDArray[Any]:
            array = values[value].astype(np.float32)
            if shift is not None:
                array = array - _parameter(values[shift], by_row=by_row)
            return array if factor is None else array * _parameter(values[factor], by_row=by_row)

        needs = tuple(part for part in (value, shift, factor) if part is not None)
        return Reader(node, plain.unfold, needs, prepare, plain.groups)

    return rule


def _parameter(array: NDArray[Any], *, by_row: bool) -> NDArray[np.float32]:
    """A scale or zero point that broadcasts: a vector belongs to the rows of what stands on the left."""
    vector = array.ndim == 1 and array.size > 1
    return (array[:, None] if vector and by_row else array).astype(np.float32)


_RIGHT = _matmul(0, left=False)

RULES: dict[tuple[str, str, int], Rule] = {
    ("", "Conv", 1): _window(0),
    (MICROSOFT, "FusedConv", 1): _window(0),
    ("", "ConvTranspose", 1): _transposed_window,
    **{
        (domain, op_type, index): _gemm(1 - index, left=index == 0)
        for domain, op_type in (("", "Gemm"), (MICROSOFT, "FusedGemm"))
        for index in (0, 1)
    },
    ("", "MatMul", 0): _matmul(1, left=True),
    ("", "MatMul", 1): _RIGHT,
    **{
        (MICROSOFT, op_type, index): _fused_matmul
        for op_type in ("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul")
        for index in (0, 1)
    },
    ("", "Einsum", 0): _einsum,
    ("", "Einsum", 1): _einsum,
    **{
        ("", op_type, index): rule
        for op_type in ("LSTM", "GRU", "RNN")
        for index, rule in ((1, input_reader), (2, hidden_reader))
    },
    (MICROSOFT, "DynamicQuantizeLSTM", 1): input_reader,
    (MICROSOFT, "DynamicQuantizeLSTM", 2): hidden_reader,
    (MICROSOFT, "GemmFastGelu", 1): _RIGHT,
    **{
        (MICROSOFT, op_type, 1): _RIGHT
        for op_type in (
            "Attention",
            "PackedAttention",
            "DecoderMaskedSelfAttention",
            "LongformerAttention",
            "DynamicQuantizeMatMul",
        )
    },
    (MICROSOFT, "LongformerAttention", 4): _RIGHT,
    (MICROSOFT, "DecoderAttention", 2): _RIGHT,
    (MICROSOFT, "DecoderAttention", 3): _matmul(1, left=False),
    ("", "ConvInteger", 1): _dequantized(_window(0), 0, None, 2),
    ("", "QLinearConv", 3): _dequantized(_window(0), 0, 1, 2),
    ("", "MatMulInteger", 0): _dequantized(_matmul(1, left=True), 1, None, 3),
    ("", "MatMulInteger", 1): _dequantized(_RIGHT, 0, None, 2),
    ("", "QLinearMatMul", 0): _dequantized(_matmul(3, left=True), 3, 4, 5),
    ("", "QLinearMatMul", 3): _dequantized(_RIGHT, 0, 1, 2),
    (MICROSOFT, "MatMulIntegerToFloat", 0): _dequantized(_matmul(1, left=True), 1, 3, 5),
    (MICROSOFT, "MatMulIntegerToFloat", 1): _dequantized(_RIGHT, 0, 2, 4),
    (MICROSOFT, "QGemm", 0): _dequantized(_gemm(3, left=True), 3, 4, 5),
    (MICROSOFT, "QGemm", 3): _dequantized(_gemm(0, left=False), 0, 1, 2),
    (MICROSOFT, "QLinearConv", 3): _dequantized(_channels_first, 0, 1, 2),
    (MICROSOFT, "QAttention", 1): _dequantized(_RIGHT, 0, 3, 6),
}

_ROUTED = "{} sends each token to other experts, so that no matrix sees all of them"
_EMBEDDED = "{} picks rows of it and multiplies nothing: magnitude is the order that counts"

NOT_WATCHED: dict[tuple[str, str], str] = {
    ("", "DeformConv"): "DeformConv reads its input at places between pixels that the data choose",
    ("", "Gather"): _EMBEDDED.format("Gather"),
    (MICROSOFT, "EmbedLayerNormalization"): _EMBEDDED.format("EmbedLayerNormalization"),
    (MICROSOFT, "QEmbedLayerNormalization"): _EMBEDDED.format("QEmbedLayerNormalization"),
    (MICROSOFT, "MoE"): _ROUTED.format("MoE"),
    (MICROSOFT, "NhwcFusedConv"): "NhwcFusedConv has its channels last, which is not watched",
    (MICROSOFT, "ConvTransposeWithDynamicPads"): "the pads of ConvTransposeWithDynamicPads are "
    "computed while the model runs",
}
"""Operators with weights whose reductions are not watched, and why."""
