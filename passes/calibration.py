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
from passes.operators.constants import stored_tensor
from passes.reconstruction import least_squares, quadratic
from passes.saliency import magnitude
from passes.schedule import folded_nodes
from passes.stream import Stretch
from passes.values import Values, tap_name

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
    taps, folded = len(pending), folded_nodes(model.graph)
    while pending:
        watched, sums = pending[:taps], [_Sums(layer) for layer in pending[:taps]]
        rng = np.random.default_rng(seed)
        needs = [v for layer in watched for v in layer.needs if stored_tensor(v) is None]
        stretch = Stretch(model, list(model.graph), {tap_name(value) for value in needs}, folded)
        for batch, found in zip(batches, stretch.each(runner, batches, {}), strict=True):
            size = sum(array.nbytes for array in found.values())
            if size > TAP_BYTES and len(watched) > 1:
                taps = max(1, len(watched) * TAP_BYTES // (2 * size))
                break
            for item in sums:
                item.add(Values(batch | found, {}), max(1, -(-positions // len(batches))), rng)
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
    pattern = pattern.fitted(layer.taps)
    dense = layer.matrices()
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
            probe[layer.name] = layer.stored(solved)
            if layer.bias is not None:
                lost = np.einsum("grc,gc->gr", dense - solved, moments.mean)
                probe[layer.bias.name] = layer.bias.stored(layer.bias.values({}) + lost, {})
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
            probe[weight.name] = weight.masked(mask)
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
        groups, _, columns = layer.shape
        self.layer = layer
        self._count = 0
        self._gram = np.zeros((groups, columns, columns))
        self._total = np.zeros((groups, columns))

    def add(self, values: Values, positions: int, rng: np.random.Generator) -> None:
        """Take in about so many positions of a batch."""
        sources = self.layer.sources
        seen = [source.reader.prepare(values) for source in sources]
        counts = [s.reader.unfold.positions(a) for s, a in zip(sources, seen, strict=True)]
        share = min(1.0, positions / max(1, sum(counts)))
        for source, activation, count in zip(sources, seen, counts, strict=True):
            if count:
                take = min(count, max(1, round(count * share)))
                index = np.sort(rng.choice(count, take, replace=False))
                self._add(source.reductions(activation, index))

    def _add(self, reductions: NDArray[np.float32]) -> None:
        self._count += reductions.shape[1]
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
        if not self._count:
            msg = f"no batch of the data reaches weight '{self.layer.name}'"
            raise ValueError(msg)
        dense = self.layer.matrices()
        mean = self._total / self._count
        return Moments(
            self._count,
            self._gram,
            self._gram @ dense.transpose(0, 2, 1),
            mean,
            np.einsum("grc,gc->gr", dense, mean),
        )
