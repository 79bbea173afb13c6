"""Steps that an array takes between where it is stored and the operator that reads it.

A move knows the shapes on both sides and carries the meaning of axes backwards, from the operator
to the stored array.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.axes import Axes

Shape = tuple[int, ...]

UNKNOWN = -1
"""Where a part begins that is cut at a place known only at run time."""


@dataclass(frozen=True)
class Move(abc.ABC):
    """One step from an array of shape ``before`` to one of shape ``after``."""

    before: Shape
    after: Shape

    @abc.abstractmethod
    def back(self, axes: Axes) -> Axes:
        """The meaning of the axes before this step, from that after it.

        Raises:
            NotPlain: when it cannot be carried through.
        """


@dataclass(frozen=True)
class Kept(Move):
    """The same array: Identity, or Cast to another dtype."""

    def back(self, axes: Axes) -> Axes:
        """Nothing changes."""
        return axes


@dataclass(frozen=True)
class Reshaped(Move):
    """The same elements in another shape: Reshape, Flatten, Squeeze, Unsqueeze."""

    def back(self, axes: Axes) -> Axes:
        """Factors are dealt out anew."""
        return axes.before_reshape(self.before)


@dataclass(frozen=True)
class Transposed(Move):
    """The axes in another order."""

    permutation: tuple[int, ...]

    def back(self, axes: Axes) -> Axes:
        """Axes go back to where they were."""
        return axes.before_transpose(self.permutation)


@dataclass(frozen=True)
class Cut(Move):
    """A part along one axis (Slice, Split), or a place in a longer one (Concat).

    Attributes:
        axis: the axis.
        start: where the shorter array begins in the longer one; ``UNKNOWN`` when only the model
            knows, at run time. Its size is then given as that of the longer one.
        step: between the elements taken.
    """

    axis: int
    start: int
    step: int = 1

    def back(self, axes: Axes) -> Axes:
        """The axis becomes as long as it was before."""
        return axes.before_cut(self.axis, self.before[self.axis], self.start, self.step)


@dataclass(frozen=True)
class Dequantized(Move):
    """DequantizeLinear: ``(array - zero_point) * scale``.

    Attributes:
        scale: its value in the graph, or None where it has none.
        zero_point: likewise.
        axis: along which a vector of scales runs, or blocks of ``block_size`` elements.
        block_size: 0 when scales are not by block.
    """

    scale: ir.Value | None
    zero_point: ir.Value | None
    axis: int
    block_size: int = 0

    def back(self, axes: Axes) -> Axes:
        """Nothing changes."""
        return axes


def apply(moves: tuple[Move, ...], array: NDArray[Any]) -> NDArray[Any]:
    """Carry an array through reshapes and transposes, other steps left out."""
    for move in moves:
        if isinstance(move, Reshaped):
            array = array.reshape(move.after)
        elif isinstance(move, Transposed):
            array = array.transpose(move.permutation)
    return array


def undo(moves: tuple[Move, ...], array: NDArray[Any]) -> NDArray[Any]:
    """The inverse of :func:`apply`."""
    for move in reversed(moves):
        if isinstance(move, Reshaped):
            array = array.reshape(move.before)
        elif isinstance(move, Transposed):
            inverse = sorted(range(len(move.permutation)), key=move.permutation.__getitem__)
            array = array.transpose(inverse)
    return array
