"""Attention and rotary embedding of the default domain."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import torch

from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(batch, steps, heads * size)`` as ``(batch, heads, steps, size)``."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """The inverse of :func:`split_heads`."""
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


@operator("Attention")
def _attention(
    node: Node,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    valid: Tensor | None = None,
) -> tuple[Tensor, ...]:
    packed = q.ndim == 3
    if packed:
        q = split_heads(q, node.get("q_num_heads"))
        k, v = (split_heads(t, node.get("kv_num_heads")) for t in (k, v))
    if past_key is not None and past_value is not None:
        k, v = torch.cat((past_key, k), 2), torch.cat((past_value, v), 2)
    offset: Any = 0
    if past_key is not None:
        offset = past_key.shape[2]
    elif valid is not None:
        offset = valid.reshape(-1, 1, 1, 1) - q.shape[2]
    bias = _bias(node, q, k, mask, offset, valid)
    keys, values = k, v
    if q.shape[1] != k.shape[1]:
        keys, values = (t.repeat_interleave(q.shape[1] // k.shape[1], 1) for t in (k, v))
    # Both factors are scaled by the root, as the schema's body has it: less overflow in float16.
    root = math.sqrt(node.get("scale") or 1 / math.sqrt(q.shape[-1]))
    scale = torch.tensor(root, dtype=q.dtype, device=q.device)
    logits = torch.matmul(q * scale, (keys * scale).transpose(-1, -2))
    exposed = logits
    if cap := node.get("softcap", 0.0):
        logits = cap * torch.tanh(logits / cap)
        exposed = logits if node.get("qk_matmul_output_mode", 0) else exposed
    exposed = logits if node.get("qk_matmul_output_mode", 0) == 0 else exposed
    biased = logits + bias
    weights = _softmax(node, biased, bias).to(q.dtype)
    mode = node.get("qk_matmul_output_mode", 0)
    exposed = {2: biased, 3: weights}.get(mode, exposed)
    y = torch.matmul(weights, values)
    return (join_heads(y) if packed else y), k, v, exposed.to(q.dtype)


def _bias(
    node: Node, q: Tensor, k: Tensor, mask: Tensor | None, offset: Any, valid: Tensor | None
) -> Tensor:
    """What is added to the logits: the mask, causality, the window and the valid lengths."""
    queries, keys = q.shape[2], k.shape[2]
    bias = torch.zeros((queries, keys), dtype=q.dtype, device=q.device)
    never = torch.tensor(-math.inf, dtype=q.dtype, device=q.device)
    if mask is not None:
        missing = keys - mask.shape[-1]
        if mask.dtype == torch.bool:
            mask = torch.where(mask, torch.zeros_like(never), never)
        if missing > 0:
            mask = torch.nn.functional.pad(mask, (0, missing), value=-math.inf)
        bias = bias + mask
    key = torch.arange(keys, device=q.device)
    place = torch.arange(queries, device=q.device)[:, None] + offset
    allowed = torch.ones((queries, keys), dtype=torch.bool, device=q.device)
    if node.get("is_causal", 0):
        allowed = allowed & (key <= place)
    if (left := node.get("left_window_size", -1)) >= 0:
        allowed = allowed & (place - key <= left)
    if (right := node.get("right_window_size", -1)) >= 0:
        allowed = allowed & (key - place <= right)
    if valid is not None:
        allowed = allowed & (key < valid.reshape(-1, 1, 1, 1))
    return torch.where(allowed, bias, never)


def _softmax(node: Node, logits: Tensor, bias: Tensor) -> Tensor:
    """Softmax over keys; a query that may look at no key gets zeros."""
    if (precision := node.get("softmax_precision")) is not None:
        logits = logits.to(node.dtype(precision))
    blind = torch.isneginf(bias).all(-1, keepdim=True)
    logits = torch.where(blind, torch.zeros_like(logits), logits)
    if logits.dtype in {torch.float16, torch.bfloat16}:  # each step rounds, as in the schema's body
        powers = torch.exp(logits - logits.amax(-1, keepdim=True))
        if powers.dtype == torch.bfloat16:  # and so does each addition, in the reference
            total = functools.reduce(torch.add, powers.unbind(-1)).unsqueeze(-1)
        else:
            total = powers.sum(-1, keepdim=True)
        weights = powers / total
    else:
        weights = torch.softmax(logits, -1)
    return torch.where(blind, torch.zeros_like(weights), weights)


@operator("RotaryEmbedding")
def _rotary_embedding(
    node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None
) -> Tensor:
    packed = x.ndim == 3
    parts = x.reshape(*x.shape[:2], node.get("num_heads"), -1) if packed else x.transpose(1, 2)
    size = node.get("rotary_embedding_dim", 0) or parts.shape[-1]
    turned, rest = parts[..., :size], parts[..., size:]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos.unsqueeze(2), sin.unsqueeze(2)
    if node.get("interleaved", 0):
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned.chunk(2, -1)
    real, imaginary = cos * a - sin * b, sin * a + cos * b
    if node.get("interleaved", 0):
        turned = torch.stack((real, imaginary), -1).flatten(-2)
    else:
        turned = torch.cat((real, imaginary), -1)
    y = torch.cat((turned, rest), -1)
    return y.reshape(x.shape) if packed else y.transpose(1, 2)
