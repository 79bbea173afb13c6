"""Pruning by magnitude without ever holding a mask: for models larger than memory.

The threshold of each weight is found by selection (:mod:`passes.threshold`), and the pruned array
is made block by block while the model is written. The result is that of a mask of the largest
magnitudes: exactly as many are kept as asked for, and of equal ones those that come first in the
view of the weight's layout.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.masks import keep_count
from passes.threshold import KeyStream, Threshold, find_threshold, keys_of
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from passes.threshold import Keys
    from passes.weights import Weight

BLOCK = 2**18
"""Elements worked on together: 1 MiB of float32."""


@dataclass(frozen=True, eq=False)
class PruneByMagnitudePass(ir.passes.InPlacePass):
    """Keeps the weights of largest magnitude; the others become zero, or their zero point.

    Attributes:
        keep: how many of each weight to keep, by weight name. Weights it does not name stay as
            they are.
        progress: told of weights done and in all.
    """

    keep: Mapping[str, int] = field(repr=False)
    progress: Callable[[int, int], None] = field(default=lambda *_: None, repr=False)

    def requires(self, model: ir.Model) -> None:
        """Every name is that of a weight of the model, and it has as many elements."""
        weights = {
            weight.name: weight for weight in collect_weights(model, embeddings=True).weights
        }
        for name, keep in self.keep.items():
            if name not in weights:
                msg = f"'{name}' is to be pruned, but the model has no such prunable weight"
                raise ir.passes.PreconditionError(msg)
            if not 0 <= keep <= weights[name].elements:
                msg = f"'{name}' has {weights[name].elements} elements and cannot keep {keep}"
                raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Prune; ``modified`` is True when any stored bit changes."""
        modified = False
        weights = collect_weights(model, embeddings=True).weights
        for number, weight in enumerate(weights):
            if weight.name in self.keep:
                modified |= prune_weight(weight, self.keep[weight.name])
            self.progress(number + 1, len(weights))
        return ir.passes.PassResult(model, modified)


def prune_weight(weight: Weight, keep: int) -> bool:
    """Let a weight keep its ``keep`` largest elements; True when any stored bit changes."""
    stream = _WeightKeys(weight)
    if keep == stream.size:
        return False
    threshold = find_threshold(stream, keep) if keep else Threshold(0xFFFFFFFF, 0, 0)
    pruned = PrunedTensor(weight, keep, threshold)
    if not pruned.differs():
        return False
    weight.assign(pruned)
    return True


def global_keep(weights: Sequence[Weight], sparsity: float) -> dict[str, int]:
    """One magnitude for all weights: how many of each are above it, ``keep`` in total.

    The same counts as :func:`passes.allocation.global_threshold` gives for magnitudes, in memory
    that does not grow with the model.

    Args:
        weights: of any size.
        sparsity: 0 to 1, over all of them.
    """
    streams = [_WeightKeys(weight) for weight in weights]
    keep = keep_count(sum(stream.size for stream in streams), sparsity)
    if not keep:
        return dict.fromkeys((weight.name for weight in weights), 0)
    threshold = find_threshold(_AllKeys(streams), keep)
    left = keep - threshold.above
    counts = {}
    for weight, stream in zip(weights, streams, strict=True):
        above, equal = stream.count(threshold.key)
        counts[weight.name] = above + min(left, equal)
        left -= min(left, equal)
    return counts


