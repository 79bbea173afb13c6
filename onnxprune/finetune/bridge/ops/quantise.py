"""Quantization: to a grid and back, and gradients straight through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onnxprune.finetune.bridge.dtypes import is_supported, torch_dtype, type_name
from onnxprune.finetune.bridge.ops.common import axis_of
from onnxprune.finetune.bridge.ops.convolution import convolve
from onnxprune.finetune.bridge.registry import INTERNAL, Node, operator

if TYPE_CHECKING:
    from torch import Tensor

Zero = Any
"""A zero point: an integer tensor, or 0."""


def grid_shape(values: Tensor, rank: int, axis: int) -> Tensor:
    """Scales or zero points, one for all or one an index of ``axis``, in a shape that broadcasts."""
    if values.numel() == 1:
        return values.reshape(())
    if values.ndim != 1:
        return values
    shape = [1] * rank
    shape[axis_of(axis, rank)] = -1
    return values.reshape(shape)


def on_grid(codes: Tensor, scale: Tensor, zero: Zero) -> Tensor:
    """The floats that integers stand for: ``(codes - zero) * scale``, float32."""
    point = zero.to(torch.float64) if isinstance(zero, torch.Tensor) else zero
    return ((codes.to(torch.float64) - point) * scale.to(torch.float64)).to(torch.float32)


def to_codes(x: Tensor, scale: Tensor, zero: Zero, dtype: torch.dtype) -> Tensor:
    """The nearest codes of floats, halves to even, saturated to ``dtype``; still as floats."""
    info = torch.iinfo(dtype)
    point = zero.to(x.dtype) if isinstance(zero, torch.Tensor) else zero
    return (torch.round(x / scale.to(x.dtype)) + point).clamp(info.min, info.max)


def _refuses(node: Node) -> str | None:
    code = node.get("output_dtype", 0) or 1
    return None if is_supported(code) else f"quantizing to {type_name(code)} is not supported"


def _blocks(values: Tensor | None, x: Tensor, node: Node) -> Tensor | None:
    """Scales or zero points of blocks, one for each element of ``x``; others in a shape that fits."""
    if values is None:
        return None
    axis, size = axis_of(node.get("axis", 1), x.ndim), node.get("block_size", 0)
    if not size:
        return grid_shape(values, x.ndim, axis)
    return values.repeat_interleave(size, axis).narrow(axis, 0, x.shape[axis])


@operator("QuantizeLinear", wide=True, refuses=_refuses)
def _quantize(node: Node, x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    dtype = zero.dtype if zero is not None else torch_dtype(node.get("output_dtype", 0) or 2)
    if dtype.is_floating_point:
        msg = "quantizing to floats is not supported"
        raise RuntimeError(msg)
    point, steps = _blocks(zero, x, node), _blocks(scale, x, node)
    assert steps is not None
    start: Zero = 0 if point is None else point
    if node.mode.straight_through:
        return _straight(x, steps, start, dtype)
    return to_codes(x, steps, start, dtype).to(dtype)


def _straight(x: Tensor, scale: Tensor, zero: Zero, dtype: torch.dtype) -> Tensor:
    """The codes as floats; the gradient passes as if nothing was rounded, inside the range."""
    info = torch.iinfo(dtype)
    ratio = x / scale.to(x.dtype)
    point = zero.to(x.dtype) if isinstance(zero, torch.Tensor) else zero
    return (ratio + (torch.round(ratio) - ratio).detach() + point).clamp(info.min, info.max)


@operator("DequantizeLinear", wide=True)
def _dequantize(node: Node, codes: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    steps, point = _blocks(scale, codes, node), _blocks(zero, codes, node)
    assert steps is not None
    if codes.is_floating_point():  # see Mode.straight_through
        return (codes if point is None else codes - point.to(codes.dtype)) * steps
    shifted = (
        codes.to(torch.int32) if point is None else codes.to(torch.int32) - point.to(torch.int32)
    )
    return shifted.to(scale.dtype) * steps


@operator("FakeQuantize", domain=INTERNAL, wide=True)
def _fake_quantize(
    node: Node,
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    out_scale: Tensor,
    out_zero: Tensor | None = None,
) -> Tensor:
    """A QuantizeLinear and the DequantizeLinear after it; the gradient passes inside the range."""
    dtype = torch_dtype(node.get("quantize_output_dtype", 0) or 2) if zero is None else zero.dtype
    axis = node.get("quantize_axis", 1)
    point: Zero = 0 if zero is None else grid_shape(zero, x.ndim, axis)
    codes = _straight(x, grid_shape(scale, x.ndim, axis), point, dtype)
    axis = node.get("axis", 1)
    back: Zero = 0 if out_zero is None else grid_shape(out_zero, x.ndim, axis).to(x.dtype)
    return (codes - back) * grid_shape(out_scale, x.ndim, axis).to(x.dtype)


@operator("DequantizeWeight", domain=INTERNAL, wide=True)
def _dequantize_weight(
    node: Node, latent: Tensor, scale: Tensor, zero: Tensor | None = None
) -> Tensor:
    """A trained weight on its grid; the gradient goes straight to the float behind it."""
    axis = node.get("axis", 1)
    step = grid_shape(scale, latent.ndim, axis)
    point: Zero = 0 if zero is None else grid_shape(zero, latent.ndim, axis)
    with torch.no_grad():
        codes = to_codes(latent.double(), step, point, torch_dtype(node.get("code")))
        rounded = on_grid(codes, step, point)
    return (latent + (rounded - latent).detach()).to(scale.dtype)


def _requantized(total: Tensor, factor: Tensor, zero: Tensor) -> Tensor:
    info = torch.iinfo(zero.dtype)
    return (torch.round(total * factor) + zero.double()).clamp(info.min, info.max).to(zero.dtype)


@operator("QLinearMatMul")
def _qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    del node
    if a_zero.ndim == 1 and a_zero.numel() > 1:
        a_zero, a_scale = a_zero[:, None], a_scale[:, None]
    product = torch.matmul(a.double() - a_zero.double(), b.double() - b_zero.double())
    return _requantized(product, a_scale.double() * b_scale.double() / y_scale.double(), y_zero)


@operator("QLinearConv")
def _qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    point = grid_shape(w_zero, w.ndim, 0).double()
    shift = None if bias is None else bias.double()
    total = convolve(node, x.double() - x_zero.double(), w.double() - point, shift)
    step = grid_shape(w_scale, total.ndim, 1).double()
    return _requantized(total, x_scale.double() * step / y_scale.double(), y_zero)
