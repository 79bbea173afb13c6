"""Scales and zero points of quantised weights: what the integers stand for, and which is zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.operators import NotPrunable
from passes.operators.constants import small_array
from passes.operators.moves import Cut, Dequantized, apply, undo

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.operators import WeightInput
    from passes.operators.moves import Move
    from passes.operators.resolve import Seen

MAX_SCALES = 2**26
"""More scales than this are not read; a bound for hostile models."""


@dataclass(frozen=True, eq=False)
class Quantization:
    """How the stored integers of a weight stand for real numbers: ``(q - zero_point) * scale``.

    Attributes:
        moves: from the stored array to where scale and zero point apply.
        zero_points: of the weight's dtype; its shape broadcasts to the array there.
        scales: float32 likewise, or None when they are known only at run time.
    """

    moves: tuple[Move, ...]
    zero_points: NDArray[Any]
    scales: NDArray[np.float32] | None

    def zero_point(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """The stored value that means zero; broadcasts to the stored ``shape``."""
        first = self.zero_points.reshape(-1)[:1]
        if np.all(self.zero_points == first):
            return first.reshape(())
        there = apply(self.moves, np.empty(shape, dtype=np.bool_)).shape
        return undo(self.moves, np.broadcast_to(self.zero_points, there))

    def dequantize(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """The real numbers that a stored array stands for, float32 of its shape."""
        there = apply(self.moves, array).astype(np.float32)
        there -= self.zero_points.astype(np.float32)
        if self.scales is not None:
            there *= self.scales
        return undo(self.moves, there)

    def parts(
        self, array: NDArray[Any], elements: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[np.float32], NDArray[Any]]]:
        """An array in parts along its first axis: as stored, as real numbers, its zero points.

        Args:
            array: of the stored shape.
            elements: about how many to a part; where the array is moved before its scale applies,
                all of it is one part.
        """
        zero = np.broadcast_to(self.zero_point(array.shape), array.shape)
        if array.ndim == 0 or apply(self.moves, array) is not array:
            yield array, np.ascontiguousarray(self.dequantize(array)), zero
            return
        rows = max(1, elements // max(1, array[0].size))
        for start in range(0, len(array), rows):
            place = slice(start, start + rows)
            part = Quantization((), *(_part(p, array.shape, place) for p in self._parameters))
            yield array[place], part.dequantize(array[place]), zero[place]

    @property
    def _parameters(self) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
        return self.zero_points, self.scales

    def quantize(self, values: NDArray[Any]) -> NDArray[Any]:
        """The stored array whose numbers are nearest to ``values``, float of the stored shape."""
        there = apply(self.moves, values).astype(np.float32)
        if self.scales is not None:
            there = there / self.scales
        info = np.iinfo(self.zero_points.dtype)
        whole = np.rint(there) + self.zero_points.astype(np.float32)
        return undo(self.moves, np.clip(whole, info.min, info.max).astype(info.dtype))

    def steps(
        self, shape: tuple[int, ...]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """The grid of every element of the stored ``shape``: step, least and greatest multiple of it."""
        there = apply(self.moves, np.empty(shape, dtype=np.bool_)).shape
        scales = np.ones(()) if self.scales is None else self.scales
        step = undo(self.moves, np.broadcast_to(scales, there)).astype(np.float64)
        zero = np.broadcast_to(self.zero_point(shape), shape).astype(np.float64)
        info = np.iinfo(self.zero_points.dtype)
        return step, info.min - zero, info.max - zero

    def same_zero(self, other: Quantization, shape: tuple[int, ...]) -> bool:
        """Whether both have the same zero point for every element."""
        ours, theirs = self.zero_point(shape), other.zero_point(shape)
        return bool(np.all(ours == theirs))


def quantization_of(
    seen: Seen,
    place: WeightInput,
    path: tuple[Move, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Quantization:
    """How an int8 or uint8 weight is quantised.

    Args:
        seen: the operator that reads it.
        place: what the table says about that input.
        path: the moves from the stored array to it.
        shape: of the stored array.
        dtype: of the stored array.

    Raises:
        NotPrunable: when the zero point is known only at run time, or cannot be carried back.
    """
    found = [i for i, move in enumerate(path) if isinstance(move, Dequantized)]
    if len(found) > 1:
        raise NotPrunable("it is dequantised more than once")
    if found:
        move = path[found[0]]
        assert isinstance(move, Dequantized)
        before, shape = path[: found[0]], move.before
        scales = _parameter(move.scale, shape, move.axis, move.block_size)
        zeros = _parameter(move.zero_point, shape, move.axis, move.block_size)
        absent = move.zero_point is None
    else:
        before, shape = path, path[-1].after if path else shape
        scale = _input(seen, place.scale)
        zero = _input(seen, place.zero_point)
        scales = _parameter(scale, shape, place.channel, 0)
        zeros = _parameter(zero, shape, place.channel, 0)
        absent = zero is None
    if zeros is None:
        if not absent:
            raise NotPrunable("its zero point is known only at run time")
        zeros = np.zeros((), dtype)
    for parameter in (scales, zeros):
        differs = parameter is not None and np.any(parameter != parameter.reshape(-1)[:1])
        if differs and any(isinstance(move, Cut) for move in before):
            raise NotPrunable("it is cut before it is dequantised channel by channel")
    scales = None if scales is None else scales.astype(np.float32)
    return Quantization(before, zeros.astype(dtype), scales)


def _input(seen: Seen, index: int | None) -> ir.Value | None:
    return seen.inputs[index] if index is not None and index < len(seen.inputs) else None


def _parameter(
    value: ir.Value | None, shape: tuple[int, ...], axis: int, block_size: int
) -> NDArray[Any] | None:
    """Scales or zero points, shaped so that they broadcast to an array of ``shape``."""
    array = small_array(value, MAX_SCALES)
    if array is None or array.size == 0:
        return None
    if block_size and array.size > 1:
        array = np.repeat(array, block_size, axis=axis)
        return array[tuple(slice(size) for size in shape)]
    for fitting in _fitting_shapes(array.shape, shape, axis):
        if math.prod(fitting) == array.size:
            return array.reshape(fitting)
    msg = f"its scales or zero points have shape {list(array.shape)}, its array {list(shape)}"
    raise NotPrunable(msg)


def _part(parameter: Any, shape: tuple[int, ...], place: slice) -> Any:
    """Scales or zero points for a part along the first axis."""
    if parameter is None or parameter.ndim < len(shape) or parameter.shape[0] == 1:
        return parameter
    return parameter[place]


def _fitting_shapes(
    found: tuple[int, ...], shape: tuple[int, ...], axis: int
) -> Iterator[tuple[int, ...]]:
    """Shapes that broadcast to ``shape``: one number, full rank, one axis, or the outer two."""
    yield ()
    if len(found) == len(shape):
        yield found
    if len(found) == 1:
        yield tuple(size if i == axis % len(shape) else 1 for i, size in enumerate(shape))
        yield (shape[0], *(1 for _ in shape[1:]))
    if len(found) == 2:
        yield (shape[0], *(1 for _ in shape[2:]), shape[-1])