class PrunedTensor(ir.LazyTensor):
    """A tensor that is pruned when it is read or written, block by block.

    Args:
        weight: whose values it takes; the tensor that it has now must stay as it is.
        keep: how many elements to keep.
        threshold: that of the weight for ``keep``.
    """

    def __init__(self, weight: Weight, keep: int, threshold: Threshold) -> None:
        source = weight.tensor
        super().__init__(
            lambda: ir.tensor(self._array(), dtype=source.dtype, name=source.name),
            dtype=source.dtype,
            shape=ir.Shape(weight.layout.shape),
            name=source.name,
            doc_string=source.doc_string,
        )
        self._stream = _WeightKeys(weight)
        self._layout = weight.layout
        self._zero = weight.zero_point
        self._key = np.uint32(threshold.key)
        self._kept_ties = keep - threshold.above
        self._some_ties_go = self._kept_ties < threshold.equal
        # All that are kept are nonzero, unless the threshold itself is zero.
        self.nonzeros = keep if threshold.key else threshold.above

    def tofile(self, file: Any) -> None:
        """Write the bytes, block by block; the next block is made while one is written."""
        with ThreadPoolExecutor(max_workers=1) as writer:
            waiting: Future[Any] | None = None
            for block in self._blocks():
                if waiting is not None:
                    waiting.result()
                waiting = writer.submit(file.write, block)
            if waiting is not None:
                waiting.result()

    def differs(self) -> bool:
        """Whether any stored bit changes; stops at the first that does."""
        if self._some_ties_go and self._key:
            return True
        unsigned = f"u{self._zero.itemsize}"
        for (stored, _, _), block in zip(self._stream.parts(), self._blocks(), strict=True):
            if not np.array_equal(stored.view(unsigned), block.view(unsigned)):
                return True
        return False

    def _array(self) -> NDArray[Any]:
        array = np.empty(self._stream.size, self._zero.dtype)
        position = 0
        for block in self._blocks():
            array[position : position + block.size] = block
            position += block.size
        return array.reshape(self._layout.shape)

    def _blocks(self) -> Iterator[NDArray[Any]]:
        ties = self._ties_to_drop() if self._some_ties_go else None
        keep = np.empty(BLOCK, np.bool_)
        position = 0
        for stored, keys, zero in self._stream.parts():
            kept = np.greater_equal(keys, self._key, out=_fitting(keep, keys.size))
            if ties is not None:
                first, last = np.searchsorted(ties, (position, position + keys.size))
                kept[ties[first:last] - position] = False
            yield _zeroed(stored, kept) if zero is None else np.where(kept, stored, zero)
            position += keys.size

    def _ties_to_drop(self) -> NDArray[np.int64]:
        """Where elements equal to the threshold go: those that come last in the layout's view.

        Takes 16 to 24 bytes for each element that equals the threshold.
        """
        found, position = [], 0
        for keys in self._stream.blocks():
            found.append(np.flatnonzero(keys == self._key) + position)
            position += keys.size
        ties = np.concatenate(found)
        if len(self._layout.steps) == 1:  # a reshape: stored in the order of the view
            return ties[self._kept_ties :]
        in_view = self._layout.positions(ties)
        first_gone = np.partition(in_view, self._kept_ties)[self._kept_ties]
        gone: NDArray[np.int64] = ties[in_view >= first_gone]
        return gone


class _WeightKeys(KeyStream):
    """The magnitudes of one weight, in stored order."""

    def __init__(self, weight: Weight) -> None:
        self._tensor = weight.tensor
        self._quantization = weight.quantization
        self.size = weight.elements

    def parts(self) -> Iterator[tuple[NDArray[Any], Keys, NDArray[Any] | None]]:
        """Blocks as they are stored, flat; their keys; their zero points (None for floats)."""
        array = self._tensor.numpy()
        if self._quantization is not None:
            for part, values, zero in self._quantization.parts(array, BLOCK):
                yield part.reshape(-1), keys_of(values).reshape(-1), zero.reshape(-1)
            return
        flat = array.reshape(-1)
        buffer = np.empty(BLOCK, np.uint32)
        for start in range(0, flat.size, BLOCK):
            block = flat[start : start + BLOCK]
            values = block.astype(np.float32, copy=False)
            yield block, keys_of(values, buffer[: block.size]), None

    def blocks(self) -> Iterator[Keys]:
        """The keys alone."""
        for _, keys, _ in self.parts():
            yield keys

    def sample(self, count: int) -> Keys:
        """Every so many elements."""
        step = max(1, self.size // count)
        if self._quantization is not None:
            return np.concatenate([keys[::step] for keys in self.blocks()])
        flat = self._tensor.numpy().reshape(-1)[::step]
        return keys_of(np.ascontiguousarray(flat, dtype=np.float32))

    def count(self, key: int) -> tuple[int, int]:
        """How many keys are above one, and how many equal to it."""
        above = equal = 0
        for keys in self.blocks():
            above += int(np.count_nonzero(keys > np.uint32(key)))
            equal += int(np.count_nonzero(keys == np.uint32(key)))
        return above, equal


class _AllKeys(KeyStream):
    """The keys of many weights, one after the other."""

    def __init__(self, streams: Sequence[_WeightKeys]) -> None:
        self._streams = streams
        self.size = sum(stream.size for stream in streams)

    def blocks(self) -> Iterator[Keys]:
        """Those of each weight."""
        for stream in self._streams:
            yield from stream.blocks()

    def sample(self, count: int) -> Keys:
        """Of each weight as many as its share."""
        shares = [max(1, count * stream.size // self.size) for stream in self._streams]
        return np.concatenate(
            [stream.sample(share) for stream, share in zip(self._streams, shares, strict=True)]
        )


def _zeroed(stored: NDArray[Any], keep: NDArray[np.bool_]) -> NDArray[Any]:
    """Floats with +0.0 where they are not kept."""
    bits = stored.view(f"u{stored.itemsize}")
    zeroed: NDArray[Any] = np.multiply(bits, keep, dtype=bits.dtype)
    return zeroed.view(stored.dtype)


def _fitting(buffer: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    return buffer[:size] if size <= buffer.size else np.empty(size, np.bool_)
