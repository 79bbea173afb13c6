"""One layer pruned to a ladder of levels: the entries of a database that candidates are put together from.

Each level is solved by itself from the same moments, so that the levels of different layers can be
combined freely (Frantar and Alistarh 2022, "Optimal Brain Compression", call it stitching): a
candidate is nothing but the arrays of one level for each layer, put in the model's place.

    known = calibrate(model, layers, batches, runner, positions=8192)
    for level in prune_levels(layer, known[layer.name], Unstructured(), keeps):
        level.constants  # what to write into the model, by initializer name
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.admm import STEPS
from passes.methods import Pruner
from passes.reconstruction import DAMPING, quadratic

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.methods import Method
    from passes.moments import Moments
    from passes.patterns import Pattern


@dataclass(frozen=True)
class Level:
    """One layer at one level.

    Attributes:
        kept: weights that its mask keeps; a pattern may keep fewer than were asked for.
        weights: in the layer's view, float64 ``(groups, rows, columns)``, zero outside the mask.
        mask: bool of the same shape; True keeps.
        error: of the layer's outputs over the calibration data as a share of their variance; 0 when
            nothing is pruned, 1 when the layer says nothing but its mean.
        constants: arrays in stored form by initializer name: the weight, and the bias that goes
            with it where the layer has one of its own.
        method: what was taken, in words.
    """

    kept: int
    weights: NDArray[np.float64]
    mask: NDArray[np.bool_]
    error: float
    constants: Mapping[str, NDArray[Any]]
    method: str


def prune_levels(
    layer: Layer,
    moments: Moments,
    pattern: Pattern,
    keeps: Iterable[int],
    *,
    method: Method = "obs",
    damping: float = DAMPING,
    steps: int = STEPS,
) -> Iterator[Level]:
    """Prune one layer to each level by a one-shot method; the model itself is not changed.

    What the levels share (the eigendecomposition of ADMM, the factor of SparseGPT, the trace of exact
    removal) is computed once.

    Args:
        layer: of :func:`passes.layers.find_layers`.
        moments: of :func:`passes.calibration.calibrate`, of the same layer.
        pattern: the shape of masks, as :func:`passes.patterns.parse_pattern` gives it.
        keeps: weights to keep at each level, 0 to all.
        method: of :data:`passes.methods.METHODS`.
        damping: see :func:`passes.reconstruction.quadratic`.
        steps: of ADMM at each level, at most.

    Yields:
        A :class:`Level` for each of ``keeps``, in their order.

    Raises:
        NotPositiveDefinite: when no damping makes the problem solvable.
    """
    dense = layer.matrices()
    centred = moments.centred()
    problem = quadratic(centred if layer.bias is not None else moments, dense, damping)
    fitted = pattern.fitted(layer.taps, layer.weight.in_memory)
    pruner = Pruner(method, dense, problem, moments.gram, fitted, steps, layer.grid)
    scale = max(float(((dense @ centred.gram) * dense).sum()), np.finfo(np.float64).tiny)
    for keep in keeps:
        weights, mask, words = pruner.at(keep)
        constants = {layer.name: layer.stored(weights)}
        if layer.bias is not None:
            lost = np.einsum("grc,gc->gr", dense - weights, moments.mean)
            constants[layer.bias.name] = layer.bias.stored(layer.bias.values({}) + lost, {})
        error = problem.error(weights) / scale
        yield Level(int(mask.sum()), weights, mask, error, constants, words)
