"""Statistics of what weights multiply, and what pruning each of them alone would cost the model.

The model is run once (or as often as keeps the watched activations of one batch within
:data:`TAP_BYTES`), all activations are watched in the same run, and each batch goes into float64 sums
at once, so that memory does not grow with the number of samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.admm import Admm
from passes.moments import Moments, product
from passes.reconstruction import least_squares, quadratic
from passes.saliency import magnitude
from passes.stream import Stretch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.patterns import Pattern
    from passes.stream import Feeds, Runner
    from passes.weights import Weight

TAP_BYTES = 2**30
CURVE_LEVELS = (0.3, 0.5, 0.65, 0.75, 0.83, 0.88, 0.92, 0.95, 0.97)
"""Sparsities at which the error of a layer is measured."""

CURVE_STEPS = 15
"""Of ADMM at each level: a curve needs no final mask."""

PROBE_LEVEL = 4
"""The level at which the whole model is run to see how much a layer's error matters."""


FINE_LEVELS = 128
"""Levels to which a curve is interpolated."""


@dataclass(frozen=True)
class Curve:
    """How a layer's error grows with its sparsity.

    Attributes:
        keeps: weights kept, falling, from all of them.
        errors: error of the layer's outputs as a share of their variance, rising from 0.
        probe: arrays by name that prune this layer alone to the probed level.
        probed: which of the levels that is.
    """

    keeps: NDArray[np.int64]
    errors: NDArray[np.float64]
    probe: Mapping[str, NDArray[Any]]
    probed: int


