"""Pruning layer by layer, each given the inputs that its pruned predecessors really produce.

Two streams run side by side: the dense model and the model pruned so far. At each layer, the
moments of what the pruned stream feeds it and of what the dense stream gives pose the problem of
:mod:`passes.reconstruction`. Three things make the targets better than the dense outputs alone:

- where the output is added to another value (a residual connection), the target makes good what
  the pruned stream has already lost on that other path;
- where a Relu follows, outputs that the dense model rectifies away need only stay negative: their
  targets follow the prediction, and the problem is solved again a few times;
- the bias is solved for together with the weights, by centring the moments.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.layers import Layer, find_layers, reads, schedule
from passes.moments import Moments, moments
from passes.patterns import Pattern, Unstructured
from passes.reconstruction import DAMPING, Quadratic, admm_mask, least_squares, quadratic
from passes.stream import Stretch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.stream import Feeds, Runner
    from passes.weights import Weight


@dataclass(frozen=True)
class Options:
    """How to reconstruct.

    Attributes:
        pattern: the shape of masks.
        damping: of the Hessian, as a share of its mean diagonal.
        positions: at most so many are drawn for each layer.
        rectify_rounds: how often a layer before a Relu is solved; 1 takes its targets as they are.
        seed: of the positions that are drawn.
    """

    pattern: Pattern = field(default_factory=Unstructured)
    damping: float = DAMPING
    positions: int = 65536
    rectify_rounds: int = 4
    seed: int = 0


@dataclass(frozen=True)
class Reconstruction:
    """What pruning made of a model's constants; nothing is applied yet.

    Attributes:
        constants: new arrays by name: weights, and biases that moved.
        methods: by weight, how it was pruned and with which damping.
    """

    constants: dict[str, NDArray[Any]]
    methods: dict[str, str]


def prune_sequentially(
    model: ir.Model,
    weights: Sequence[Weight],
    keep: Mapping[str, int],
    batches: Sequence[Feeds],
    runner: Runner,
    options: Options | None = None,
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
        progress: told of layers done and in all.

    Raises:
        ValueError: when an activation holds NaN or infinity; the sentence names the weight.
    """
    options = options or Options()
    layers = {
        layer.node: layer for layer in find_layers(model.graph, weights) if layer.name in keep
    }
    nodes = schedule(model.graph, list(layers.values()))
    dense, pruned = ([dict(batch) for batch in batches] for _ in range(2))
    result = Reconstruction({}, {})
    rng = np.random.default_rng(options.seed)
    start = 0
    for stop, node in enumerate(nodes):
        if node not in layers:
            continue
        _advance(model, nodes, start, stop, runner, dense, {})
        _advance(model, nodes, start, stop, runner, pruned, result.constants)
        start = stop
        layer = layers[node]
        try:
            _prune_layer(layer, keep[layer.name], dense, pruned, options, rng, result)
        except ValueError as error:
            msg = f"weight '{layer.name}' cannot be reconstructed: {error}"
            raise ValueError(msg) from error
        progress(len(result.methods), len(layers))
    return result


def _advance(
    model: ir.Model,
    nodes: Sequence[ir.Node],
    start: int,
    stop: int,
    runner: Runner,
    stream: list[Feeds],
    constants: Mapping[str, NDArray[Any]],
) -> None:
    """Run ``nodes[start:stop]`` and forget what nothing reads any more."""
    needed = {value.name or "" for node in nodes[stop:] for value in reads(node)}
    made = Stretch(model, nodes[start:stop], needed).run(runner, stream, constants)
    for batch, new in zip(stream, made, strict=True):
        batch.update(new)
        for name in [name for name in batch if name not in needed]:
            del batch[name]


@dataclass(frozen=True)
class _Samples:
    """What one layer sees at the positions drawn, all float32.

    Attributes:
        reductions: ``(G, P, C)``, of the pruned stream.
        wanted: ``(G, P, R)``, what the dense stream has where the layer's output goes: the output
            itself, or its sum with another value.
        added: ``(G, P, R)``, that other value in the pruned stream; zero where there is none.
    """

    reductions: NDArray[np.float32]
    wanted: NDArray[np.float32]
    added: NDArray[np.float32]

    @property
    def targets(self) -> NDArray[np.float32]:
        """What the layer should give: ``wanted`` less what is there already."""
        return self.wanted - self.added

    def rectified(
        self, weights: NDArray[np.float64], bias: NDArray[np.float64] | None
    ) -> NDArray[np.float32]:
        """Targets when a Relu follows: where the dense value is rectified away, any value below 0 will do."""
        got = self.reductions @ weights.transpose(0, 2, 1).astype(np.float32) + self.added
        if bias is not None:
            got += bias.astype(np.float32)[:, None, :]
        wanted = np.where(self.wanted > 0, self.wanted, np.minimum(got, 0))
        return wanted - self.added


