"""Masks with a pattern: an order of elements in which it shows.

N:M sparsity runs along the reduction axis, which is not always the last one of the stored array: a
weight of MatMul is stored ``(inputs, outputs)``. So such a weight is stored in the order of its
layout's matrices, and brought back by a Transpose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.layout import Layout, Step
    from passes.pack.values import Prepared


def by_rows(prepared: Prepared, layout: Layout) -> tuple[Prepared, tuple[Step, ...]] | None:
    """The array in the order of its matrices, and the way back; None when it is in it already."""
    matrices = layout.matrices(prepared.array)
    if matrices.flags.c_contiguous:
        return None
    return replace(prepared, array=np.ascontiguousarray(matrices)), way_back(layout)


BLOCKS = ((1, 4), (4, 1), (1, 8), (8, 1), (1, 16), (16, 1), (4, 4), (8, 8), (1, 0), (0, 1))
"""Rows and columns of the blocks that are looked for; 0 stands for all of them."""


def by_blocks(prepared: Prepared, layout: Layout) -> tuple[Prepared, tuple[Step, ...], int] | None:
    """The array block by block, the way back, and the size of a block, for the best of BLOCKS.

    None when no shape of blocks divides the matrices.
    """
    matrices = layout.matrices(prepared.array)
    rows, columns = matrices.shape[1:]
    best, least = None, matrices.size + 1
    nonzero = matrices != 0
    for tall, wide in BLOCKS:
        shape = (tall or rows, wide or columns)
        if rows % shape[0] or columns % shape[1] or shape == (1, 1):
            continue
        kept = _in_blocks(nonzero, shape).any(axis=(3, 4))
        # A block more: the one of zeros that all others point to.
        stored = (int(kept.sum()) + 1) * shape[0] * shape[1] + kept.size // 32
        if stored < least:
            best, least = shape, stored
    if best is None:
        return None
    blocks = _in_blocks(matrices, best)
    steps: tuple[Step, ...] = (
        ("reshape", blocks.shape),
        ("transpose", (0, 1, 3, 2, 4)),
        *way_back(layout),
    )
    size = best[0] * best[1]
    return replace(prepared, array=np.ascontiguousarray(blocks).reshape(-1, size)), steps, size


def _in_blocks(matrices: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """``(groups, block rows, block columns, rows, columns)``; may be a view."""
    groups, rows, columns = matrices.shape
    tall, wide = shape
    split = matrices.reshape(groups, rows // tall, tall, columns // wide, wide)
    return split.transpose(0, 1, 3, 2, 4)


def way_back(layout: Layout) -> tuple[Step, ...]:
    """Reshapes and transposes from the flat matrices to the stored array."""
    shapes = [layout.shape]
    for kind, argument in layout.steps:
        last = shapes[-1]
        shapes.append(argument if kind == "reshape" else tuple(last[axis] for axis in argument))
    back: list[Step] = [("reshape", shapes[-1])]
    for (kind, argument), before in zip(reversed(layout.steps), reversed(shapes[:-1]), strict=True):
        if kind == "transpose":
            back.append(("transpose", tuple(int(axis) for axis in np.argsort(argument))))
        elif back[-1][0] == "reshape":
            back[-1] = ("reshape", before)
        else:
            back.append(("reshape", before))
    return tuple(back)
