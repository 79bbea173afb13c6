"""What each operator multiplies its weights with, as rows.

An operator with weights computes, for many positions (pixels, tokens, samples) and each group,
``outputs = reduction @ weights.T``. This module turns an activation into those reductions and an
output into those outputs, at positions drawn evenly, so that statistics need neither all positions
at once nor any operator.

Notations: G groups, P positions, C columns (reduction), R rows (outputs) of the weight's view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Unfold:
    """How one consumer of a weight reads its activation.

    Attributes:
        activation: which input of the node holds it.
        groups: G.
        kernel: spatial sizes of a convolution's kernel; None for matrix products.
        strides, dilations: of the kernel, one a spatial axis.
        pads: begin and end of each spatial axis; None leaves them to ``auto_pad``.
        auto_pad: as the operator has it.
        transposed: a matrix product that reduces the activation's last but one axis.
    """

    activation: int
    groups: int = 1
    kernel: tuple[int, ...] | None = None
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: Pads | None = None
    auto_pad: str = "NOTSET"
    transposed: bool = False

    @property
    def taps(self) -> int:
        """How many columns of the reduction belong to one input channel."""
        return math.prod(self.kernel or ())

    def positions(self, activation: NDArray[Any]) -> int:
        """How many positions an activation has, P."""
        if self.kernel is None:
            return int(activation.size // activation.shape[-2 if self.transposed else -1])
        spatial = self._windows(activation[:1]).shape[2 : 2 + len(self.kernel)]
        return len(activation) * math.prod(spatial)

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """The reduction vectors at some positions, float32 ``(G, len(index), C)``.

        Args:
            activation: the node's input as the runtime gave it.
            index: positions, 0 to P - 1, in the order of the output's axes without channels.
        """
        if self.kernel is None:
            rows = np.swapaxes(activation, -1, -2) if self.transposed else activation
            return rows.reshape(-1, rows.shape[-1])[index].astype(np.float32)[None]
        windows = self._windows(activation)
        rank = len(self.kernel)
        places = np.unravel_index(index, (len(windows), *windows.shape[2 : 2 + rank]))
        picked = np.moveaxis(windows, 1, 1 + rank)[places]  # (len(index), channels, kernel...)
        by_group = picked.reshape(len(index), self.groups, -1)
        return np.ascontiguousarray(by_group.transpose(1, 0, 2), dtype=np.float32)

    def outputs(self, output: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """The outputs at the same positions, float32 ``(G, len(index), R)``."""
        if self.kernel is None:
            return output.reshape(-1, output.shape[-1])[index].astype(np.float32)[None]
        places = np.unravel_index(index, (len(output), *output.shape[2:]))
        picked = np.moveaxis(output, 1, -1)[places]
        by_group = picked.reshape(len(index), self.groups, -1)
        return np.ascontiguousarray(by_group.transpose(1, 0, 2), dtype=np.float32)

    def _windows(self, activation: NDArray[Any]) -> NDArray[Any]:
        """``(N, channels, output sizes..., kernel...)``, a view into the padded activation."""
        assert self.kernel is not None
        rank = len(self.kernel)
        spans = tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))
        pads = self.pads or self._automatic_pads(activation.shape[2:], spans)
        padded = np.pad(activation, ((0, 0), (0, 0), *pads))
        windows = sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
        steps = tuple(slice(None, None, step) for step in (*self.strides, *self.dilations))
        view: NDArray[Any] = windows[(slice(None), slice(None), *steps)]
        return view

    def _automatic_pads(self, sizes: tuple[int, ...], spans: tuple[int, ...]) -> Pads:
        pads = []
        for size, span, stride in zip(sizes, spans, self.strides, strict=True):
            total = 0
            if self.auto_pad.startswith("SAME"):
                total = max(0, (-(-size // stride) - 1) * stride + span - size)
            small, large = total // 2, total - total // 2
            pads.append((large, small) if self.auto_pad == "SAME_LOWER" else (small, large))
        return tuple(pads)


def unfold_of(node: ir.Node, input_index: int, shape: tuple[int, ...]) -> Unfold | None:
    """How ``node`` reads the activation that meets its weight at ``input_index``.

    None when this operator's reductions are not known: such weights are pruned by magnitude.

    Args:
        node: a consumer of the weight itself, not of a value computed from it.
        input_index: where the weight stands.
        shape: of the weight.
    """
    if node.domain not in {"", "ai.onnx"}:
        return None
    if node.op_type == "Conv" and input_index == 1:
        return _conv(node, shape)
    if node.op_type == "Gemm" and input_index == 1:
        return Unfold(0, transposed=bool(node.attributes.get_int("transA", 0)))
    if node.op_type == "MatMul" and input_index == 1 and len(shape) == 2:
        return Unfold(0)
    return None


def _conv(node: ir.Node, shape: tuple[int, ...]) -> Unfold:
    kernel = shape[2:]
    ones = (1,) * len(kernel)
    flat = tuple(node.attributes.get_ints("pads", ()))
    auto_pad = node.attributes.get_string("auto_pad", "NOTSET")
    if auto_pad == "NOTSET":
        flat = flat or (0,) * (2 * len(kernel))
    pads = tuple(zip(flat[: len(kernel)], flat[len(kernel) :], strict=True)) or None
    return Unfold(
        activation=0,
        groups=node.attributes.get_int("group", 1),
        kernel=kernel,
        strides=tuple(node.attributes.get_ints("strides", ones)),
        dilations=tuple(node.attributes.get_ints("dilations", ones)),
        pads=pads if auto_pad == "NOTSET" else None,
        auto_pad=auto_pad,
    )