def _prune_layer(
    layer: Layer,
    keep: int,
    dense: Sequence[Feeds],
    pruned: Sequence[Feeds],
    options: Options,
    rng: np.random.Generator,
    result: Reconstruction,
) -> None:
    values = layer.weight.matrices().astype(np.float64)
    samples = _draw(layer, values, dense, pruned, options.positions, rng)
    rounds = options.rectify_rounds if layer.rectified else 1
    centred = layer.bias is not None
    sums = moments(samples.reductions, samples.targets)
    problem = _problem(sums, values, options.damping, centred=centred)
    for number in range(rounds):
        if number < 2:  # the support settles in two rounds; later ones only move the values
            mask = (
                np.ones(values.shape, np.bool_)
                if keep >= values.size
                else admm_mask(problem, options.pattern, keep)
            )
        solved = least_squares(problem, mask)
        bias = _bias(sums, solved) if centred else None
        if number + 1 < rounds:
            sums = sums.with_targets(samples.reductions, samples.rectified(solved, bias))
            problem = _problem(sums, values, problem.damping, centred=centred)
    array = layer.weight.array()
    result.constants[layer.name] = layer.weight.layout.array(solved).astype(array.dtype)
    if layer.bias is not None and bias is not None:
        old = layer.bias.const_value
        assert old is not None
        assert layer.bias.name is not None
        stored = old.numpy()
        result.constants[layer.bias.name] = bias.reshape(stored.shape).astype(stored.dtype)
    result.methods[layer.name] = f"admm + least squares, damping {problem.damping:g}"


def _problem(
    sums: Moments, values: NDArray[np.float64], damping: float, *, centred: bool
) -> Quadratic:
    return quadratic(sums.centred() if centred else sums, values, damping)


def _bias(sums: Moments, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bias that goes with weights ``(G, R, C)``: ``(G, R)``."""
    explained: NDArray[np.float64] = np.einsum("grc,gc->gr", weights, sums.mean)
    return sums.target - explained


def _draw(
    layer: Layer,
    values: NDArray[np.float64],
    dense: Sequence[Feeds],
    pruned: Sequence[Feeds],
    positions: int,
    rng: np.random.Generator,
) -> _Samples:
    """Reductions of the pruned stream, and the outputs that the layer should give there."""
    name, unfold = layer.activation.name or "", layer.unfold
    counts = [unfold.positions(batch[name]) for batch in dense]
    share = min(1.0, positions / max(1, sum(counts)))
    weights = values.astype(np.float32).transpose(0, 2, 1)
    groups, rows, _ = values.shape
    bias = _stored_bias(layer).reshape(groups, 1, rows)
    parts: list[tuple[NDArray[np.float32], ...]] = []
    for count, right, ours in zip(counts, dense, pruned, strict=True):
        index = np.sort(rng.choice(count, max(1, round(count * share)), replace=False))
        output = unfold.reductions(right[name], index) @ weights + bias
        there = [_added(layer, stream, index, output, count) for stream in (right, ours)]
        parts.append((unfold.reductions(ours[name], index), output + there[0], there[1]))
    return _Samples(*(np.concatenate(column, axis=1) for column in zip(*parts, strict=True)))


def _stored_bias(layer: Layer) -> NDArray[np.float32]:
    if layer.bias is None or layer.bias.const_value is None:
        return np.zeros(layer.weight.matrices().shape[:2], np.float32)
    return layer.bias.const_value.numpy().astype(np.float32)


def _added(
    layer: Layer,
    stream: Feeds,
    index: NDArray[np.intp],
    output: NDArray[np.float32],
    count: int,
) -> NDArray[np.float32]:
    """What is added to the layer's output in a stream; zero where nothing is, or not one for one."""
    value = None if layer.other is None else stream.get(layer.other.name or "")
    groups, _, rows = output.shape
    channels = -1 if layer.unfold.kernel is None else 1
    if value is None or value.ndim < 2 or value.size != count * groups * rows:
        return np.zeros_like(output)
    if value.shape[channels] != groups * rows:
        return np.zeros_like(output)
    return layer.unfold.outputs(value, index)
