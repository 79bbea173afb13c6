"""Geometry of sliding windows: padding of convolutions and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from onnxprune.finetune.bridge.registry import Node


@dataclass(frozen=True)
class Windows:
    """Sliding windows over spatial axes; one entry an axis in each field.

    ``begin`` and ``end`` are the pads; ``extra`` is what windows reach beyond the padded end where
    the number of windows is rounded up.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def symmetric(self) -> bool:
        """Equal pads on both sides, and no rounding up."""
        return self.begin == self.end and not any(self.extra)


def windows_of(node: Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
    """The windows of a node over spatial axes of ``sizes``."""
    rank = len(kernel)
    strides = tuple(node.get("strides") or (1,) * rank)
    dilations = tuple(node.get("dilations") or (1,) * rank)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begin, end = _pads(node, sizes, strides, reach)
    extra = (0,) * rank
    if node.get("ceil_mode", 0):
        extra = tuple(
            _beyond(size, b, e, s, r)
            for size, b, e, s, r in zip(sizes, begin, end, strides, reach, strict=True)
        )
    return Windows(tuple(kernel), strides, dilations, begin, end, extra)


def _beyond(size: int, begin: int, end: int, stride: int, reach: int) -> int:
    """How far the last window reaches beyond the padded end; it must not start in the padding."""
    count = -(-(size + begin + end - reach) // stride) + 1
    if (count - 1) * stride >= size + begin:
        count -= 1
    return max(0, (count - 1) * stride + reach - (size + begin + end))


def _pads(
    node: Node, sizes: Sequence[int], strides: Sequence[int], reach: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    rank = len(reach)
    auto = node.get("auto_pad", "NOTSET")
    if auto in {"NOTSET", ""}:
        pads = tuple(node.get("pads") or (0,) * 2 * rank)
        return pads[:rank], pads[rank:]
    if auto == "VALID":
        return (0,) * rank, (0,) * rank
    totals = [
        max(0, (-(-size // stride) - 1) * stride + span - size)
        for size, stride, span in zip(sizes, strides, reach, strict=True)
    ]
    small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def padded(x: Tensor, begin: Sequence[int], end: Sequence[int], value: float = 0.0) -> Tensor:
    """``x`` with its last axes padded by ``value``; negative pads crop."""
    if not any(begin) and not any(end):
        return x
    flat = [p for b, e in zip(reversed(begin), reversed(end), strict=True) for p in (b, e)]
    return functional.pad(x, flat, value=value)
