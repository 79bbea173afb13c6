"""Signal processing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, integer, number
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor


def _complex(x: Tensor) -> Tensor:
    """The last axis, real or real and imaginary parts, as one complex number."""
    if x.shape[-1] == 1:
        return torch.complex(x[..., 0], torch.zeros_like(x[..., 0]))
    return torch.view_as_complex(x.contiguous())


@operator("DFT", host=(1, 2))
def _dft(node: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Tensor:
    given = node.get("axis", 1 if node.opset < 20 else -2) if axis is None else integer(axis)
    along = axis_of(given, x.ndim)
    inverse, onesided = node.get("inverse", 0), node.get("onesided", 0)
    natural = 2 * (x.shape[along] - 1) if inverse and onesided else x.shape[along]
    count = natural if length is None else integer(length)
    values = _complex(x.double())
    if inverse and onesided:
        return torch.fft.irfft(values, count, along).unsqueeze(-1).to(x.dtype)
    if inverse:
        return torch.view_as_real(torch.fft.ifft(values, count, along)).to(x.dtype)
    spectrum = torch.fft.fft(values, count, along)
    if onesided:
        spectrum = spectrum.narrow(along, 0, count // 2 + 1)
    return torch.view_as_real(spectrum).to(x.dtype)


@operator("STFT", host=(1, 3))
def _stft(
    node: Node,
    signal: Tensor,
    step: Tensor,
    window: Tensor | None = None,
    length: Tensor | None = None,
) -> Tensor:
    if length is not None:
        size = integer(length)
    else:
        assert window is not None
        size = window.shape[0]
    values = _complex(signal if signal.ndim == 3 else signal.unsqueeze(-1))
    frames = values.unfold(1, size, integer(step))
    if window is not None:
        frames = frames * window
    spectrum = torch.fft.fft(frames, dim=-1)
    if node.get("onesided", 1):
        spectrum = spectrum[..., : size // 2 + 1]
    return torch.view_as_real(spectrum)


@operator("MelWeightMatrix", host=(0, 1, 2, 3, 4))
def _mel_weight_matrix(
    node: Node, bins: Tensor, length: Tensor, rate: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    count, size = integer(bins), integer(length)

    def mel(frequency: float) -> float:
        return float(2595 * torch.log10(torch.tensor(1 + frequency / 700, dtype=torch.float64)))

    begin, end = mel(number(low)), mel(number(high))
    places = begin + torch.arange(count + 2, dtype=torch.float64) * ((end - begin) / (count + 2))
    hertz = 700 * (10 ** (places / 2595) - 1)
    edges = torch.floor((size + 1) * hertz / number(rate)).long()
    matrix = torch.zeros(size // 2 + 1, count, dtype=torch.float64)
    for i in range(count):
        left, center, right = (int(e) for e in edges[i : i + 3])
        if center == left:
            matrix[center, i] = 1
        for j in range(left, center + 1) if center != left else ():
            matrix[j, i] = (j - left) / (center - left)
        for j in range(center, right) if right > center else ():
            matrix[j, i] = (right - j) / (right - center)
    return matrix.to(node.dtype(node.get("output_datatype", 1)))
