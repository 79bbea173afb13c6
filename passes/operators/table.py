"""Every input at which an operator reads a weight; ``docs/operators.md`` is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from passes.operators import roles

if TYPE_CHECKING:
    from passes.operators.roles import Rule

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class WeightInput:
    """One input at which an operator reads a weight.

    Attributes:
        domain: of the operator; empty for ONNX's own.
        op_type: of the operator.
        index: of the input.
        axes: what the weight's axes mean there.
        stored: its shape in words, for the documentation.
        scale: input that holds the scale of a quantised weight.
        zero_point: input that holds its zero point.
        channel: the axis along which a vector of scales or zero points runs.
        opt_in: whether it is pruned only when embeddings are asked for.
    """

    domain: str
    op_type: str
    index: int
    axes: Rule
    stored: str
    scale: int | None = None
    zero_point: int | None = None
    channel: int = 0
    opt_in: bool = False


_CONV = "(R outputs, C inputs/groups, C kernel...); G on axis 0"
_CONV_TRANSPOSE = "(C inputs, R outputs/groups, C kernel...); G on axis 0"
_LEFT = "(G stack..., R outputs, C reduction)"
_RIGHT = "(G stack..., C reduction, R outputs)"
_GEMM_LEFT = "(R outputs, C reduction), swapped by transA"
_GEMM_RIGHT = "(C reduction, R outputs), swapped by transB"
_PROJECTION = "(C inputs, R outputs of query, key and value)"
_EMBEDDING = "(R entries, C features)"
_EXPERTS = "(G experts, R outputs, C reduction)"


def _recurrent(op_type: str, gates: int, domain: str = "") -> tuple[WeightInput, ...]:
    rule = roles.recurrent(gates)
    stored = f"(G directions, {gates} G gates of R hidden, C {{}})"
    return (
        WeightInput(domain, op_type, 1, rule, stored.format("inputs")),
        WeightInput(domain, op_type, 2, rule, stored.format("hidden")),
    )


def _pair(op_type: str, domain: str = "") -> tuple[WeightInput, ...]:
    return (
        WeightInput(domain, op_type, 0, roles.matmul_left, _LEFT),
        WeightInput(domain, op_type, 1, roles.matmul_right, _RIGHT),
    )


def _gemm(op_type: str, domain: str = "") -> tuple[WeightInput, ...]:
    return (
        WeightInput(domain, op_type, 0, roles.gemm_left, _GEMM_LEFT),
        WeightInput(domain, op_type, 1, roles.gemm_right, _GEMM_RIGHT),
    )


def _fused_matmul(op_type: str) -> tuple[WeightInput, ...]:
    return (
        WeightInput(MICROSOFT, op_type, 0, roles.fused_matmul_left, _LEFT + " after transposes"),
        WeightInput(MICROSOFT, op_type, 1, roles.fused_matmul_right, _RIGHT + " after transposes"),
    )


def _projections(op_type: str, *indices: int) -> tuple[WeightInput, ...]:
    return tuple(
        WeightInput(MICROSOFT, op_type, index, roles.gemm_right, _PROJECTION) for index in indices
    )


_FLOAT = (
    WeightInput("", "Conv", 1, roles.conv, _CONV),
    WeightInput("", "DeformConv", 1, roles.conv, _CONV),
    WeightInput("", "ConvTranspose", 1, roles.conv_transpose, _CONV_TRANSPOSE),
    *_gemm("Gemm"),
    *_pair("MatMul"),
    WeightInput("", "Einsum", 0, roles.einsum, "by the letters of the equation, if they are plain"),
    WeightInput("", "Einsum", 1, roles.einsum, "by the letters of the equation, if they are plain"),
    *_recurrent("LSTM", 4),
    *_recurrent("GRU", 3),
    *_recurrent("RNN", 1),
    WeightInput("", "Gather", 0, roles.embedding, _EMBEDDING, opt_in=True),
)

_QUANTIZED = (
    WeightInput("", "ConvInteger", 1, roles.conv, _CONV, None, 3),
    WeightInput("", "QLinearConv", 3, roles.conv, _CONV, 4, 5),
    WeightInput("", "MatMulInteger", 0, roles.matmul_left, _LEFT, None, 2, -2),
    WeightInput("", "MatMulInteger", 1, roles.matmul_right, _RIGHT, None, 3, -1),
    WeightInput("", "QLinearMatMul", 0, roles.matmul_left, _LEFT, 1, 2, -2),
    WeightInput("", "QLinearMatMul", 3, roles.matmul_right, _RIGHT, 4, 5, -1),
)

_MICROSOFT_FLOAT = (
    WeightInput(MICROSOFT, "FusedConv", 1, roles.conv, _CONV),
    WeightInput(MICROSOFT, "NhwcFusedConv", 1, roles.conv, _CONV),
    WeightInput(
        MICROSOFT, "ConvTransposeWithDynamicPads", 1, roles.conv_transpose, _CONV_TRANSPOSE
    ),
    *_gemm("FusedGemm", MICROSOFT),
    *_gemm("TransposeMatMul", MICROSOFT),
    *_fused_matmul("FusedMatMul"),
    *_fused_matmul("FusedMatMulActivation"),
    WeightInput(MICROSOFT, "GemmFastGelu", 1, roles.matmul_right, _RIGHT),
    *_projections("Attention", 1),
    *_projections("PackedAttention", 1),
    *_projections("DecoderMaskedSelfAttention", 1),
    *_projections("LongformerAttention", 1, 4),
    *_projections("DecoderAttention", 2, 3),
    WeightInput(MICROSOFT, "MoE", 2, roles.experts, _EXPERTS),
    WeightInput(MICROSOFT, "MoE", 4, roles.experts, _EXPERTS),
    WeightInput(MICROSOFT, "MoE", 6, roles.experts, _EXPERTS),
    *(
        WeightInput(
            MICROSOFT, "EmbedLayerNormalization", i, roles.embedding, _EMBEDDING, opt_in=True
        )
        for i in (2, 3, 4)
    ),
)

_LSTM8 = "(G directions, C {}, 4 G gates of R hidden)"
_RNN8 = roles.recurrent_transposed

_MICROSOFT_QUANTIZED = (
    WeightInput(MICROSOFT, "QLinearConv", 3, roles.conv, _CONV, 4, 5),
    WeightInput(MICROSOFT, "QGemm", 0, roles.gemm_left, _GEMM_LEFT, 1, 2),
    WeightInput(MICROSOFT, "QGemm", 3, roles.gemm_right, _GEMM_RIGHT, 4, 5, -1),
    WeightInput(MICROSOFT, "MatMulIntegerToFloat", 0, roles.matmul_left, _LEFT, 2, 4, -2),
    WeightInput(MICROSOFT, "MatMulIntegerToFloat", 1, roles.matmul_right, _RIGHT, 3, 5, -1),
    WeightInput(MICROSOFT, "DynamicQuantizeMatMul", 1, roles.matmul_right, _RIGHT, 2, 3, -1),
    WeightInput(MICROSOFT, "QAttention", 1, roles.gemm_right, _PROJECTION, 4, 7, -1),
    WeightInput(MICROSOFT, "DynamicQuantizeLSTM", 1, _RNN8, _LSTM8.format("inputs"), 8, 9),
    WeightInput(MICROSOFT, "DynamicQuantizeLSTM", 2, _RNN8, _LSTM8.format("hidden"), 10, 11),
    *(
        WeightInput(
            MICROSOFT,
            "QEmbedLayerNormalization",
            i,
            roles.embedding,
            _EMBEDDING,
            i + 6,
            i + 11,
            opt_in=True,
        )
        for i in (2, 3, 4)
    ),
)

WEIGHT_INPUTS: tuple[WeightInput, ...] = (
    *_FLOAT,
    *_QUANTIZED,
    *_MICROSOFT_FLOAT,
    *_MICROSOFT_QUANTIZED,
)

_PACKED = "{} packs weights of a few bits into bytes, where no element can be zeroed by itself"

LEFT_ALONE: dict[tuple[str, str], str] = {
    **{
        (MICROSOFT, op_type): _PACKED.format(op_type)
        for op_type in (
            "MatMulNBits",
            "MatMulBnb4",
            "MatMulFpQ4",
            "MatMulNBitsMlp",
            "MatMulNBitsQkv",
            "MatMulNBitsQLoRA",
            "GatherBlockQuantized",
            "QMoE",
        )
    },
    (MICROSOFT, "MultiHeadAttention"): "MultiHeadAttention holds a bias only; its weights are "
    "those of the MatMuls before it",
    ("com.microsoft.nchwc", "Conv"): "onnxruntime has reordered it into blocks of channels for one "
    "processor; prune the model from which it was made",
}
"""Operators with weights that are left as they are, and why."""
