"""How sure we are of a drop: intervals for paired differences of per-sample scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Drop:
    """A mean loss of score, baseline minus candidate, with its standard error.

    Attributes:
        mean: the drop itself, in units of the score (0.01 = one point of accuracy).
        centre: centre of its intervals; for binary scores slightly off the mean (see below).
        standard_error: of the centre.
        degrees: degrees of freedom of Student's t, infinite for the normal distribution.
    """

    mean: float
    centre: float
    standard_error: float
    degrees: float

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided interval at ``confidence``."""
        half = self.quantile(0.5 + confidence / 2) * self.standard_error
        return self.centre - half, self.centre + half

    def upper(self, confidence: float) -> float:
        """The drop is below this with ``confidence``, and never below the mean itself."""
        return max(self.mean, self.centre + self.quantile(confidence) * self.standard_error)

    def quantile(self, probability: float) -> float:
        """Of the distribution of the drop's error, in standard errors."""
        if math.isinf(self.degrees):
            return float(special.ndtri(probability))
        return float(special.stdtrit(self.degrees, probability))


def paired_drop(baseline: NDArray[Any], candidate: NDArray[Any]) -> Drop:
    """The drop between two score vectors over the same samples.

    For right-or-wrong scores the interval is that of Bonett and Price (2012, "Adjusted Wald
    confidence interval for a difference of binomial proportions based on paired data", J. Educ.
    Behav. Stat. 37): Wald's with one sample added to each of the two ways to differ, which covers
    well even when few or no samples do. Other scores take Student's t of the differences.

    Args:
        baseline: float ``(samples,)``.
        candidate: the same shape.

    Raises:
        ValueError: when there are no samples.
    """
    samples = baseline.size
    if not samples:
        msg = "a drop needs at least one sample"
        raise ValueError(msg)
    difference = baseline.astype(np.float64) - candidate.astype(np.float64)
    mean = float(difference.mean())
    if np.isin(difference, (-1.0, 0.0, 1.0)).all():
        worse, better = int((difference > 0).sum()), int((difference < 0).sum())
        total = samples + 2
        centre = (worse - better) / total
        variance = (worse + better + 2 - (worse - better) ** 2 / total) / total**2
        return Drop(mean, centre, math.sqrt(variance), math.inf)
    if samples == 1:
        return Drop(mean, mean, math.inf, math.inf)
    deviation = float(difference.std(ddof=1))
    return Drop(mean, mean, deviation / math.sqrt(samples), samples - 1)
