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

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.batch_norm import BatchNorm, find_batch_norms, reestimated
from passes.layers import Layer, find_layers, schedule
from passes.methods import SECOND_ORDER, Method, Pruner, taken
from passes.moments import Moments, moments
from passes.patterns import Pattern, Unstructured
from passes.reconstruction import DAMPING, quadratic
from passes.samples import Samples, draw_samples
from passes.stream import advance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.stream import Feeds, Runner
    from passes.weights import Weight

SAMPLE_BYTES = 2**29
"""Reductions of one layer that are held at once."""


@dataclass(frozen=True)
class Options:
    """How to prune.

    Attributes:
        method: of :mod:`passes.methods`.
        pattern: the shape of masks.
        patterns: shapes of masks by weight name, where they are not ``pattern``.
        damping: of the Hessian, as a share of its mean diagonal.
        positions: at most so many are drawn for each layer.
        sequential: whether each layer sees what its pruned predecessors give, or the dense model's.
        bias_correction: whether biases move so that mean outputs stay those of the dense model.
        batch_norm: whether statistics of BatchNormalization are estimated again.
        rectify_rounds: how often a layer before a Relu is solved; 1 takes its targets as they are.
        seed: of the positions that are drawn.
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
    layers = {
        layer.node: layer for layer in find_layers(model.graph, weights) if layer.name in keep
    }
    norms = find_batch_norms(model.graph) if options.batch_norm else {}
    nodes = schedule(model.graph, list(layers.values()))
    dense, pruned = ([dict(batch) for batch in batches] for _ in range(2))
    result = Reconstruction(dict(given or {}), {}, {})
    rng = np.random.default_rng(options.seed)
    start = 0
    for stop, node in enumerate(nodes):
        if node not in layers and node not in norms:
            continue
        advance(model, nodes, start, stop, runner, dense, {})
        advance(model, nodes, start, stop, runner, pruned, result.constants)
        start = stop
        if node in norms:
            result.constants.update(reestimated(norms[node], dense, pruned))
            continue
        layer = layers[node]
        seen = pruned if options.sequential else dense
        try:
            _prune_layer(layer, keep[layer.name], dense, seen, options, rng, norms, result)
        except ValueError as error:
            msg = f"weight '{layer.name}' cannot be reconstructed: {error}"
            raise ValueError(msg) from error
        progress(len(result.methods), len(layers))
    return result


def _prune_layer(
    layer: Layer,
    keep: int,
    dense: Sequence[Feeds],
    seen: Sequence[Feeds],
    options: Options,
    rng: np.random.Generator,
    norms: Mapping[ir.Node, BatchNorm],
    result: Reconstruction,
) -> None:
    values = layer.weight.matrices().astype(np.float64)
    positions = min(options.positions, SAMPLE_BYTES // (4 * values.shape[0] * values.shape[2]))
    samples = draw_samples(layer, values, dense, seen, max(1, positions), rng)
    normalized = any(use.node in norms for use in layer.node.outputs[0].uses())
    free = (layer.bias is not None and options.bias_correction) or normalized
    solved, mask, sums, label = _solve(layer, values, samples, keep, options, free=free)
    stored = layer.weight.array()
    # float16 may round a kept weight to zero; the mask still counts it as kept.
    result.constants[layer.name] = layer.weight.layout.array(solved).astype(stored.dtype)
    result.masks[layer.name] = mask
    result.methods[layer.name] = label
    if layer.bias is not None and options.bias_correction:
        assert layer.bias.const_value is not None
        old = layer.bias.const_value.numpy()
        bias = _bias(sums, solved).reshape(old.shape)
        result.constants[layer.bias.name or ""] = bias.astype(old.dtype)


def _solve(
    layer: Layer,
    values: NDArray[np.float64],
    samples: Samples,
    keep: int,
    options: Options,
    *,
    free: bool,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], Moments, str]:
    """Weights, their mask, the moments that they answer to, and how they were found."""
    pattern = options.patterns.get(layer.name, options.pattern).fitted(layer.unfold.taps)
    method = taken(options.method, values.shape[2])
    second = method in SECOND_ORDER
    rounds = options.rectify_rounds if layer.rectified and second else 1
    damping = options.damping
    sums = moments(samples.reductions, samples.targets)
    for number in range(rounds):
        problem = quadratic(sums.centred() if free else sums, values, damping)
        damping = problem.damping
        solved, mask, words = Pruner(method, values, problem, sums.gram, pattern).at(keep)
        if number + 1 < rounds:
            bias = _bias(sums, solved) if free else None
            sums = sums.with_targets(samples.reductions, samples.rectified(solved, bias))
    return solved, mask, sums, f"{words}, damping {damping:g}" if second else words


def _bias(sums: Moments, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bias that goes with weights ``(G, R, C)``: ``(G, R)``."""
    explained: NDArray[np.float64] = np.einsum("grc,gc->gr", weights, sums.mean)
    return sums.target - explained
