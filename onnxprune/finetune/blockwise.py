"""Reconstruction block by block: surviving weights follow the dense model's outputs, without labels.

After one-shot pruning each layer is the best that it can be by itself. Here the layers of a block (of
:mod:`passes.blocks`) are trained together so that what the block gives is what the dense model gives
there, from the inputs that the blocks before it, already reconstructed, really produce (as Li et al.
2021, "BRECQ", do for quantisation and Frantar and Alistarh 2022 for pruning). Masks stay as they are.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from onnxprune.finetune.bridge import OnnxModule, UnsupportedError, several, write_back
from onnxprune.finetune.bridge.dtypes import from_array
from onnxprune.finetune.masks import Masks
from passes.blocks import LAYERS, find_blocks
from passes.stream import Stretch, advance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from passes.blocks import Block
    from passes.layers import Layer
    from passes.stream import Feeds, Runner

PIECE = 8
"""Samples that stay together where a batch can be cut."""

HOLD_OUT = 8
"""Each so many-th piece is not trained on, but says whether training helped."""

TINY = 1e-12


@dataclass(frozen=True)
class BlockTraining:
    """How blocks are trained.

    Attributes:
        layers: the least in a block.
        samples: to be seen in training, counted as often as they are, which bounds the time.
        passes: over the calibration data, at most.
        rate: learning rate of Adam, as a share of the median over the block's weights of the root mean
            square of what survives; it falls to zero along a cosine.
        step_samples: samples of a step, about.
        seed: of the order of samples.
    """

    layers: int = LAYERS
    samples: int = 8192
    passes: int = 32
    rate: float = 0.012
    step_samples: int = 64
    seed: int = 0


@dataclass(frozen=True)
class BlockResult:
    """What became of one block.

    Attributes:
        layers: names of its weights.
        before, after: error of its outputs on batches that were held out, as a share of their variance;
            equal where training did not help and the weights stayed.
        reason: why it was left as it was, or an empty text.
    """

    layers: tuple[str, ...]
    before: float
    after: float
    reason: str = ""

    @property
    def words(self) -> str:
        """Its weights and their errors, for a report."""
        moved = f"error {self.before:.4g} to {self.after:.4g}"
        return f"{', '.join(self.layers)}: {self.reason or moved}"


def reconstruct_blocks(
    model: ir.Model,
    layers: Sequence[Layer],
    masks: Mapping[str, NDArray[np.bool_]],
    constants: Mapping[str, NDArray[Any]],
    batches: Sequence[Feeds],
    runner: Runner,
    training: BlockTraining | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> tuple[dict[str, NDArray[Any]], list[BlockResult]]:
    """Train what survives of each block's weights, and its biases, towards the dense model's values.

    Args:
        model: dense; it is not changed.
        layers: of :func:`passes.layers.find_layers`, those that were pruned. Tied weights and those of
            integers are left as they are.
        masks: by weight name, ``(groups, rows, columns)``; True keeps.
        constants: what pruning made, by name.
        batches: calibration feeds for the model's inputs.
        runner: runs stretches of the model.
        training: the defaults when None.
        threads: of torch.
        progress: told of blocks done and in all.

    Returns:
        All constants by name, those that moved with their new values, and what became of each block. A
        block whose error on held-out batches does not fall stays as it was.
    """
    training = training or BlockTraining()
    layers = [
        layer for layer in layers if len(layer.sources) == 1 and layer.weight.quantization is None
    ]
    nodes, blocks = find_blocks(model.graph, layers, training.layers)
    dense, pruned = ([dict(batch) for batch in batches] for _ in range(2))
    made, results = dict(constants), []
    with _threads(threads):
        for number, block in enumerate(blocks):
            kept = frozenset(block.outputs)
            before = [dict(batch) for batch in pruned]
            advance(model, nodes, block.start, block.stop, runner, dense, {}, kept)
            if block.layers:
                stretch = Stretch(model, nodes[block.start : block.stop], set(kept))
                trained = _Trained(block, stretch, masks, made, before, dense, training)
                changed, result = trained.run()
                made.update(changed)
                results.append(result)
            advance(model, nodes, block.start, block.stop, runner, pruned, made)
            for batch in dense:
                for name in kept - pruned[0].keys():
                    batch.pop(name, None)
            progress(number + 1, len(blocks))
    return made, results


@final
class _Trained:
    """One block as a torch module, with its inputs and targets in pieces."""

    def __init__(
        self,
        block: Block,
        stretch: Stretch,
        masks: Mapping[str, NDArray[np.bool_]],
        constants: Mapping[str, NDArray[Any]],
        inputs: Sequence[Feeds],
        targets: Sequence[Feeds],
        training: BlockTraining,
    ) -> None:
        self._block, self._training, self._masks = block, training, masks
        self._proto = onnx.load_model_from_string(stretch.serialized(inputs[0], constants))
        self._variance = {
            name: _variance([batch[name] for batch in targets])
            for name in block.outputs
            if targets[0][name].dtype.kind == "f"
        }
        self._wanted = [name for name, variance in self._variance.items() if variance > TINY]
        self._pieces = [
            piece
            for feed, batch in zip(inputs, targets, strict=True)
            for piece in _pieces(
                {name: feed[name] for name in stretch.inputs},
                {name: batch[name] for name in self._wanted},
            )
        ]

    def run(self) -> tuple[dict[str, NDArray[Any]], BlockResult]:
        """Constants that moved, and what became of the block."""
        names = tuple(layer.name for layer in self._block.layers)
        if not self._wanted:
            return {}, BlockResult(names, 0.0, 0.0, "its outputs do not vary")
        try:
            module = OnnxModule(self._proto, compute=torch.float32)
        except UnsupportedError as error:
            return {}, BlockResult(names, 0.0, 0.0, str(error))
        module.set_mode(dropout=False, batch_norm=False, straight_through=True)
        parameters = self._parameters(module)
        held = self._pieces[::HOLD_OUT]
        seen = [piece for n, piece in enumerate(self._pieces) if n % HOLD_OUT] or held
        before = self._error(module, held)
        self._train(module, parameters, seen)
        after = self._error(module, held)
        if not after < before:
            return {}, BlockResult(names, before, before, "training did not help")
        write_back(self._proto, module)
        stored = {tensor.name: tensor for tensor in self._proto.graph.initializer}
        changed = {name: numpy_helper.to_array(stored[name]) for name in parameters}
        return changed, BlockResult(names, before, after)

    def _parameters(self, module: OnnxModule) -> dict[str, nn.Parameter]:
        """Weights and biases of the layers, those that the module trains."""
        layers = self._block.layers
        wanted = {layer.weight.value.name for layer in layers}
        wanted |= {layer.bias.name for layer in layers if layer.bias is not None}
        for name, parameter in module.weights.items():
            parameter.requires_grad = name in wanted
        return {name: p for name, p in module.weights.items() if name in wanted}

    def _train(
        self, module: OnnxModule, parameters: dict[str, nn.Parameter], seen: Sequence[_Piece]
    ) -> None:
        training, samples = self._training, sum(piece.samples for piece in seen)
        layers = [layer for layer in self._block.layers if layer.name in parameters]
        masks = Masks(parameters, keep_zeros=False)
        masks.load({layer.name: _stored(layer, self._masks[layer.name]) for layer in layers})
        rate = training.rate * float(np.median([_scale(parameters[la.name]) for la in layers]))
        optimizer = torch.optim.Adam(list(parameters.values()), lr=rate)
        passes = min(training.passes, max(1, round(training.samples / samples)))
        together = max(1, round(training.step_samples * len(seen) / samples))
        steps = math.ceil(len(seen) / together) * passes
        rng, step = np.random.default_rng(training.seed), 0
        for _ in range(passes):
            order = rng.permutation(len(seen))
            for start in range(0, len(order), together):
                optimizer.param_groups[0]["lr"] = (
                    rate * 0.5 * (1 + math.cos(math.pi * step / steps))
                )
                optimizer.zero_grad()
                chosen = [seen[number] for number in order[start : start + together]]
                for batch in _joined(chosen):
                    (self._loss(module, batch) * (batch.samples / len(chosen))).backward()
                masks.mask_gradients()
                optimizer.step()
                masks.apply(optimizer)
                step += 1

    def _loss(self, module: OnnxModule, piece: _Piece) -> Tensor:
        """Error of the outputs as a share of their variance, averaged over outputs."""
        given = dict(zip(module.output_names, several(module(piece.inputs)), strict=True))
        errors = [
            (given[name].float() - wanted.float()).square().mean() / self._variance[name]
            for name, wanted in piece.targets.items()
        ]
        return torch.stack(errors).mean()

    @torch.no_grad()
    def _error(self, module: OnnxModule, pieces: Sequence[_Piece]) -> float:
        return float(np.mean([float(self._loss(module, piece)) for piece in pieces]))


@dataclass(frozen=True)
class _Piece:
    """Some samples: what a block reads, and what it should give."""

    inputs: dict[str, Tensor]
    targets: dict[str, Tensor]
    samples: int
    whole: bool


def _pieces(inputs: Feeds, targets: Feeds) -> list[_Piece]:
    """A batch cut into pieces where its first axis is that of samples everywhere, else whole."""
    feeds = {name: from_array(array) for name, array in inputs.items()}
    wanted = {name: from_array(array) for name, array in targets.items()}
    sizes = {t.shape[0] if t.ndim else 0 for t in (*feeds.values(), *wanted.values())}
    size = max(sizes)
    if len(sizes) > 1 or size <= 1:
        return [_Piece(feeds, wanted, max(1, size if len(sizes) == 1 else 1), whole=True)]
    return [
        _Piece(
            {name: tensor[start : start + PIECE] for name, tensor in feeds.items()},
            {name: tensor[start : start + PIECE] for name, tensor in wanted.items()},
            min(PIECE, size - start),
            whole=False,
        )
        for start in range(0, size, PIECE)
    ]


def _joined(pieces: Sequence[_Piece]) -> list[_Piece]:
    """Pieces as one batch; whole ones stay by themselves."""
    if any(piece.whole for piece in pieces):
        return list(pieces)
    first = pieces[0]
    inputs = {name: torch.cat([p.inputs[name] for p in pieces]) for name in first.inputs}
    targets = {name: torch.cat([p.targets[name] for p in pieces]) for name in first.targets}
    return [_Piece(inputs, targets, sum(p.samples for p in pieces), whole=False)]


def _variance(arrays: Sequence[NDArray[Any]]) -> float:
    return float(np.concatenate([array.ravel() for array in arrays]).var(dtype=np.float64))


def _stored(layer: Layer, mask: NDArray[np.bool_]) -> Tensor:
    """A mask in the order in which the weight is stored."""
    return torch.from_numpy(np.ascontiguousarray(layer.weight.layout.array(mask)))


def _scale(parameter: Tensor) -> float:
    """Root mean square of what is not zero."""
    values = parameter.detach()
    kept = values[values != 0]
    return float(kept.square().mean().sqrt()) if kept.numel() else 0.0


@contextlib.contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
