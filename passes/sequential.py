"""Pruning layer by layer, each given the inputs that its pruned predecessors really produce.

Two streams run side by side: the dense model and the model pruned so far. At each layer, the
moments of what the pruned stream feeds it and of what the dense stream gives pose the problem of
:mod:`passes.reconstruction`. Three things make the targets better than the dense outputs alone:

- where the output is added to another value (a residual connection), the target makes good what
  the pruned stream has already lost on that other path;
- where a Relu follows, outputs that the dense model rectifies away need only stay negative: their
  targets follow the prediction, and the problem is solved again;
- the bias is solved for together with the weights, by centring the moments.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.batch_norm import find_batch_norms, reestimated
from passes.calibration import calibrate
from passes.layers import Layer, in_order, watch
from passes.methods import SECOND_ORDER, Method, Pruner, taken
from passes.moments import Moments, moments
from passes.patterns import Pattern, Unstructured
from passes.reconstruction import DAMPING, quadratic
from passes.samples import draw_samples
from passes.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.samples import Samples
    from passes.stream import Feeds, Runner
    from passes.values import Values
    from passes.weights import Weight

SAMPLE_BYTES = 2**29
"""Reductions of one layer that are held at once."""

STREAM_BYTES = 2**31
"""Values between layers that are held at once, of both streams; batches beyond it are run anew for
each layer."""


@dataclass(frozen=True)
class Options:
    """How to prune.

    Attributes:
        method: of :mod:`passes.methods`.
        pattern: the shape of masks.
        patterns: shapes of masks by weight name, where they are not ``pattern``.
        damping: of the Hessian, the least, as a share of its mean diagonal.
        positions: at most so many are drawn for each layer.
        sequential: whether each layer sees what its pruned predecessors give, or the dense model's.
        bias_correction: whether biases move so that mean outputs stay those of the dense model.
        batch_norm: whether statistics of BatchNormalization are estimated again.
        rectify_rounds: how often a layer before a Relu is solved; 1 takes its targets as they are.
        seed: of the positions that are drawn.
        stream_bytes: see :data:`STREAM_BYTES`.
    """

    method: Method = "obs"
    pattern: Pattern = field(default_factory=Unstructured)
    patterns: Mapping[str, Pattern] = field(default_factory=dict)
    damping: float = DAMPING
    positions: int = 32768
    sequential: bool = True
    bias_correction: bool = True
    batch_norm: bool = True
    rectify_rounds: int = 2
    seed: int = 0
    stream_bytes: int = STREAM_BYTES

    def pattern_of(self, name: str) -> Pattern:
        """The shape of one weight's mask."""
        return self.patterns.get(name, self.pattern)


@dataclass(frozen=True)
class Reconstruction:
    """What pruning made of a model's constants; nothing is applied yet.

    Attributes:
        constants: new arrays by name: weights, and biases and statistics that moved.
        masks: by weight, ``(groups, rows, columns)``.
        methods: by weight, how it was pruned and with which damping.
    """

    constants: dict[str, NDArray[Any]]
    masks: dict[str, NDArray[np.bool_]]
    methods: dict[str, str]