def calibrate(
    model: ir.Model,
    layers: Sequence[Layer],
    batches: Sequence[Feeds],
    runner: Runner,
    *,
    positions: int,
    seed: int = 0,
) -> dict[str, Moments]:
    """Moments of each layer in the dense model, its own outputs as targets, by weight name.

    Args:
        model: dense.
        layers: to watch.
        batches: feeds for the model's inputs.
        runner: runs models.
        positions: at most about so many are drawn for each layer.
        seed: of the positions.

    Raises:
        ValueError: naming the weight, when an activation holds NaN or infinity.
    """
    result: dict[str, Moments] = {}
    pending = list(layers)
    taps = len(pending)
    while pending:
        watched, sums = pending[:taps], [_Sums(layer) for layer in pending[:taps]]
        rng = np.random.default_rng(seed)
        names = {layer.activation.name or "" for layer in watched}
        stretch = Stretch(model, list(model.graph), names)
        for batch in batches:
            values = batch | stretch.run(runner, [batch], {})[0]
            size = sum(values[name].nbytes for name in names)
            if size > TAP_BYTES and len(watched) > 1:
                taps = max(1, len(watched) * TAP_BYTES // (2 * size))
                break
            for item in sums:
                item.add(values, max(1, -(-positions // len(batches))), rng)
        else:
            result |= {item.layer.name: item.moments() for item in sums}
            pending = pending[len(watched) :]
    return result


def error_curve(layer: Layer, moments: Moments, pattern: Pattern, damping: float) -> Curve:
    """The error of a layer at several sparsities, each with its best mask and update.

    Args:
        layer: whose weight is pruned.
        moments: of :func:`calibrate`.
        pattern: of the masks.
        damping: see :func:`~passes.reconstruction.quadratic`.
    """
    pattern = pattern.fitted(layer.unfold.taps)
    dense = layer.weight.matrices().astype(np.float64)
    free = layer.bias is not None
    centred = moments.centred()
    problem = quadratic(centred if free else moments, dense, damping)
    scale = max(float(((dense @ centred.gram) * dense).sum()), np.finfo(np.float64).tiny)
    solver = Admm(problem)
    keeps, errors = [dense.size], [0.0]
    probe: dict[str, NDArray[Any]] = {}
    for number, sparsity in enumerate(CURVE_LEVELS):
        keep = max(1, round(dense.size * (1 - sparsity)))
        mask = solver.mask(pattern, keep, CURVE_STEPS)
        solved = least_squares(problem, mask)
        keeps.append(int(mask.sum()))
        errors.append(max(problem.error(solved) / scale, errors[-1]))
        if number == PROBE_LEVEL:
            stored_weight = layer.weight.array()
            probe[layer.name] = layer.weight.layout.array(solved).astype(stored_weight.dtype)
            if layer.bias is not None and layer.bias.const_value is not None:
                lost = np.einsum("grc,gc->gr", dense - solved, moments.mean)
                stored = layer.bias.const_value.numpy()
                moved = stored + lost.reshape(stored.shape)
                probe[layer.bias.name or ""] = moved.astype(stored.dtype)
    return _finer(np.array(keeps), np.array(errors), probe)


def magnitude_curve(weight: Weight, pattern: Pattern) -> Curve:
    """The curve of a weight whose inputs cannot be watched: the share of its squares that is lost."""
    dense = weight.matrices().astype(np.float64)
    total = max(float((dense**2).sum()), np.finfo(np.float64).tiny)
    keeps, errors = [dense.size], [0.0]
    probe = {}
    for number, sparsity in enumerate(CURVE_LEVELS):
        mask = pattern.mask(magnitude(dense), max(1, round(dense.size * (1 - sparsity))))
        keeps.append(int(mask.sum()))
        errors.append(1 - float((dense**2)[mask].sum()) / total)
        if number == PROBE_LEVEL:
            probe[weight.name] = weight.layout.array(dense * mask).astype(weight.array().dtype)
    return _finer(np.array(keeps), np.maximum.accumulate(errors), probe)


def losses_of(
    curves: Mapping[str, Curve],
    sensitivity_of: Callable[[Mapping[str, NDArray[Any]]], float],
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, NDArray[np.float64]]:
    """What each level of each layer costs the model, for :func:`passes.allocation.cheapest`.

    A layer that keeps the share 1 - e of its outputs' variance keeps that share of the signal that runs
    through it, and shares multiply along the depth of a model: the cost is -log(1 - e). It is
    weighed by the square root of how much of a layer's error reaches the outputs, measured by running
    the model with that layer alone pruned: halfway between all layers alike and errors that
    add up only at the outputs, which measures best where much is pruned.

    Args:
        curves: by weight name.
        sensitivity_of: error of the model's outputs, as a share of their variance, under given arrays.
        progress: told of layers done and in all.
    """
    losses = {}
    for number, (name, curve) in enumerate(curves.items()):
        local = max(float(curve.errors[curve.probed]), 1e-9)
        reach = max(sensitivity_of(curve.probe), 1e-9) / local
        losses[name] = -np.log1p(-np.minimum(curve.errors, 0.999)) * np.sqrt(reach)
        progress(number + 1, len(curves))
    return losses


def _finer(
    keeps: NDArray[np.int64], errors: NDArray[np.float64], probe: Mapping[str, NDArray[Any]]
) -> Curve:
    """The curve at more counts than were measured: errors grow about exponentially between them."""
    known, places = np.unique(keeps, return_index=True)
    floor = np.finfo(np.float32).tiny
    fine = np.unique(np.round(np.linspace(known[0], known[-1], FINE_LEVELS)).astype(np.int64))
    fine = np.union1d(fine, known)
    logs = np.interp(fine, known, np.log(np.maximum(errors[places], floor)))
    values = np.where(fine == known[-1], errors[places[-1]], np.exp(logs))
    probed = int(np.flatnonzero(fine[::-1] == keeps[PROBE_LEVEL + 1])[0])
    return Curve(fine[::-1], values[::-1], probe, probed)


class _Sums:
    """Sums of one layer's reductions over batches."""

    def __init__(self, layer: Layer) -> None:
        groups, _, columns = layer.weight.matrices().shape
        self.layer = layer
        self._count = 0
        self._gram = np.zeros((groups, columns, columns))
        self._total = np.zeros((groups, columns))

    def add(self, values: Feeds, positions: int, rng: np.random.Generator) -> None:
        activation = values[self.layer.activation.name or ""]
        count = self.layer.unfold.positions(activation)
        index = np.sort(rng.choice(count, min(count, positions), replace=False))
        reductions = self.layer.unfold.reductions(activation, index)
        self._count += len(index)
        for group, rows in enumerate(reductions):
            self._gram[group] += product(rows, rows)
            self._total[group] += rows.sum(axis=0, dtype=np.float64)
        if not np.isfinite(self._gram).all():
            msg = (
                f"the activation of weight '{self.layer.name}' holds NaN or infinity, or numbers too "
                "large to square"
            )
            raise ValueError(msg)

    def moments(self) -> Moments:
        dense = self.layer.weight.matrices().astype(np.float64)
        mean = self._total / self._count
        return Moments(
            self._count,
            self._gram,
            self._gram @ dense.transpose(0, 2, 1),
            mean,
            np.einsum("grc,gc->gr", dense, mean),
        )
