"""What is known about the channels of each value while a graph is walked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Channels:
    """The channels of a value.

    Attributes:
        axis: where they lie, counted from the front.
        units: the unit that each belongs to; all channels of a unit go or stay together.
        constant: the number that a channel holds everywhere, whatever the input; NaN where it
            varies or is not known. float64 ``(channels,)``.
    """

    axis: int
    units: NDArray[np.int64]
    constant: NDArray[np.float64]

    def moved(self, axis: int) -> Channels:
        """The same channels on another axis."""
        return Channels(axis, self.units, self.constant)

    def with_constant(self, constant: NDArray[np.float64]) -> Channels:
        """The same channels with other numbers."""
        return Channels(self.axis, self.units, constant)


class Units:
    """Units and which of them must stay; a union-find, so that units can be tied."""

    def __init__(self) -> None:
        self._parent = np.zeros(0, np.int64)
        self._fixed = np.zeros(0, np.bool_)

    def new(self, count: int) -> NDArray[np.int64]:
        """``count`` units of their own."""
        fresh = np.arange(self._parent.size, self._parent.size + count)
        self._parent = np.concatenate([self._parent, fresh])
        self._fixed = np.concatenate([self._fixed, np.zeros(count, np.bool_)])
        return fresh

    def roots(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """The representative of each unit."""
        current = self._parent[units]
        while True:
            above = self._parent[current]
            if (above == current).all():
                return current
            current = above

    def tie(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> None:
        """Make each pair one unit."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            low, high = sorted(self.roots(np.array([one, other])).tolist())
            self._parent[high] = low
            self._fixed[low] |= self._fixed[high]

    def fix(self, units: NDArray[np.int64]) -> None:
        """These must stay."""
        self._fixed[self.roots(units)] = True

    def kept(self, units: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these stay."""
        stay: NDArray[np.bool_] = self._fixed[self.roots(units)]
        return stay

    def keep_one(self, units: NDArray[np.int64]) -> bool:
        """Let one stay where none would: no runtime likes a tensor without channels."""
        if units.size == 0 or self.kept(units).any():
            return False
        self.fix(units[:1])
        return True

    def keep_multiple(self, units: NDArray[np.int64], multiple: int) -> bool:
        """Let the first that would go stay until a multiple stays, where there are as many."""
        kept = self.kept(units)
        missing = -int(kept.sum()) % multiple
        if not missing or missing > int((~kept).sum()):
            return False
        self.fix(units[~kept][:missing])
        return True


@dataclass(eq=False)
class Walk:
    """The state of one walk through a graph.

    Attributes:
        shapes: by value name, as far as it is known.
        opset: of the model.
        units: of all channels.
        channels: by value.
        actions: what to do to the nodes once it is known which units stay.
    """

    shapes: Mapping[str, tuple[int | None, ...]]
    opset: int
    units: Units = field(default_factory=Units)
    channels: dict[ir.Value, Channels] = field(default_factory=dict)
    actions: list[Callable[[], bool]] = field(default_factory=list)

    def of(self, value: ir.Value | None) -> Channels | None:
        """The channels of a value; None when it has none that are followed."""
        return None if value is None else self.channels.get(value)

    def shape(self, value: ir.Value | None) -> tuple[int | None, ...] | None:
        """The shape of a value."""
        if value is None:
            return None
        if value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        return self.shapes.get(value.name or "")

    def rank(self, value: ir.Value | None) -> int:
        """The rank of a value; -1 when it is not known."""
        shape = self.shape(value)
        return -1 if shape is None else len(shape)

    def block(self, *values: ir.Value | None) -> None:
        """All channels of these values must stay."""
        for value in values:
            found = self.of(value)
            if found is not None:
                self.units.fix(found.units)

    def make(self, value: ir.Value, axis: int, constant: NDArray[np.float64]) -> Channels:
        """New units for the channels of a value."""
        found = Channels(axis, self.units.new(constant.size), constant)
        self.channels[value] = found
        return found


def constant_array(value: ir.Value | None) -> NDArray[Any] | None:
    """The array of an initializer that is nothing else; None for any other value."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    if value.is_graph_input() or value.is_graph_output():
        return None
    return value.const_value.numpy()


def is_set(node: ir.Node, name: str) -> bool:
    """Whether an attribute that is 0 or 1 is 1; 0 where it is absent."""
    return int(node.attributes.get_int(name, 0)) != 0


def unknown(count: int) -> NDArray[np.float64]:
    """No channel is known to be constant."""
    return np.full(count, np.nan)


def channel_vector(array: NDArray[Any], axis: int, rank: int, count: int) -> NDArray[Any] | None:
    """A constant that broadcasts against a value as one number a channel; None when it does not."""
    if array.size == 1:
        return np.broadcast_to(array.reshape(-1), count)
    at = axis - (rank - array.ndim)
    if at < 0 or array.shape[at] != count or array.size != count:
        return None
    return array.reshape(-1)


def static(shape: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """The shape when all its sizes are known."""
    if shape is None or any(size is None for size in shape):
        return None
    return tuple(int(size) for size in shape if size is not None)
