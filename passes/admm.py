"""The support by ADMM.

Source: Meng et al. 2024, "ALPS: Improved Optimization for Highly Sparse One-Shot Pruning".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from passes.patterns import Pattern
    from passes.reconstruction import Quadratic

STEPS = 60


@final
class Admm:
    """One problem, ready to be solved at any sparsity: its eigendecomposition is made once.

    Columns are scaled so that H has a unit diagonal; the iteration then runs in float32, for it only
    has to find a support.

    Args:
        problem: what to solve.
    """

    def __init__(self, problem: Quadratic) -> None:
        scale = np.sqrt(np.einsum("gcc->gc", problem.hessian))
        scaled = problem.hessian / scale[:, :, None] / scale[:, None, :]
        values, vectors = np.linalg.eigh(scaled)
        optimum = problem.optimum * scale[:, None, :]
        self._values = values.astype(np.float32)[:, None, :]
        self._vectors = vectors.astype(np.float32)
        self._back = np.ascontiguousarray(self._vectors.transpose(0, 2, 1))
        self._right = ((optimum @ scaled) @ vectors).astype(np.float32)
        self._optimum = optimum.astype(np.float32)

    def mask(self, pattern: Pattern, keep: int, steps: int = STEPS) -> NDArray[np.bool_]:
        """The support: weights and their sparse copy are pulled together step by step.

        Rho starts at a tenth of the mean eigenvalue and grows by 1.3, 1.2 or 1.1 as over 10 %, over
        0.5 % or any of the support changed in three steps.

        Args:
            pattern: the shape of the mask.
            keep: weights to keep over all groups.
            steps: at most; it ends when three steps leave the support as it is.

        Returns:
            A mask ``(groups, rows, columns)``.
        """
        rho = 0.1 * float(self._values.mean())
        mask = pattern.mask(self._optimum**2, keep)
        sparse = self._optimum * mask
        dual = np.zeros_like(self._optimum)
        seen = mask
        for step in range(1, steps + 1):
            rotated = self._right + (np.float32(rho) * sparse - dual) @ self._vectors
            full = (rotated / (self._values + np.float32(rho))) @ self._back
            shifted = full + dual / np.float32(rho)
            mask = pattern.mask(shifted**2, keep)
            sparse = shifted * mask
            dual += np.float32(rho) * (full - sparse)
            if step % 3 == 0:
                changed = int(np.count_nonzero(mask ^ seen))
                if not changed:
                    break
                seen = mask
                rho *= 1.3 if changed > 0.1 * keep else 1.2 if changed > 0.005 * keep else 1.1
        return mask
