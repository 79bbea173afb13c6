"""Convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.ops.common import channel_shape
from onnxprune.finetune.bridge.ops.windows import padded, windows_of
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

_CONV: dict[int, Any] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: dict[int, Any] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@operator("Conv")
def convolve(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Conv: ``x`` ``(N, C, spatial...)`` with ``weight`` ``(O, C / group, kernel...)``."""
    outputs, windows = len(weight), windows_of(node, x.shape[2:], weight.shape[2:])
    padding: tuple[int, ...] = windows.begin
    if not windows.symmetric:
        x, padding = padded(x, windows.begin, windows.end), (0,) * len(windows.begin)
    if x.ndim == 4 and x.device.type == "cpu":
        x = x.to(memory_format=torch.channels_last)
    group = node.get("group", 1)
    live = node.mode.live.get(node.inputs[1]) if group == 1 else None
    if live is not None:
        x = x.index_select(1, live.inputs)
        weight = weight.index_select(0, live.outputs).index_select(1, live.inputs)
    result: Tensor = _CONV[weight.ndim - 2](
        x,
        weight,
        bias if live is None else None,
        windows.strides,
        padding,
        windows.dilations,
        group,
    )
    if live is None:
        return result
    return _among_constants(result, live.outputs, bias, outputs)


def _among_constants(y: Tensor, places: Tensor, bias: Tensor | None, channels: int) -> Tensor:
    """Channels put where they belong among others that are nothing but their bias."""
    shape = (len(y), channels, *y.shape[2:])
    if bias is None:
        return y.new_zeros(shape).index_copy(1, places, y)
    spread = bias.reshape(channel_shape(y.ndim))
    return spread.expand(shape).index_copy(1, places, y + spread[places])


@operator("ConvInteger")
def _conv_integer(
    node: Node,
    x: Tensor,
    weight: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
) -> Tensor:
    left, right = x.double(), weight.double()
    if x_zero is not None:
        left = left - x_zero.double()
    if w_zero is not None:
        zero = w_zero.double()
        right = right - (zero.reshape(-1, *(1,) * (weight.ndim - 1)) if zero.numel() > 1 else zero)
    return convolve(node, left, right).to(torch.int32)


@operator("ConvTranspose")
def _conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rank = weight.ndim - 2
    strides = tuple(node.get("strides") or (1,) * rank)
    dilations = tuple(node.get("dilations") or (1,) * rank)
    more = list(node.get("output_padding") or (0,) * rank)
    kernel = node.get("kernel_shape") or weight.shape[2:]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    # The size of the output before any of it is cropped.
    full = [(n - 1) * s + r for n, s, r in zip(x.shape[2:], strides, reach, strict=True)]
    begin, end = _transposed_pads(
        node, x, strides, [f + m for f, m in zip(full, more, strict=True)]
    )
    transposed = _TRANSPOSED[rank]
    crop_end = [e - m for e, m in zip(end, more, strict=True)]
    if list(begin) == crop_end and min(begin) >= 0:
        result: Tensor = transposed(
            x, weight, bias, strides, tuple(begin), 0, node.get("group", 1), dilations
        )
        return result
    y = transposed(x, weight, None, strides, 0, 0, node.get("group", 1), dilations)
    y = padded(y, [-b for b in begin], [-e for e in crop_end])
    return y if bias is None else y + bias.reshape(channel_shape(y.ndim))


def _transposed_pads(
    node: Node, x: Tensor, strides: tuple[int, ...], full: list[int]
) -> tuple[list[int], list[int]]:
    """How much of the full output is cropped at the begin and the end of each axis."""
    rank = len(strides)
    auto = node.get("auto_pad", "NOTSET")
    wanted = node.get("output_shape")
    if wanted is None and auto in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        pads = list(node.get("pads") or (0,) * 2 * rank)
        return pads[:rank], pads[rank:]
    totals = [f - w for f, w in zip(full, wanted[-rank:], strict=True)]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if auto == "SAME_UPPER" else (large, small)


@operator("Col2Im", host=(1, 2))
def _col2im(node: Node, x: Tensor, image: Tensor, block: Tensor) -> Tensor:
    sizes, kernel = image.tolist(), block.tolist()
    rank = len(sizes)
    strides = tuple(node.get("strides") or (1,) * rank)
    dilations = tuple(node.get("dilations") or (1,) * rank)
    pads = tuple(node.get("pads") or (0,) * 2 * rank)
    # Adding up blocks is the transposed convolution with a kernel of ones at each block position.
    counts = [
        (s + pads[i] + pads[i + rank] - dilations[i] * (kernel[i] - 1) - 1) // strides[i] + 1
        for i, s in enumerate(sizes)
    ]
    positions = 1
    for k in kernel:
        positions *= k
    channels = x.shape[1] // positions
    blocks = x.reshape(x.shape[0] * channels, positions, *counts)
    ones = torch.eye(positions, dtype=x.dtype, device=x.device).reshape(positions, 1, *kernel)
    full = _TRANSPOSED[rank](blocks, ones, None, strides, 0, 0, 1, dilations)
    grown = [
        p + q + s - f
        for p, q, s, f in zip(pads[:rank], pads[rank:], sizes, full.shape[2:], strict=True)
    ]
    full = padded(full, [0] * rank, grown)
    full = padded(full, [-p for p in pads[:rank]], [-p for p in pads[rank:]])
    return full.reshape(x.shape[0], channels, *sizes)


@operator("DeformConv")
def _deform_conv(
    node: Node,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    kernel_h, kernel_w = weight.shape[2:]
    windows = windows_of(node, x.shape[2:], weight.shape[2:])
    x = padded(x, windows.begin, windows.end)
    count, channels, height, width = x.shape
    out_h, out_w = offset.shape[2:]
    groups = node.get("offset_group", 1)
    taps = kernel_h * kernel_w
    offset = offset.reshape(count, groups, taps, 2, out_h, out_w)
    arange = {"device": x.device, "dtype": x.dtype}
    rows = torch.arange(out_h, **arange) * windows.strides[0]  # type: ignore[call-overload]
    columns = torch.arange(out_w, **arange) * windows.strides[1]  # type: ignore[call-overload]
    tap_rows = torch.arange(kernel_h, **arange).repeat_interleave(kernel_w) * windows.dilations[0]  # type: ignore[call-overload]
    tap_columns = torch.arange(kernel_w, **arange).repeat(kernel_h) * windows.dilations[1]  # type: ignore[call-overload]
    y = rows[None, :, None] + tap_rows[:, None, None] + offset[:, :, :, 0]
    z = columns[None, None, :] + tap_columns[:, None, None] + offset[:, :, :, 1]
    grid = torch.stack((2 * z / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    parts = x.reshape(count * groups, channels // groups, height, width)
    samples = functional.grid_sample(
        parts, grid.reshape(count * groups, taps * out_h, out_w, 2), align_corners=True
    ).reshape(count, groups, channels // groups, taps, out_h * out_w)
    if mask is not None:
        samples = samples * mask.reshape(count, groups, 1, taps, out_h * out_w)
    group = node.get("group", 1)
    columns_ = samples.reshape(count, group, channels // group * taps, out_h * out_w)
    matrices = weight.reshape(group, weight.shape[0] // group, -1)
    result = torch.matmul(matrices, columns_).reshape(count, weight.shape[0], out_h, out_w)
    return result if bias is None else result + bias.reshape(channel_shape(4))
