"""Sequences (lists of tensors) and optional values (None when empty)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, integer, ints
from onnxprune.finetune.bridge.registry import Node, operator, plain

if TYPE_CHECKING:
    from torch import Tensor


@plain("SequenceConstruct")
def _construct(*tensors: Tensor) -> list[Tensor]:
    return list(tensors)


@operator("SequenceEmpty")
def _empty(node: Node) -> list[Tensor]:
    del node
    return []


@plain("SequenceAt", host=(1,))
def _at(sequence: list[Tensor], position: Tensor) -> Tensor:
    return sequence[integer(position)]


@plain("SequenceLength")
def _length(sequence: list[Tensor]) -> Tensor:
    return torch.tensor(len(sequence), dtype=torch.int64)


@plain("SequenceInsert", host=(2,))
def _insert(sequence: list[Tensor], tensor: Tensor, position: Tensor | None = None) -> list[Tensor]:
    place = len(sequence) if position is None else integer(position)
    return [*sequence[:place], tensor, *sequence[place:]]


@plain("SequenceErase", host=(1,))
def _erase(sequence: list[Tensor], position: Tensor | None = None) -> list[Tensor]:
    place = axis_of(-1 if position is None else integer(position), len(sequence))
    return sequence[:place] + sequence[place + 1 :]


@operator("SplitToSequence", host=(1,))
def _split(node: Node, x: Tensor, split: Tensor | None = None) -> list[Tensor]:
    axis = axis_of(node.get("axis", 0), x.ndim)
    if split is None:
        parts = x.split(1, axis)
        return list(parts) if node.get("keepdims", 1) else [p.squeeze(axis) for p in parts]
    return list(x.split(ints(split) if split.ndim else integer(split), axis))


@operator("ConcatFromSequence")
def _concat(node: Node, sequence: list[Tensor]) -> Tensor:
    join = torch.stack if node.get("new_axis", 0) else torch.cat
    return join(sequence, node.get("axis"))


@plain("Optional", "OptionalGetElement")
def _same(value: Any = None) -> Any:
    return value


@plain("OptionalHasElement")
def _has_element(value: Any = None) -> Tensor:
    return torch.tensor(value is not None)
