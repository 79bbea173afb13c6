"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor


@plain("MatMul")
def _matmul(a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@operator("Gemm")
def _gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if node.get("transA", 0):
        a = a.t()
    if not a.is_floating_point():
        alpha, beta = int(alpha), int(beta)
    if node.get("transB", 0):
        if alpha == 1 and (c is None or (beta == 1 and c.ndim == 1 and a.is_floating_point())):
            return functional.linear(a, b, c)
        b = b.t()
    if c is None:
        product = a @ b
        return product if alpha == 1 else alpha * product
    if a.is_floating_point():
        return torch.addmm(c, a, b, alpha=alpha, beta=beta)
    return alpha * (a @ b) + beta * c


@operator("Einsum")
def _einsum(node: Node, *tensors: Tensor) -> Tensor:
    return torch.einsum(node.get("equation").replace(" ", ""), *tensors)


@plain("MatMulInteger")
def _matmul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    left, right = a.to(torch.int32), b.to(torch.int32)
    if a_zero is not None:
        zero = a_zero.to(torch.int32)
        left = left - (zero[..., None] if zero.ndim == 1 and zero.numel() > 1 else zero)
    if b_zero is not None:
        right = right - b_zero.to(torch.int32)
    return torch.matmul(left, right)
