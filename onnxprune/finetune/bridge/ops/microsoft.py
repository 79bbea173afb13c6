"""Operators of com.microsoft that onnxruntime's transformer optimizer writes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.attention import join_heads, split_heads
from onnxprune.finetune.bridge.registry import MICROSOFT, Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor


@plain("Gelu", domain=MICROSOFT)
def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x)


@plain("BiasGelu", domain=MICROSOFT)
def _bias_gelu(x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


@plain("FastGelu", domain=MICROSOFT)
def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT)
def _quick_gelu(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.702) * x)


@operator("FusedMatMul", domain=MICROSOFT)
def _fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    a = _turned(a, last=node.get("transA", 0), batch=node.get("transBatchA", 0))
    b = _turned(b, last=node.get("transB", 0), batch=node.get("transBatchB", 0))
    alpha = node.get("alpha", 1.0)
    product = torch.matmul(a, b)
    return product if alpha == 1 else alpha * product


def _turned(x: Tensor, *, last: int, batch: int) -> Tensor:
    """``last`` swaps the last two axes; ``batch`` moves the first axis to the last but one."""
    if batch:
        x = x.movedim(0, -2)
    return x.transpose(-1, -2) if last and x.ndim > 1 else x


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in {torch.float16, torch.bfloat16} else x


def _normalised(
    node: Node, x: Tensor, gamma: Tensor, beta: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    inner = _wide(x)
    variance, mean = torch.var_mean(inner, -1, correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + node.get("epsilon", 1e-12))
    y = (inner - mean) * inverse * gamma.to(inner.dtype)
    y = y if beta is None else y + beta.to(inner.dtype)
    return y.to(x.dtype), mean, inverse


@operator("SkipLayerNormalization", domain=MICROSOFT)
def _skip_layer_normalization(
    node: Node,
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, ...]:
    total = x + skip if bias is None else x + skip + bias
    return (*_normalised(node, total, gamma, beta), total)


@operator("SkipSimplifiedLayerNormalization", domain=MICROSOFT)
def _skip_simplified(
    node: Node, x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    total = x + skip if bias is None else x + skip + bias
    inner = _wide(total)
    square = inner.square().mean(-1, keepdim=True)
    inverse = torch.rsqrt(square + node.get("epsilon", 1e-12))
    y = (inner * inverse * gamma.to(inner.dtype)).to(x.dtype)
    return y, square, inverse, total


@operator("EmbedLayerNormalization", domain=MICROSOFT)
def _embed_layer_normalization(
    node: Node,
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    places: Tensor,
    segment_table: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> tuple[Tensor, ...]:
    if positions is None:
        positions = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
    total = words[ids.long()] + places[positions.long()]
    if segments is not None and segment_table is not None:
        total = total + segment_table[segments.long()]
    if mask is None:
        lengths = torch.zeros(ids.shape[0], dtype=torch.int32, device=ids.device)
    else:
        lengths = mask.sum(1).to(torch.int32)
    return _normalised(node, total, gamma, beta)[0], lengths, total


def _causal_cache(node: Node) -> str | None:
    if node.get("do_rotary", 0):
        return "rotary embedding inside com.microsoft.Attention is not supported"
    if node.get("past_present_share_buffer", 0):
        return "a shared past and present buffer is not supported"
    return None


@operator("Attention", domain=MICROSOFT, refuses=_causal_cache)
def _attention(
    node: Node,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
) -> tuple[Tensor, ...]:
    heads = node.get("num_heads")
    total = weights.shape[1]
    sizes = node.get("qkv_hidden_sizes") or [total // 3] * 3
    projected = torch.matmul(x, weights)
    if bias is not None:
        projected = projected + bias
    q, k, v = (split_heads(part, heads) for part in projected.split(sizes, -1))
    if past is not None:
        k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
    scale = node.get("scale") or 1 / math.sqrt(q.shape[-1])
    logits = torch.matmul(q, k.transpose(-1, -2)) * scale
    if mask is not None:
        logits = logits + _mask_bias(node, mask, logits)
    if attention_bias is not None:
        logits = logits + attention_bias
    if node.get("unidirectional", 0):
        before = k.shape[2] - q.shape[2]
        seen = torch.ones(logits.shape[-2:], dtype=torch.bool, device=x.device).tril(before)
        lowest = torch.finfo(logits.dtype).min
        logits = torch.where(seen, logits, torch.full_like(logits, lowest))
    y = torch.matmul(torch.softmax(logits, -1), v)
    present = torch.stack((k, v)) if any(node.outputs[1:]) else x.new_zeros(0)
    return join_heads(y), present


def _mask_bias(node: Node, mask: Tensor, logits: Tensor) -> Tensor:
    """The filter value where a key is masked; the mask's shape says what it holds."""
    batch, _, queries, keys = logits.shape
    if mask.ndim == 1:  # the end of each sample, then perhaps its start
        place = torch.arange(keys, device=mask.device)
        kept = place < mask[:batch, None]
        if len(mask) == 2 * batch:
            kept = kept & (place >= mask[batch:, None])
        kept = kept[:, None, None, :]
    elif mask.ndim == 2:
        kept = mask[:, None, None, :] != 0
    elif mask.ndim == 3:
        kept = mask[:, None] != 0
    else:
        past = keys - queries
        kept = mask[:, :, past : past + queries, :keys] != 0
    value = torch.tensor(
        node.get("mask_filter_value", -10000.0), dtype=logits.dtype, device=logits.device
    )
    return torch.where(kept, torch.zeros_like(value), value)
