"""Attention by a running state, and the causal convolution that goes before it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.attention import join_heads, split_heads
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor


@operator("CausalConvWithState")
def _causal_conv(
    node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    before = weight.shape[2] - 1
    known = x.new_zeros(*x.shape[:2], before) if past is None else past
    whole = torch.cat((known, x), 2)
    y = functional.conv1d(whole, weight, bias, groups=x.shape[1])
    if node.get("activation", "none") in {"silu", "swish"}:
        y = functional.silu(y)
    return y, whole[..., whole.shape[2] - before :]


@operator("LinearAttention")
def _linear_attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Token by token, as the operator is defined; ``state`` is ``(batch, heads, keys, values)``."""
    heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
    dtype = torch.promote_types(query.dtype, torch.float32)
    q = split_heads(query.to(dtype), heads)
    k, v = (split_heads(t.to(dtype), kv_heads) for t in (key, value))
    scale = node.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    shape = (k.shape[0], kv_heads, k.shape[-1], v.shape[-1])
    state = k.new_zeros(shape) if past is None else past.to(dtype)
    gates = None if decay is None else split_heads(decay.to(dtype), kv_heads).exp()
    rates = None if beta is None else split_heads(beta.to(dtype), beta.shape[-1])
    outputs = []
    for step in range(k.shape[2]):
        k_t, v_t = k[:, :, step], v[:, :, step]
        if gates is not None:
            state = state * gates[:, :, step].unsqueeze(-1)
        if rates is not None:
            retrieved = torch.einsum("bhkv,bhk->bhv", state, k_t)
            v_t = rates[:, :, step] * (v_t - retrieved)
        state = state + k_t.unsqueeze(-1) * v_t.unsqueeze(-2)
        seen = state.repeat_interleave(heads // kv_heads, 1)
        outputs.append(scale * torch.einsum("bhk,bhkv->bhv", q[:, :, step], seen))
    y = join_heads(torch.stack(outputs, 2)).to(query.dtype)
    return y, state.to(query.dtype if past is None else past.dtype)
