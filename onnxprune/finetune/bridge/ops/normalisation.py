"""Normalisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import axis_of, channel_shape, last_axes
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor


@operator("BatchNormalization")
def _batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    epsilon, momentum = node.get("epsilon", 1e-5), node.get("momentum", 0.9)
    dtype = x.dtype
    if scale.dtype != dtype or mean.dtype != dtype:
        wide = torch.promote_types(torch.promote_types(dtype, scale.dtype), mean.dtype)
        x, scale, bias, mean, variance = (t.to(wide) for t in (x, scale, bias, mean, variance))
    if mean.requires_grad or variance.requires_grad:  # computed in the graph, not statistics
        shape = channel_shape(x.ndim)
        inverse = torch.rsqrt(variance.reshape(shape) + epsilon)
        y = (x - mean.reshape(shape)) * inverse * scale.reshape(shape) + bias.reshape(shape)
        return y.to(dtype)
    if not (node.get("training_mode", 0) or node.mode.batch_norm):
        y = functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)
        return y.to(dtype)
    axes = (0, *last_axes(x.ndim))
    with torch.no_grad():
        # ONNX keeps the population variance; torch's own running variance is the sample one.
        batch_variance, batch_mean = torch.var_mean(x, axes, correction=0)
        new_mean = mean * momentum + batch_mean * (1 - momentum)
        new_variance = variance * momentum + batch_variance * (1 - momentum)
        if node.mode.batch_norm and not node.get("training_mode", 0):
            mean.copy_(new_mean)
            variance.copy_(new_variance)
    y = functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    return y.to(dtype), new_mean, new_variance


@operator("InstanceNormalization")
def _instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, last_axes(x.ndim), correction=0, keepdim=True)
    normal = (x - mean) * torch.rsqrt(variance + node.get("epsilon", 1e-5))
    shape = channel_shape(x.ndim)
    return normal * scale.reshape(shape) + bias.reshape(shape)


@operator("LayerNormalization")
def _layer_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor, Tensor]:
    axis = axis_of(node.get("axis", -1), x.ndim)
    epsilon, shape = node.get("epsilon", 1e-5), x.shape[axis:]
    alone = not any(node.outputs[1:])
    if alone and scale.shape == shape and (bias is None or bias.shape == shape):
        return functional.layer_norm(x, shape, scale, bias, epsilon)
    inner = x.to(node.dtype(node.get("stash_type", 1)))
    variance, mean = torch.var_mean(inner, tuple(range(axis, x.ndim)), correction=0, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    y = ((inner - mean) * inverse).to(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", -1), x.ndim)
    inner = x.to(node.dtype(node.get("stash_type", 1)))
    square = inner.square().mean(tuple(range(axis, x.ndim)), keepdim=True)
    normal = inner * torch.rsqrt(square + node.get("epsilon", 1e-5))
    return normal.to(x.dtype) * scale


@operator("GroupNormalization")
def _group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.get("num_groups")
    if scale.numel() != x.shape[1]:  # revision 18 has one scale a group
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


@operator("LRN")
def _lrn(node: Node, x: Tensor) -> Tensor:
    size = node.get("size")
    before = (size - 1) // 2
    squares = x.square().reshape(x.shape[0], 1, x.shape[1], -1)
    around = functional.pad(squares, (0, 0, before, size - 1 - before))
    mean = functional.avg_pool2d(around, (size, 1), 1).reshape(x.shape)
    return x / (node.get("bias", 1.0) + node.get("alpha", 1e-4) * mean) ** node.get("beta", 0.75)


@operator("LpNormalization")
def _lp_normalization(node: Node, x: Tensor) -> Tensor:
    order = node.get("p", 2)
    norm = torch.linalg.vector_norm(x, order, node.get("axis", -1), keepdim=True)
    return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, 1.0, norm))


@operator("MeanVarianceNormalization")
def _mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    axes = tuple(node.get("axes") or (0, 2, 3))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return (x - mean) / (variance.sqrt() + 1e-9)
