"""What each axis of an array means to the operator that reads it: group, row or column.

An operator states the meaning of its weight's axes; from there it is carried back through the
reshapes, transposes and cuts that stand between the stored array and the operator. An axis may hold
several factors, outermost first: axis 0 of a grouped convolution is (group, row). What comes out is
the :class:`~passes.layout.Layout` of the stored array, so that a chain needs no special case.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from passes.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from passes.layout import Step

GROUP, ROW, COLUMN = 0, 1, 2
"""The axes of the matrices: groups, rows (outputs), columns (reduction)."""


class NotPlain(Exception):  # noqa: N818 - an answer, not an error
    """The meaning of an axis cannot be carried through a step, because it cuts across factors."""


@dataclass(frozen=True)
class Factor:
    """A part of an axis: its size, its role, and its place among the factors of that role."""

    size: int
    role: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Axes:
    """The factors of each axis of an array, outermost first; an axis of size 1 may have none."""

    axes: tuple[tuple[Factor, ...], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return tuple(math.prod(factor.size for factor in axis) for axis in self.axes)

    def before_transpose(self, permutation: Sequence[int]) -> Axes:
        """The axes of the array from which ``transpose(permutation)`` made this one."""
        source: list[tuple[Factor, ...]] = [()] * len(self.axes)
        for axis, factors in zip(permutation, self.axes, strict=True):
            source[axis] = factors
        return Axes(tuple(source))

    def before_reshape(self, shape: tuple[int, ...]) -> Axes:
        """The axes of the array of ``shape`` from which a reshape made this one.

        Raises:
            NotPlain: when an axis of ``shape`` would begin or end inside a factor that does not
                divide there.
        """
        waiting = [factor for axis in self.axes for factor in axis if factor.size != 1]
        waiting.reverse()
        return Axes(tuple(_take(waiting, size) for size in shape))

    def before_cut(self, axis: int, size: int, start: int, step: int) -> Axes:
        """The axes of the array, ``size`` long on ``axis``, of which this one is a part.

        Args:
            axis: the axis on which the part was taken, or a concatenation made.
            size: how long that axis was before.
            start: where the part begins, negative when that is not known; for a concatenation where
                this array begins in it.
            step: between elements of the part.

        Raises:
            NotPlain: when the part does not begin and end at a whole outermost factor.
        """
        factors = self.axes[axis]
        if len({factor.role for factor in factors}) <= 1:
            role = factors[0].role if factors else ROW
            order = factors[0].order if factors else (axis,)
            return self._with(axis, (Factor(size, role, order),))
        inner = math.prod(factor.size for factor in factors[1:])
        if step != 1 or start < 0 or start % inner or size % inner:
            raise NotPlain
        return self._with(axis, (replace(factors[0], size=size // inner), *factors[1:]))

    def layout(self, shape: tuple[int, ...] | None = None) -> Layout:
        """The layout: reshape to the factors, bring those of one role together, and merge them.

        Args:
            shape: of the stored array; that of these axes when None.
        """
        shape = self.shape if shape is None else shape
        factors = [factor for axis in self.axes for factor in axis if factor.size != 1]
        ranked = sorted(range(len(factors)), key=lambda i: (factors[i].role, factors[i].order))
        sizes = tuple(
            math.prod(factor.size for factor in factors if factor.role == role)
            for role in (GROUP, ROW, COLUMN)
        )
        steps: list[Step] = []
        if ranked == sorted(ranked):
            steps.append(("reshape", sizes))
            return Layout(shape, tuple(steps))
        split = tuple(factor.size for factor in factors)
        if split != shape:
            steps.append(("reshape", split))
        steps.append(("transpose", tuple(ranked)))
        steps.append(("reshape", sizes))
        return Layout(shape, tuple(steps))

    def _with(self, axis: int, factors: tuple[Factor, ...]) -> Axes:
        return Axes((*self.axes[:axis], factors, *self.axes[axis + 1 :]))


def axes_of(*axes: Sequence[tuple[int, int]]) -> Axes:
    """Axes from ``(role, size)`` pairs for each axis; factors of a role keep the order given."""
    made, place = [], 0
    for axis in axes:
        factors = []
        for role, size in axis:
            factors.append(Factor(size, role, (place,)))
            place += 1
        made.append(tuple(factors))
    return Axes(tuple(made))


def _take(waiting: list[Factor], size: int) -> tuple[Factor, ...]:
    """Take factors (innermost last on the reversed list) that multiply to ``size``."""
    taken: list[Factor] = []
    while size > 1:
        if not waiting:
            raise NotPlain
        factor = waiting.pop()
        if size % factor.size == 0:
            taken.append(factor)
            size //= factor.size
            continue
        if factor.size % size:
            raise NotPlain
        taken.append(replace(factor, size=size, order=(*factor.order, 0)))
        waiting.append(replace(factor, size=factor.size // size, order=(*factor.order, 1)))
        size = 1
    return tuple(taken)
