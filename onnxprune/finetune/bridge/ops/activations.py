"""Activation functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import axis_of
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor

plain("Relu")(torch.relu)
plain("Softsign")(functional.softsign)
plain("HardSwish")(functional.hardswish)


@plain("Softplus")
def _softplus(x: Tensor) -> Tensor:
    return torch.logaddexp(x, torch.zeros_like(x))


@plain("Mish")
def _mish(x: Tensor) -> Tensor:
    return x * torch.tanh(_softplus(x))


@operator("LeakyRelu")
def _leaky_relu(node: Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


@plain("PRelu")
def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def _elu(node: Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, x: Tensor) -> Tensor:
    alpha = node.get("alpha", 1.67326319217681884765625)
    return node.get("gamma", 1.05070102214813232421875) * functional.elu(x, alpha)


@operator("Celu")
def _celu(node: Node, x: Tensor) -> Tensor:
    return functional.celu(x, node.get("alpha", 1.0))


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1)


@operator("ThresholdedRelu")
def _thresholded_relu(node: Node, x: Tensor) -> Tensor:
    return torch.where(x > node.get("alpha", 1.0), x, torch.zeros_like(x))


@operator("Swish")
def _swish(node: Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.get("alpha", 1.0) * x)


@operator("SwiGLU")
def _swiglu(node: Node, gate: Tensor, x: Tensor) -> Tensor:
    return _swish(node, gate) * x


@operator("Gelu")
def _gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


@operator("Shrink")
def _shrink(node: Node, x: Tensor) -> Tensor:
    bias, limit = node.get("bias", 0.0), node.get("lambd", 0.5)
    zero = torch.zeros_like(x)
    small = torch.where(x > limit, x - bias, zero) if x.is_floating_point() else None
    if small is None:  # integers: the bias is added in float, as the schema's body does
        y = x.double()
        y = torch.where(y < -limit, y + bias, torch.where(y > limit, y - bias, torch.zeros_like(y)))
        return y.to(x.dtype)
    return torch.where(x < -limit, x + bias, small)


@operator("Softmax")
def _softmax(node: Node, x: Tensor) -> Tensor:
    return torch.softmax(x, node.get("axis", -1))


@operator("LogSoftmax")
def _log_softmax(node: Node, x: Tensor) -> Tensor:
    return torch.log_softmax(x, node.get("axis", -1))


@operator("Hardmax")
def _hardmax(node: Node, x: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", -1), x.ndim)
    first = x.argmax(axis, keepdim=True)
    return torch.zeros_like(x).scatter(axis, first, 1.0)
