"""Arithmetic, comparison, logic and conversion, element by element."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, cast

import torch
from onnx import TensorProto

from onnxprune.finetune.bridge.dtypes import is_supported, type_name
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from onnxprune.finetune.bridge.registry import Function

_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin,
    "Asinh": torch.asinh, "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil,
    "Cos": torch.cos, "Cosh": torch.cosh, "Erf": torch.erf, "Exp": torch.exp,
    "Floor": torch.floor, "IsNaN": torch.isnan, "Log": torch.log, "Neg": torch.neg,
    "Reciprocal": torch.reciprocal, "Round": torch.round, "Sigmoid": torch.sigmoid,
    "Sign": torch.sign, "Sin": torch.sin, "Sinh": torch.sinh, "Sqrt": torch.sqrt,
    "Tan": torch.tan, "Tanh": torch.tanh, "Not": torch.logical_not,
    "BitwiseNot": torch.bitwise_not, "Det": torch.det,
}  # fmt: skip

_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "And": torch.logical_and,
    "Or": torch.logical_or, "Xor": torch.logical_xor, "Equal": torch.eq, "Greater": torch.gt,
    "GreaterOrEqual": torch.ge, "Less": torch.lt, "LessOrEqual": torch.le,
    "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip

for _name, _function in (*_UNARY.items(), *_BINARY.items()):
    plain(_name)(cast("Function", _function))


@plain("Identity")
def _identity(x: Tensor) -> Tensor:
    return x


@plain("Div")
def _div(a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@plain("Pow")
def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    if base.is_floating_point():
        if exponent.numel() == 1 and not exponent.requires_grad:
            return torch.pow(base, exponent.item()).reshape(_broadcast(base, exponent))
        return torch.pow(base, exponent.to(base.dtype))
    if exponent.is_floating_point():
        return torch.pow(base.double(), exponent.double()).to(base.dtype)
    return torch.pow(base, exponent.to(base.dtype))


def _broadcast(a: Tensor, b: Tensor) -> torch.Size:
    return torch.broadcast_shapes(a.shape, b.shape)


@operator("Mod")
def _mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


@operator("BitShift")
def _bit_shift(node: Node, a: Tensor, b: Tensor) -> Tensor:
    shift = (
        torch.bitwise_left_shift if node.get("direction") == "LEFT" else torch.bitwise_right_shift
    )
    return shift(a, b)


@plain("Max")
def _max(*tensors: Tensor) -> Tensor:
    return functools.reduce(torch.maximum, tensors)


@plain("Min")
def _min(*tensors: Tensor) -> Tensor:
    return functools.reduce(torch.minimum, tensors)


@plain("Sum")
def _sum(*tensors: Tensor) -> Tensor:
    return functools.reduce(torch.add, tensors)


@plain("Mean")
def _mean(*tensors: Tensor) -> Tensor:
    return functools.reduce(torch.add, tensors) / len(tensors)


@plain("Clip")
def _clip(x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    if low is None and high is None:
        return x
    return torch.clamp(x, low, high)


@plain("Where")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@operator("IsInf")
def _is_inf(node: Node, x: Tensor) -> Tensor:
    wanted = torch.zeros_like(x, dtype=torch.bool)
    if node.get("detect_positive", 1):
        wanted = wanted | torch.isposinf(x)
    if node.get("detect_negative", 1):
        wanted = wanted | torch.isneginf(x)
    return wanted


def _no_such_type(node: Node) -> str | None:
    code = node.get("to", TensorProto.FLOAT)
    return None if is_supported(code) else f"conversion to {type_name(code)} is not supported"


@operator("Cast", refuses=_no_such_type)
def _cast(node: Node, x: Tensor) -> Tensor:
    return x.to(node.dtype(node.get("to")))


@plain("CastLike")
def _cast_like(x: Tensor, like: Tensor) -> Tensor:
    return x.to(like.dtype)


@operator("BitCast", wide=True, refuses=_no_such_type)
def _bit_cast(node: Node, x: Tensor) -> Tensor:
    return x.contiguous().view(node.dtype(node.get("to")))


@operator("Dropout")
def _dropout(
    node: Node, x: Tensor, ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    share = 0.5 if ratio is None else float(ratio)
    if node.mode.dropout or (training is not None and bool(training)):
        if not share:
            return x, torch.ones_like(x, dtype=torch.bool)
        noise = torch.rand(x.shape, generator=node.mode.generator, device=x.device)
        mask = noise >= share
        return x * mask / (1 - share), mask
    return x, torch.ones_like(x, dtype=torch.bool)
