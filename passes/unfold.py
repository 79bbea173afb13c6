"""What each operator multiplies its weights with, as rows.

An operator with weights computes, for many positions (pixels, tokens, samples) and each group,
``outputs = reduction @ weights.T``. This module turns an activation into those reductions and an
output into those outputs, at positions drawn evenly, so that statistics need neither all positions
at once nor any operator.

Notations: G groups, P positions, C columns (reduction), R rows (outputs) of the weight's view.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pads = tuple[tuple[int, int], ...]


class Unfold(abc.ABC):
    """How an activation becomes reductions.

    Attributes:
        channel_axis: the axis of the operator's output that holds its channels; None where outputs
            are not laid out by position and channel.
    """

    channel_axis: int | None = None

    @property
    def taps(self) -> int:
        """How many columns of the reduction belong to one input channel."""
        return 1

    @abc.abstractmethod
    def positions(self, activation: NDArray[Any]) -> int:
        """How many positions an activation has, P."""

    @abc.abstractmethod
    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """The reduction vectors at some positions, float32 ``(G, len(index), C)``.

        Args:
            activation: what the node reads.
            index: positions, 0 to P - 1, in the order of the output's axes without channels.
        """

    def outputs(
        self, output: NDArray[Any], index: NDArray[np.intp], groups: int
    ) -> NDArray[np.float32]:
        """The outputs at the same positions, float32 ``(groups, len(index), R)``."""
        assert self.channel_axis is not None
        last = np.moveaxis(output, self.channel_axis, -1)
        places = np.unravel_index(index, last.shape[:-1])
        by_group = last[places].reshape(len(index), groups, -1)
        return np.ascontiguousarray(by_group.transpose(1, 0, 2), dtype=np.float32)


@dataclass(frozen=True)
class Product(Unfold):
    """A matrix product with a weight of two axes: positions are all axes of the activation but one.

    Attributes:
        transposed: the activation's last but one axis is reduced, not its last.
        weight_first: the weight stands on the left, so that outputs hold positions last.
    """

    transposed: bool = False
    weight_first: bool = False

    @property
    def channel_axis(self) -> int:  # type: ignore[override]
        """Outputs end in channels, or have them before the positions."""
        return -2 if self.weight_first else -1

    def positions(self, activation: NDArray[Any]) -> int:
        """All elements over the length of the reduction."""
        return int(activation.size // max(1, self._rows(activation).shape[-1]))

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """One group."""
        rows = self._rows(activation)
        return rows[np.unravel_index(index, rows.shape[:-1])].astype(np.float32)[None]

    def _rows(self, activation: NDArray[Any]) -> NDArray[Any]:
        if activation.ndim == 1:
            return activation[None]
        return np.swapaxes(activation, -1, -2) if self.transposed else activation


@dataclass(frozen=True)
class Stack(Unfold):
    """Products with a stack of matrices, and Einsum: axes of the activation by their meaning.

    Attributes:
        shape: what the activation is broadcast to, from the right; 1 leaves an axis as it is.
        groups, columns: axes of that shape, negative, in the order in which the weight's view has
            them; all others are positions.
    """

    shape: tuple[int, ...]
    groups: tuple[int, ...]
    columns: tuple[int, ...]

    def positions(self, activation: NDArray[Any]) -> int:
        """All axes but those of groups and columns."""
        return math.prod(self._moved(activation)[1])

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """A group for each matrix."""
        moved, sizes = self._moved(activation)
        places = np.unravel_index(index, sizes)
        groups = math.prod(moved.shape[: len(self.groups)])
        flat = moved.reshape(groups, *moved.shape[len(self.groups) :])
        key: tuple[Any, ...] = (slice(None), *places)
        picked = flat[key].reshape(groups, len(index), -1)
        return np.ascontiguousarray(picked, np.float32)

    def _moved(self, activation: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
        """Axes in the order groups, positions, columns; and the sizes of the positions."""
        rank = max(len(self.shape), activation.ndim)
        wanted = (1,) * (rank - len(self.shape)) + self.shape
        shape = (1,) * (rank - activation.ndim) + activation.shape
        sizes = tuple(max(have, want) for have, want in zip(shape, wanted, strict=True))
        full = np.broadcast_to(activation.reshape(shape), sizes)
        groups, columns = ([axis + rank for axis in part] for part in (self.groups, self.columns))
        others = [axis for axis in range(rank) if axis not in {*groups, *columns}]
        return full.transpose(*groups, *others, *columns), tuple(sizes[axis] for axis in others)


@dataclass(frozen=True)
class Listed(Unfold):
    """Reductions that are there already: ``(G, P, C)``."""

    def positions(self, activation: NDArray[Any]) -> int:
        """The second axis."""
        return int(activation.shape[1])

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """Those at the positions."""
        return activation[:, index].astype(np.float32, copy=False)


@dataclass(frozen=True)
class Window(Unfold):
    """A convolution: its kernel at every place of the output (im2col).

    Attributes:
        groups: G.
        kernel: its spatial sizes.
        strides, dilations: one a spatial axis.
        pads: begin and end of each spatial axis; None leaves them to ``auto_pad``.
        auto_pad: as the operator has it.
    """

    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads | None = None
    auto_pad: str = "NOTSET"
    channel_axis = 1

    @property
    def taps(self) -> int:
        """Those of the kernel."""
        return math.prod(self.kernel)

    @property
    def spans(self) -> tuple[int, ...]:
        """How far the kernel reaches."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    def positions(self, activation: NDArray[Any]) -> int:
        """All places of the output, of all samples."""
        spatial = self._windows(activation[:1]).shape[2 : 2 + len(self.kernel)]
        return len(activation) * math.prod(spatial)

    def reductions(self, activation: NDArray[Any], index: NDArray[np.intp]) -> NDArray[np.float32]:
        """Columns run over channels, then over the kernel."""
        windows = self._windows(activation)
        rank = len(self.kernel)
        places = np.unravel_index(index, (len(windows), *windows.shape[2 : 2 + rank]))
        picked = np.moveaxis(windows, 1, 1 + rank)[places]  # (len(index), channels, kernel...)
        by_group = picked.reshape(len(index), self.groups, -1)
        return np.ascontiguousarray(by_group.transpose(1, 0, 2), dtype=np.float32)

    def _windows(self, activation: NDArray[Any]) -> NDArray[Any]:
        """``(N, channels, output sizes..., kernel...)``, a view into the padded activation."""
        pads = self.pads or self._automatic_pads(activation.shape[2:])
        padded = np.pad(activation, ((0, 0), (0, 0), *pads))
        return self._windows_of(padded, self.strides)

    def _windows_of(self, padded: NDArray[Any], strides: tuple[int, ...]) -> NDArray[Any]:
        rank = len(self.kernel)
        windows = sliding_window_view(padded, self.spans, axis=tuple(range(2, 2 + rank)))
        steps = tuple(slice(None, None, step) for step in (*strides, *self.dilations))
        view: NDArray[Any] = windows[(slice(None), slice(None), *steps)]
        return view

    def _automatic_pads(self, sizes: tuple[int, ...]) -> Pads:
        pads = []
        for size, span, stride in zip(sizes, self.spans, self.strides, strict=True):
            total = 0
            if self.auto_pad.startswith("SAME"):
                total = max(0, (-(-size // stride) - 1) * stride + span - size)
            pads.append(_shared(total, lower=self.auto_pad == "SAME_LOWER"))
        return tuple(pads)


@dataclass(frozen=True)
class TransposedWindow(Window):
    """A transposed convolution: at each place of the output, the inputs that add to it.

    Input q and tap t add to output ``q * stride + t * dilation - pad``. So an output reduces over
    input channels and taps alike, with a zero where no input falls on a tap: the kernel, mirrored, slid
    over the input with zeros put between.

    Attributes:
        output_padding: added at the end of each spatial axis.
        output_shape: spatial sizes of the output when the operator gives them instead of pads.
    """

    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] | None = None

    def _windows(self, activation: NDArray[Any]) -> NDArray[Any]:
        rank = len(self.kernel)
        sizes = activation.shape[2:]
        spread = np.zeros(
            (
                *activation.shape[:2],
                *((n - 1) * s + 1 for n, s in zip(sizes, self.strides, strict=True)),
            ),
            activation.dtype,
        )
        steps = tuple(slice(None, None, stride) for stride in self.strides)
        spread[(slice(None), slice(None), *steps)] = activation
        pads = self.pads or self._automatic_pads(sizes)
        for axis, (span, (begin, end), more) in enumerate(
            zip(self.spans, pads, self.output_padding, strict=True), start=2
        ):
            spread = _padded(spread, axis, span - 1 - begin, span - 1 - end + more)
        windows = self._windows_of(spread, (1,) * rank)
        mirrored: tuple[Any, ...] = (..., *(slice(None, None, -1),) * rank)
        view: NDArray[Any] = windows[mirrored]
        return view

    def _automatic_pads(self, sizes: tuple[int, ...]) -> Pads:
        pads = []
        for axis, (size, span, stride) in enumerate(
            zip(sizes, self.spans, self.strides, strict=True)
        ):
            full = (size - 1) * stride + span + self.output_padding[axis]
            wanted = full
            if self.output_shape is not None:
                wanted = self.output_shape[axis]
            elif self.auto_pad.startswith("SAME"):
                wanted = min(full, size * stride)
            if wanted > full:
                pads.append((0, full - wanted))  # nothing reaches the last places
            else:
                pads.append(_shared(full - wanted, lower=self.auto_pad != "SAME_UPPER"))
        return tuple(pads)


def _padded(array: NDArray[Any], axis: int, begin: int, end: int) -> NDArray[Any]:
    """Zeros before and after along an axis; a negative number cuts."""
    cut = [slice(None)] * array.ndim
    cut[axis] = slice(max(0, -begin), array.shape[axis] - max(0, -end))
    widths = [(0, 0)] * array.ndim
    widths[axis] = (max(0, begin), max(0, end))
    return np.pad(array[tuple(cut)], widths)


def _shared(total: int, *, lower: bool) -> tuple[int, int]:
    """A padding on two sides; the odd one goes before when ``lower``."""
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)