def prune_sequentially(
    model: ir.Model,
    weights: Sequence[Weight],
    keep: Mapping[str, int],
    batches: Sequence[Feeds],
    runner: Runner,
    options: Options | None = None,
    *,
    given: Mapping[str, NDArray[Any]] | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Reconstruction:
    """Prune each layer that can be watched to what it may keep; the model itself is not changed.

    Args:
        model: dense.
        weights: what to prune; those that are no layers (tied, or of an operator whose reductions
            are not known) are left to the caller and are not in the result.
        keep: weights to keep, by name.
        batches: calibration feeds for the model's inputs.
        runner: runs stretches of the model.
        options: the defaults when None.
        given: arrays of weights that are pruned already, by name; they are in the result too.
        progress: told of layers done and in all.

    Raises:
        ValueError: when an activation holds NaN or infinity; the sentence names the weight.
    """
    options = options or Options()
    result = Reconstruction(dict(given or {}), {}, {})
    chosen = [weight for weight in weights if weight.name in keep]
    layers, _ = watch(model.graph, chosen, lambda name: options.pattern_of(name).row_tile)
    run = _Run(model, layers, keep, batches, runner, options, result, progress)
    run.all()
    return result


class _Run:
    """One run of :func:`prune_sequentially`."""

    def __init__(
        self,
        model: ir.Model,
        layers: Sequence[Layer],
        keep: Mapping[str, int],
        batches: Sequence[Feeds],
        runner: Runner,
        options: Options,
        result: Reconstruction,
        progress: Callable[[int, int], None],
    ) -> None:
        self._model, self._layers, self._keep = model, layers, keep
        self._batches, self._runner, self._options = batches, runner, options
        self._result, self._progress = result, progress
        self._norms = find_batch_norms(model.graph) if options.batch_norm else {}
        self._nodes, folded = in_order(model.graph, layers)
        self._rng = np.random.default_rng(options.seed)
        half = options.stream_bytes // 2
        self._dense, self._pruned = (
            Stream(model, self._nodes, folded, batches, runner, constants, half)
            for constants in ({}, result.constants)
        )

    def all(self) -> None:
        """Every layer, in the order of the schedule."""
        self._unrolled([layer for layer in self._layers if layer.unrolled])
        by_node: dict[ir.Node, list[Layer]] = {}
        for layer in self._layers:
            if not layer.unrolled:
                by_node.setdefault(layer.node, []).append(layer)
        for stop, node in enumerate(self._nodes):
            for layer in by_node.get(node, ()):
                with _named(layer):
                    self._prune(layer, stop)
                self._progress(len(self._result.methods), len(self._layers))
            if node in self._norms:
                norm = self._norms[node]
                self._result.constants.update(
                    reestimated(norm, self._pairs(stop, (), inside=False))
                )

    def _pairs(
        self, stop: int, taps: Sequence[ir.Value], *, inside: bool
    ) -> Iterator[tuple[Values, Values]]:
        dense = self._dense.visit(stop, taps, inside=inside)
        return zip(dense, self._pruned.visit(stop, taps, inside=inside), strict=True)

    def _unrolled(self, layers: Sequence[Layer]) -> None:
        """Layers that are read again further on see what the dense model gives all their readers."""
        options = self._options
        known = calibrate(
            self._model,
            layers,
            self._batches,
            self._runner,
            positions=options.positions,
            seed=options.seed,
        )
        for layer in layers:
            with _named(layer):
                values = layer.matrices()
                found = _solve(layer, values, known[layer.name], self._keep[layer.name], options)
            self._store(layer, *found, free=False)
            self._progress(len(self._result.methods), len(self._layers))

    def _prune(self, layer: Layer, stop: int) -> None:
        options = self._options
        values = layer.matrices()
        size = 4 * values.shape[0] * values.shape[2]
        positions = max(1, min(options.positions, SAMPLE_BYTES // size))
        inside = any(source.reader.inside for source in layer.sources)
        pairs = self._pairs(stop, layer.needs, inside=inside)
        if not options.sequential:
            pairs = ((right, right) for right, _ in pairs)
        samples = draw_samples(layer, values, pairs, len(self._batches), positions, self._rng)
        outputs = layer.sources[0].reader.node.outputs[:1]
        normalized = any(use.node in self._norms for value in outputs for use in value.uses())
        corrected = layer.bias is not None and options.bias_correction
        sums = moments(samples.reductions, samples.targets)
        found = _solve(
            layer,
            values,
            sums,
            self._keep[layer.name],
            options,
            samples,
            free=corrected or normalized,
        )
        self._store(layer, *found, free=corrected)

    def _store(
        self,
        layer: Layer,
        solved: NDArray[np.float64],
        mask: NDArray[np.bool_],
        sums: Moments,
        label: str,
        *,
        free: bool,
    ) -> None:
        constants = self._result.constants
        # float16 and grids may round a kept weight to zero; the mask still counts it as kept.
        constants[layer.name] = layer.stored(solved)
        self._result.masks[layer.name] = mask.reshape(layer.weight.layout.matrix_shape)
        self._result.methods[layer.name] = label
        if layer.bias is not None and free:
            constants[layer.bias.name] = layer.bias.stored(_bias(sums, solved), constants)


@contextmanager
def _named(layer: Layer) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        msg = f"weight '{layer.name}' cannot be reconstructed: {error}"
        raise ValueError(msg) from error


def _solve(
    layer: Layer,
    values: NDArray[np.float64],
    sums: Moments,
    keep: int,
    options: Options,
    samples: Samples | None = None,
    *,
    free: bool = False,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], Moments, str]:
    """Weights, their mask, the moments that they answer to, and how they were found."""
    pattern = options.pattern_of(layer.name).fitted(layer.taps, layer.weight.in_memory)
    method = taken(options.method, values.shape[2])
    second = method in SECOND_ORDER
    rounds = options.rectify_rounds if layer.rectified and second and samples is not None else 1
    for number in range(rounds):
        problem = quadratic(sums.centred() if free else sums, values, options.damping)
        pruner = Pruner(method, values, problem, sums.gram, pattern, grid=layer.grid)
        solved, mask, words = pruner.at(keep)
        if number + 1 < rounds and samples is not None:
            bias = _bias(sums, solved) if free else None
            sums = sums.with_targets(samples.reductions, samples.rectified(solved, bias))
    return solved, mask, sums, f"{words}, damping {problem.damping:g}" if second else words


def _bias(sums: Moments, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bias that goes with weights ``(G, R, C)``: ``(G, R)``."""
    explained: NDArray[np.float64] = np.einsum("grc,gc->gr", weights, sums.mean)
    return sums.target - explained
