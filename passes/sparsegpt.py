"""Masks and updates block by block of columns, for wide reductions.

Source: Frantar and Alistarh 2023, "SparseGPT: Massive Language Models Can Be Accurately Pruned in
One-Shot".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
from scipy import linalg

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.reconstruction import Quadratic

BLOCK = 128
"""Columns whose mask is chosen at once."""


@final
class Sweep:
    """One problem, ready to be swept at any sparsity: H is factored once.

    Args:
        problem: what to solve.
        pattern: the shape of the mask.
        block: columns whose mask is chosen at once, rounded up to whole cells of the pattern.
    """

    def __init__(self, problem: Quadratic, pattern: Pattern, block: int = BLOCK) -> None:
        self._optimum, self._pattern, self._block = problem.optimum, pattern, block
        self._cells = pattern.cells(problem.optimum.shape[2])
        self._order = self._cells[self._cells >= 0]
        self._factors = [
            _inverse_factor(hessian[np.ix_(self._order, self._order)])
            for hessian in problem.hessian
        ]

    def weights(self, keep: int) -> NDArray[np.float64]:
        """Prune each block of columns to the same share, errors passed on to the right.

        A pattern that decides about a weight as a whole settles its mask before the first block.

        Args:
            keep: weights to keep over all groups, at most.

        Returns:
            Weights ``(groups, rows, columns)``, zero outside their mask.
        """
        groups, _, columns = self._optimum.shape
        result = np.zeros(self._optimum.shape)
        chosen = self._pattern.mask(self._scores(), keep) if self._pattern.whole else None
        for group, factor in enumerate(self._factors):
            budget = keep * (group + 1) // groups - keep * group // groups
            weights = np.ascontiguousarray(self._optimum[group].T[self._order], np.float32)
            spent = 0
            for start, stop, inside in _blocks(self._cells, self._block):
                part = factor[start:stop, start:stop]
                piece = weights[start:stop]
                if chosen is not None:
                    mask = chosen[group][:, start:stop]
                else:
                    scores = (piece / np.diagonal(part)[:, None]).T ** 2
                    due = round(budget * stop / columns) - spent
                    mask = self._pattern.choose(scores[None], due, inside)[0]
                    free = self._pattern.most(1, columns) == columns
                    spent += int(np.count_nonzero(mask)) if free else due
                errors = _sweep(piece, part, np.ascontiguousarray(mask.T))
                weights[stop:] -= factor[start:stop, stop:].T @ errors
            result[group][:, self._order] = weights.T
        return result

    def _scores(self) -> NDArray[np.float64]:
        """Of all weights before any column is swept; for patterns whose cells are in the columns' order."""
        diagonals = np.stack([np.diagonal(factor) for factor in self._factors])
        scores: NDArray[np.float64] = (self._optimum / diagonals[:, None]) ** 2
        return scores


def _inverse_factor(hessian: NDArray[np.float64]) -> NDArray[np.float32]:
    """The upper Cholesky factor of H^-1, float32 ``(C, C)``."""
    lower, _ = linalg.lapack.dpotrf(hessian, lower=1, clean=1)
    inverse, _ = linalg.lapack.dpotri(lower, lower=1, overwrite_c=1)
    # A lower triangle read by rows is the upper triangle that potrf wants of the transpose.
    factor, info = linalg.lapack.dpotrf(inverse.T, lower=0, clean=1)
    if info:
        msg = "the inverse of the damped gram matrix is not positive definite; raise the damping"
        raise ValueError(msg)
    return np.ascontiguousarray(factor, np.float32)


def _blocks(cells: NDArray[np.intp], block: int) -> Iterator[tuple[int, int, NDArray[np.intp]]]:
    """First and last column of each block (in the order of cells), and its cells from 0."""
    widths = (cells >= 0).sum(axis=1)
    ends = np.cumsum(widths)
    first, start = 0, 0
    for last in range(len(cells)):
        if ends[last] - start >= block or last == len(cells) - 1:
            stop = int(ends[last])
            real = cells[first : last + 1] >= 0
            inside = np.full(real.shape, -1)
            inside[real] = np.arange(stop - start)
            yield start, stop, inside
            first, start = last + 1, stop


def _sweep(
    piece: NDArray[np.float32], factor: NDArray[np.float32], mask: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Prune some columns in place; return their errors, scaled, for the columns to their right.

    Halves are swept one after the other, so that nearly all of the work is matrix products.

    Args:
        piece: weights ``(C, R)``: a row for each column, which makes columns contiguous.
        factor: ``(C, C)``, the part of the factor that belongs to them.
        mask: ``(C, R)``.
    """
    columns = len(piece)
    if columns == 1:
        errors = np.where(mask, np.float32(0), piece / factor[0, 0])
        piece *= mask
        return errors
    half = columns // 2
    left = _sweep(piece[:half], factor[:half, :half], mask[:half])
    piece[half:] -= factor[:half, half:].T @ left
    right = _sweep(piece[half:], factor[half:, half:], mask[half:])
    return np.concatenate([left, right])
