"""Saliency: how much each weight matters. Higher scores are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def magnitude(matrices: NDArray[Any]) -> NDArray[np.float32]:
    """The absolute value of each weight (Han et al. 2015, "Learning both Weights and Connections").

    Args:
        matrices: weights ``(groups, rows, columns)``, any float dtype.

    Returns:
        Scores of the same shape, float32.
    """
    return np.abs(matrices.astype(np.float32, copy=False))


def wanda(matrices: NDArray[Any], gram: NDArray[np.float64]) -> NDArray[np.float32]:
    """``|W_ij| ||x_j||`` (Sun et al. 2023, "A Simple and Effective Pruning Approach for LLMs").

    Args:
        matrices: weights ``(groups, rows, columns)``.
        gram: sums of x x^T, ``(groups, columns, columns)``.

    Returns:
        Scores of the weights' shape, float32.
    """
    norms = np.sqrt(np.maximum(np.einsum("gcc->gc", gram), 0.0)).astype(np.float32)
    scores: NDArray[np.float32] = magnitude(matrices) * norms[:, None, :]
    return scores


def ranked_by_row(scores: NDArray[Any]) -> NDArray[np.float32]:
    """Scores by which each row loses the same share, as Wanda compares: 1 is a row's best, 0 its worst."""
    order = np.argsort(scores, axis=2, kind="stable")
    ranks = np.empty(scores.shape, np.float32)
    steps = np.linspace(0.0, 1.0, scores.shape[2], dtype=np.float32)
    np.put_along_axis(ranks, order, np.broadcast_to(steps, scores.shape), axis=2)
    return ranks


def lamp(matrices: NDArray[Any]) -> NDArray[np.float64]:
    """Layer-adaptive magnitude scores, comparable between tensors (Lee et al. 2021, "LAMP").

    The square of each weight over the sum of squares of all that are not smaller.

    Args:
        matrices: weights of any shape.

    Returns:
        Scores of the same shape, float64, 0 to 1.
    """
    squares = matrices.astype(np.float64).ravel() ** 2
    order = np.argsort(squares, kind="stable")
    remaining = np.cumsum(squares[order][::-1])[::-1]
    scores = np.zeros_like(squares)
    scores[order] = squares[order] / np.maximum(remaining, np.finfo(np.float64).tiny)
    return scores.reshape(matrices.shape)
