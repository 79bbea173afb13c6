"""What several families of operators share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def ints(tensor: Tensor) -> list[int]:
    """The numbers of an integer tensor: a shape, axes, or one number (a list of one)."""
    values: Any = tensor.reshape(-1).tolist()
    return [int(value) for value in values]


def integer(tensor: Tensor) -> int:
    """The one number of a tensor."""
    return int(tensor.reshape(-1)[0])


def number(tensor: Tensor) -> float:
    """The one number of a tensor, as a float."""
    return float(tensor.reshape(-1)[0])


def wrap(indices: Tensor, size: int) -> Tensor:
    """Indices in int64 with negative ones counted from the end."""
    indices = indices.long()
    return indices + size * (indices < 0)


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


def last_axes(count: int) -> tuple[int, ...]:
    """The axes after batch and channels of a tensor of rank ``count``."""
    return tuple(range(2, count))


def channel_shape(rank: int) -> tuple[int, ...]:
    """The shape that lines a vector up with the channels of a tensor of that rank."""
    return (-1, *(1,) * (rank - 2))
