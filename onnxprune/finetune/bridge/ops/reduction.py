"""Reductions, extrema, sorting and running sums."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, integer, ints
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

Reduce = Callable[["Tensor", tuple[int, ...], bool], "Tensor"]


def _prod(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype) if axes else x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not axes:
        return x
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return torch.div(x.sum(axes, keepdim=keep), count, rounding_mode="trunc").to(x.dtype)


def _extreme(x: Tensor, axes: tuple[int, ...], keep: bool, *, largest: bool) -> Tensor:
    if not axes:
        return x
    if x.dtype == torch.bool:
        return _extreme(x.to(torch.uint8), axes, keep, largest=largest).to(torch.bool)
    if any(not x.shape[axis] for axis in axes):
        shape = [
            1 if i in axes else size for i, size in enumerate(x.shape) if keep or i not in axes
        ]
        if x.is_floating_point():
            return torch.full(shape, -math.inf if largest else math.inf, dtype=x.dtype)
        info = torch.iinfo(x.dtype)
        return torch.full(shape, info.min if largest else info.max, dtype=x.dtype)
    return x.amax(axes, keepdim=keep) if largest else x.amin(axes, keepdim=keep)


def _max(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, largest=True)


def _min(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, largest=False)


def _l1(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _sum(x.abs(), axes, keep)


def _l2(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not axes:
        return x.abs()
    if x.is_floating_point():
        return torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return _sum(x.square(), axes, keep).double().sqrt().to(x.dtype)


def _log(x: Tensor) -> Tensor:
    return x.log() if x.is_floating_point() else x.double().log().to(x.dtype)


def _log_sum(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _log(_sum(x, axes, keep))


def _log_sum_exp(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    if not axes:
        return x
    if x.is_floating_point() and x.numel():
        return torch.logsumexp(x, axes, keepdim=keep)
    return _sum(x.double().exp(), axes, keep).log().to(x.dtype)


def _sum_square(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    return _sum(x.square(), axes, keep)


_REDUCTIONS: dict[str, Reduce] = {
    "ReduceSum": _sum, "ReduceMean": _mean, "ReduceProd": _prod, "ReduceMax": _max,
    "ReduceMin": _min, "ReduceL1": _l1, "ReduceL2": _l2, "ReduceLogSum": _log_sum,
    "ReduceLogSumExp": _log_sum_exp, "ReduceSumSquare": _sum_square,
}  # fmt: skip


@operator(*_REDUCTIONS, host=(1,))
def _reduce(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    listed = node.get("axes") if axes is None else ints(axes)
    keep = bool(node.get("keepdims", 1))
    if not listed:
        if node.get("noop_with_empty_axes", 0):
            return _REDUCTIONS[node.op_type](x, (), keep)
        listed = range(x.ndim)
        if not x.ndim:
            return _REDUCTIONS[node.op_type](x.reshape(1), (0,), False)
    return _REDUCTIONS[node.op_type](x, tuple(axis_of(a, x.ndim) for a in listed), keep)


@operator("ArgMax", "ArgMin")
def _arg_extreme(node: Node, x: Tensor) -> Tensor:
    axis = axis_of(node.get("axis", 0), x.ndim)
    values = x if x.dtype != torch.bool else x.to(torch.uint8)
    last = bool(node.get("select_last_index", 0))
    if last:
        values = values.flip(axis)
    best = (
        values.amax(axis, keepdim=True)
        if node.op_type == "ArgMax"
        else values.amin(axis, keepdim=True)
    )
    index = (values == best).to(torch.uint8).argmax(axis, keepdim=bool(node.get("keepdims", 1)))
    return x.shape[axis] - 1 - index if last else index


@operator("TopK", host=(1,))
def _top_k(node: Node, x: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    axis = axis_of(node.get("axis", -1), x.ndim)
    descending = bool(node.get("largest", 1))
    # A stable sort: among equals those that come first win, as ONNX has it.
    values, indices = torch.sort(x, dim=axis, descending=descending, stable=True)
    count = integer(k)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def _running(node: Node, x: Tensor, axis: Tensor, *, product: bool) -> Tensor:
    along = axis_of(integer(axis), x.ndim)
    reverse = bool(node.get("reverse", 0))
    values = x.flip(along) if reverse else x
    if node.get("exclusive", 0):
        first = torch.full_like(values.narrow(along, 0, 1), 1 if product else 0)
        values = torch.cat((first, values.narrow(along, 0, values.shape[along] - 1)), along)
    total = (torch.cumprod if product else torch.cumsum)(values, along, dtype=x.dtype)
    return total.flip(along) if reverse else total


@operator("CumSum", host=(1,))
def _cum_sum(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    return _running(node, x, axis, product=False)


@operator("CumProd", host=(1,))
def _cum_prod(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    return _running(node, x, axis, product=True)
