"""How the error of each layer grows with its sparsity, and what that costs the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.levels import prune_levels
from passes.saliency import magnitude

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.methods import Method
    from passes.moments import Moments
    from passes.patterns import Pattern
    from passes.weights import Weight

    CostOf = Callable[[Weight, NDArray[Any]], float]

LEVELS = (0.0, 0.3, 0.5, 0.65, 0.75, 0.83, 0.88, 0.92, 0.95, 0.97)
"""Sparsities at which the error of a layer is measured."""

STEPS = 15
"""Of ADMM at each level: a curve needs no final mask."""

PROBED = 5
"""The level at which the whole model is run to see how much a layer's error matters."""

FINE_LEVELS = 128
"""Levels to which a curve is interpolated."""


@dataclass(frozen=True)
class Curve:
    """How a layer's error and its cost go with the number of weights that it keeps.

    Attributes:
        keeps: weights kept, int64 ``(L,)``, falling, from all of them or the most that a pattern lets
            stay.
        errors: of the layer's outputs as a share of their variance, float64 ``(L,)``, rising.
        costs: in the unit of the target, float64 ``(L,)``, never rising; the number of weights kept
            unless another cost is asked for.
        probe: arrays by name that prune this layer alone to the probed level.
        probed: which of the levels that is.
    """

    keeps: NDArray[np.int64]
    errors: NDArray[np.float64]
    costs: NDArray[np.float64]
    probe: Mapping[str, NDArray[Any]]
    probed: int


def error_curve(
    layer: Layer,
    moments: Moments,
    pattern: Pattern,
    *,
    method: Method = "obs",
    damping: float,
    cost_of: CostOf | None = None,
) -> Curve:
    """The error of a layer at several sparsities, each with its best mask and update.

    Args:
        layer: whose weight is pruned.
        moments: of :func:`passes.calibration.calibrate`.
        pattern: of the masks.
        method: that prunes.
        damping: see :func:`~passes.reconstruction.quadratic`.
        cost_of: what a pruned array costs; the number of weights kept when None.
    """
    weight = layer.weight
    keeps = _keeps(weight, pattern.fitted(layer.taps, weight.in_memory))
    made = list(
        prune_levels(layer, moments, pattern, keeps, method=method, damping=damping, steps=STEPS)
    )
    whole = made[0].kept == weight.elements
    errors = [0.0 if whole else made[0].error, *(level.error for level in made[1:])]
    arrays = [level.constants[layer.name] for level in made]
    arrays[0] = weight.array() if whole else arrays[0]
    probe = made[PROBED].constants
    return _finer(weight, [level.kept for level in made], errors, arrays, cost_of, probe)


def magnitude_curve(weight: Weight, pattern: Pattern, cost_of: CostOf | None = None) -> Curve:
    """The curve of a weight whose inputs cannot be watched: the share of its squares that is lost."""
    dense = weight.matrices().astype(np.float64)
    total = max(float((dense**2).sum()), np.finfo(np.float64).tiny)
    masks = [pattern.mask(magnitude(dense), keep) for keep in _keeps(weight, pattern)]
    arrays = [weight.masked(mask) for mask in masks]
    kept = [int(mask.sum()) for mask in masks]
    errors = [1 - float((dense**2)[mask].sum()) / total for mask in masks]
    return _finer(weight, kept, errors, arrays, cost_of, {weight.name: arrays[PROBED]})


def losses_of(
    curves: Mapping[str, Curve],
    sensitivity_of: Callable[[Mapping[str, NDArray[Any]]], float | None],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, NDArray[np.float64]]:
    """What each level of each layer costs the model, for :mod:`passes.allocation`.

    A layer that keeps the share 1 - e of its outputs' variance keeps that share of the signal that runs
    through it, and shares multiply along the depth of a model: the cost is -log(1 - e). It is
    weighed by the square root of how much of a layer's error reaches the outputs, measured by running
    the model with that layer alone pruned: halfway between all layers alike and errors that
    add up only at the outputs, which measures best where much is pruned.

    Args:
        curves: by weight name.
        sensitivity_of: error of the model's outputs, as a share of their variance, under given arrays;
            None when the data do not reach them: such weights count like the others in the mean.
        progress: told of layers done and in all.
    """
    reach = {}
    for number, (name, curve) in enumerate(curves.items()):
        moved = sensitivity_of(curve.probe)
        if moved is not None:
            reach[name] = max(moved, 1e-9) / max(float(curve.errors[curve.probed]), 1e-9)
        progress(number + 1, len(curves))
    usual = float(np.exp(np.mean(np.log(list(reach.values()))))) if reach else 1.0
    return {
        name: -np.log1p(-np.minimum(curve.errors, 0.999)) * np.sqrt(reach.get(name, usual))
        for name, curve in curves.items()
    }


def _keeps(weight: Weight, pattern: Pattern) -> list[int]:
    """What to keep at each level, from the most that the pattern lets stay."""
    groups, rows, columns = weight.matrices().shape
    most = groups * pattern.most(rows, columns)
    return [min(most, max(1, round(weight.elements * (1 - sparsity)))) for sparsity in LEVELS]


def _finer(
    weight: Weight,
    keeps: Sequence[int],
    errors: Sequence[float],
    arrays: Sequence[NDArray[Any]],
    cost_of: CostOf | None,
    probe: Mapping[str, NDArray[Any]],
) -> Curve:
    """The curve at more counts than were measured: errors grow about exponentially between them."""
    known, places = np.unique(keeps, return_index=True)
    rising = np.maximum.accumulate(errors)[places]
    floor = np.finfo(np.float32).tiny
    fine = np.unique(np.round(np.linspace(known[0], known[-1], FINE_LEVELS)).astype(np.int64))
    fine = np.union1d(fine, known)
    logs = np.interp(fine, known, np.log(np.maximum(rising, floor)))
    values = np.where(fine == known[-1], rising[-1], np.exp(logs))
    costs = fine.astype(np.float64)
    if cost_of is not None:
        measured = [cost_of(weight, arrays[place]) for place in places]
        # A code may cost a little more where less is kept; more pruning never has to.
        costs = np.minimum.accumulate(np.interp(fine, known, measured)[::-1])[::-1]
    probed = int(np.flatnonzero(fine[::-1] == keeps[PROBED])[0])
    return Curve(fine[::-1], values[::-1], costs[::-1], probe, probed)
