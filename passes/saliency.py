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
