"""Random search: the baseline that every controller has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from onnxprune.search.controller import Controller

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from onnxprune.search.space import Levels

ATTEMPTS = 1000
"""How often a candidate is drawn again when it was there before."""


@final
class RandomController(Controller):
    """Draws every level uniformly (Bergstra and Bengio, JMLR 13, 2012)."""

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """A candidate not seen before, or None after many attempts."""
        seen = self.seen(pending)
        for _ in range(ATTEMPTS):
            levels = tuple(int(level) for level in rng.integers(0, self.problem.space.tops + 1))
            if levels not in seen:
                return levels
        return None
