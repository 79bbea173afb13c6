"""How a stored array becomes weight matrices, and back.

Every operator stores its weights in its own order. A :class:`Layout` turns such an array into
matrices of shape ``(groups, rows, columns)``: rows are outputs, columns are the reduction, and
groups are matrices that share neither (the groups of a convolution, say). All else in ``passes``
works on that view and knows no operators.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Step = tuple[Literal["reshape", "transpose"], tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """A reversible way from an array to its matrices.

    Attributes:
        shape: shape of the stored array.
        steps: reshapes (to a shape without -1) and transposes (by a permutation), in order. The
            last one leaves three axes: groups, rows (outputs), columns (reduction).
    """

    shape: tuple[int, ...]
    steps: tuple[Step, ...]

    def matrices(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, of ``self.shape``, as matrices ``(groups, rows, columns)``; may be a view."""
        for kind, argument in self.steps:
            array = array.reshape(argument) if kind == "reshape" else array.transpose(argument)
        return array

    def array(self, matrices: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`matrices`: back to ``self.shape``; may be a view."""
        shapes = [self.shape]  # before each step
        for kind, argument in self.steps:
            last = shapes[-1]
            shapes.append(argument if kind == "reshape" else tuple(last[axis] for axis in argument))
        for (kind, argument), before in zip(
            reversed(self.steps), reversed(shapes[:-1]), strict=True
        ):
            if kind == "reshape":
                matrices = matrices.reshape(before)
            else:
                matrices = matrices.transpose(np.argsort(argument))
        return matrices

    def positions(self, stored: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where elements stand in the matrices, by where they stand in the stored array.

        Args:
            stored: positions in the flat stored array, of any shape.

        Returns:
            Positions in the flat matrices, of the same shape.
        """
        shape = self.shape
        for kind, argument in self.steps:
            if kind == "reshape":
                shape = argument
                continue
            places = np.unravel_index(stored, shape)
            shape = tuple(shape[axis] for axis in argument)
            stored = np.ravel_multi_index(tuple(places[axis] for axis in argument), shape)
        return stored

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """The shape of the matrices: groups, rows, columns."""
        shape = self.shape
        for kind, argument in self.steps:
            shape = argument if kind == "reshape" else tuple(shape[axis] for axis in argument)
        return shape

    @property
    def elements(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)


def rows_first(shape: tuple[int, ...], groups: int = 1) -> Layout:
    """Outputs on the first axis, the others reduced: Conv stores ``(O, I/groups, k...)``."""
    rows = shape[0] // groups
    return Layout(shape, (("reshape", (groups, rows, math.prod(shape[1:]))),))


def columns_first(shape: tuple[int, ...]) -> Layout:
    """Reduction on the last but one axis, outputs on the last: MatMul ``(..., I, O)``."""
    groups = math.prod(shape[:-2])
    return Layout(shape, (("reshape", (groups, *shape[-2:])), ("transpose", (0, 2, 1))))
