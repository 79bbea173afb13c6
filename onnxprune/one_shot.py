"""One-shot pruning with calibration data: from a model and options to new constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from onnxprune.data import load_data, random_data
from onnxprune.errors import DataError, OnnxPruneError, RecipeError
from onnxprune.evaluate import prepare
from onnxprune.model_io import model_bytes
from onnxprune.progress import Progress, silent
from onnxprune.rules import share_left
from onnxprune.runtime import Session
from passes.allocation import cheapest, erk, global_threshold, owl, uniform
from passes.calibration import calibrate
from passes.curves import error_curve, losses_of, magnitude_curve
from passes.layers import find_layers
from passes.masks import keep_count
from passes.methods import METHODS, SECOND_ORDER, Method
from passes.outputs import OutputError
from passes.patterns import NM, parse_pattern
from passes.reconstruction import DAMPING
from passes.saliency import lamp, magnitude, wanda
from passes.sequential import Options, prune_sequentially

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxprune.data import Dataset, DataSource, Feeds
    from onnxprune.rules import Ruled
    from passes.layers import Layer
    from passes.moments import Moments
    from passes.patterns import Pattern
    from passes.stream import Runner
    from passes.weights import Weight


Allocation = Literal["uniform", "global", "erk", "lamp", "owl", "loss"]
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)

RANDOM = "random"
RANDOM_SAMPLES = 64

MAX_SAMPLES = 1024
"""More calibration samples than these cost memory and time and no longer change the result."""

CURVE_POSITIONS = 8192
PROBE_SAMPLES = 128
BATCH = 64


@dataclass(frozen=True)
class OneShot:
    """How to prune in one shot.

    Attributes:
        method: of :data:`passes.methods.METHODS`.
        allocation: how a total sparsity is shared; None takes ``loss`` for second-order methods and
            ``uniform`` for the others.
        pattern: as :func:`passes.patterns.parse_pattern` reads it.
        damping: of the Hessian, as a share of its mean diagonal.
        sequential, bias_correction, batch_norm: see :class:`passes.sequential.Options`.
        seed: of all randomness.
    """

    method: Method = "magnitude"
    allocation: Allocation | None = None
    pattern: str = "unstructured"
    damping: float = DAMPING
    sequential: bool = True
    bias_correction: bool = True
    batch_norm: bool = True
    seed: int = 0

    @property
    def chosen_allocation(self) -> Allocation:
        """The allocation asked for, or the one that measures best with the method."""
        return self.allocation or ("loss" if self.method in SECOND_ORDER else "uniform")

    @property
    def needs_data(self) -> bool:
        """Whether the method or the allocation looks at activations."""
        return self.method != "magnitude" or self.chosen_allocation in {"owl", "loss"}

    @property
    def streams(self) -> bool:
        """Whether weights can be pruned one after the other, in blocks, without data."""
        plain = self.method == "magnitude" and self.pattern == "unstructured"
        return plain and self.chosen_allocation in {"uniform", "global"}

    def checked_pattern(self) -> Pattern:
        """The pattern, after checking every option.

        Raises:
            RecipeError: for a value that is not allowed.
        """
        if self.method not in METHODS:
            msg = f"method '{self.method}' is not known; choose one of {', '.join(METHODS)}"
            raise RecipeError(msg)
        if self.allocation is not None and self.allocation not in ALLOCATIONS:
            msg = f"allocation '{self.allocation}' is not known; choose one of {', '.join(ALLOCATIONS)}"
            raise RecipeError(msg)
        if not 0 <= self.damping <= 10:
            msg = f"damping must lie between 0 and 10 (0.01 is usual), found {self.damping}"
            raise RecipeError(msg)
        try:
            return parse_pattern(self.pattern)
        except ValueError as error:
            raise RecipeError(str(error)) from error


@dataclass(frozen=True)
class Pruned:
    """What one-shot pruning made.

    Attributes:
        constants: new arrays by initializer name.
        methods: what was taken, by step or weight.
        warnings: sentences for the report.
    """

    constants: Mapping[str, NDArray[Any]]
    methods: Mapping[str, str]
    warnings: tuple[str, ...] = ()


def prune_one_shot(
    model: ir.Model,
    ruled: Ruled,
    options: OneShot,
    *,
    sparsity: float | None = None,
    keep: Mapping[str, int] | None = None,
    data: DataSource | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Prune weights to a total sparsity, or to given counts; the model itself is not changed.

    Args:
        model: dense.
        ruled: what to prune, which of it to what sparsity, and in which patterns.
        options: how; ``ruled`` goes before its pattern.
        sparsity: over all weights, 0 to 1; without it, weights that neither a rule nor an N:M
            pattern says something of stay as they are.
        keep: weights to keep, by name, instead of ``sparsity``.
        data: calibration samples, labels not needed; ``"random"`` for seeded random inputs.
        threads: of onnxruntime.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        RecipeError, DataError, ModelError: when an option, the data or the model cannot be used.
    """
    job = _Job(model, ruled, options, data, threads, progress or silent)
    return job.run(sparsity, keep)


class _Job:
    """One run of :func:`prune_one_shot`: model, layers, feeds and what is known of them."""

    def __init__(
        self,
        model: ir.Model,
        ruled: Ruled,
        options: OneShot,
        data: DataSource | None,
        threads: int | None,
        progress: Progress,
    ) -> None:
        self.model, self.ruled, self.options, self.progress = model, ruled, options, progress
        self.weights = ruled.collection.weights
        self.pattern = options.checked_pattern()
        self.layers = {layer.name: layer for layer in find_layers(model.graph, self.weights)}
        self.threads = threads
        self.warnings: list[str] = []
        self.feeds: list[Feeds] = self._feeds(data) if data is not None else []
        if options.needs_data and not self.feeds:
            asks = (
                f"method {options.method}"
                if options.method != "magnitude"
                else f"allocation {options.chosen_allocation}"
            )
            msg = (
                f"{asks} needs calibration data: give --data FILE (or --data random to try it out)"
            )
            raise RecipeError(msg)

    def run(self, sparsity: float | None, keep: Mapping[str, int] | None) -> Pruned:
        counts = dict(keep) if keep is not None else self._allocate(sparsity)
        rest = [
            w
            for w in self.weights
            if w.name in counts and not (self.feeds and w.name in self.layers)
        ]
        constants = {w.name: self._by_magnitude(w, counts[w.name]) for w in rest}
        methods = {w.name: "magnitude" for w in rest}
        if self.options.method != "magnitude" and rest:
            names = ", ".join(f"'{w.name}'" for w in rest[:3]) + (
                " and others" if len(rest) > 3 else ""
            )
            self.warnings.append(
                f"{names} were pruned by magnitude: what they multiply cannot be watched"
            )
        if self.feeds:
            options = Options(
                method=self.options.method,
                pattern=self.pattern,
                patterns=self.ruled.patterns,
                damping=self.options.damping,
                sequential=self.options.sequential,
                bias_correction=self.options.bias_correction,
                batch_norm=self.options.batch_norm,
                seed=self.options.seed,
            )
            try:
                made = prune_sequentially(
                    self.model,
                    self.weights,
                    counts,
                    self.feeds,
                    self._runner,
                    options,
                    given=constants,
                    progress=lambda done, total: self.progress("reconstruct", done, total),
                )
            except ValueError as error:
                raise _as_data_error(error) from error
            constants, methods = made.constants, methods | made.methods
        steps = {"allocation": "plan" if keep is not None else self.options.chosen_allocation}
        return Pruned(
            constants,
            {"saliency": self.options.method, "pattern": self.pattern.name} | steps | methods,
            tuple(self.warnings),
        )

    def _feeds(self, data: DataSource) -> list[Feeds]:
        session = Session(model_bytes(self.model), threads=self.threads)
        if isinstance(data, str) and data == RANDOM:
            self.warnings.append(
                "calibrated on random inputs, which say little about real ones; give --data for those"
            )
            samples = random_data(session.inputs, RANDOM_SAMPLES, self.options.seed)
        else:
            samples = _limited(load_data(data, session.inputs), self.options.seed)
        return list(prepare(session, samples, BATCH).feeds)

    def _runner(self, model: bytes, feeds: Sequence[Feeds]) -> list[Feeds]:
        session = Session(model, threads=self.threads)
        return [dict(zip(session.outputs, session.run(feed), strict=True)) for feed in feeds]

    def _by_magnitude(self, weight: Weight, keep: int) -> NDArray[Any]:
        pattern = self.ruled.patterns[weight.name]
        return weight.masked(pattern.mask(magnitude(weight.matrices()), keep))

    def _allocate(self, sparsity: float | None) -> dict[str, int]:
        fixed = dict(self.ruled.keep)
        if sparsity is None:
            return fixed | self._told_by_patterns()
        share = share_left(self.ruled, sparsity)
        return fixed | self._share_out(self.ruled.free, share) if self.ruled.free else fixed

    def _share_out(self, weights: Sequence[Weight], sparsity: float) -> dict[str, int]:
        """What each of some weights keeps when all together come to a sparsity."""
        elements = {weight.name: weight.elements for weight in weights}
        kind = self.options.chosen_allocation
        if kind == "loss":
            return self._by_loss(weights, sparsity)
        if kind == "uniform":
            return uniform(elements, sparsity)
        if kind == "erk":
            return erk({weight.name: weight.fans for weight in weights}, sparsity)
        if kind == "owl":
            return owl(elements, self._wanda(weights), sparsity)
        score = lamp if kind == "lamp" else magnitude
        return global_threshold({w.name: score(w.matrices()) for w in weights}, sparsity)

    def _told_by_patterns(self) -> dict[str, int]:
        """Without a total: all elements of weights whose pattern itself says how many of them stay."""
        told = {
            w.name: w.elements
            for w in self.ruled.free
            if isinstance(self.ruled.patterns[w.name], NM)
        }
        if not told and not self.ruled.keep:
            msg = (
                "give either a sparsity (--sparsity), a plan (--plan), an N:M pattern (--pattern 2:4) or "
                "rules with either (--recipe)"
            )
            raise RecipeError(msg)
        return told

    def _moments(self) -> dict[str, Moments]:
        try:
            return calibrate(
                self.model,
                list(self.layers.values()),
                self.feeds,
                self._runner,
                positions=CURVE_POSITIONS,
                seed=self.options.seed,
            )
        except ValueError as error:
            raise _as_data_error(error) from error

    def _wanda(self, weights: Sequence[Weight]) -> dict[str, NDArray[Any]]:
        known = self._moments()
        return {
            w.name: wanda(w.matrices(), known[w.name].gram)
            if w.name in known
            else magnitude(w.matrices())
            for w in weights
        }

    def _by_loss(self, weights: Sequence[Weight], sparsity: float) -> dict[str, int]:
        known, curves = self._moments(), {}
        for number, weight in enumerate(weights):
            pattern = self.ruled.patterns[weight.name]
            layer: Layer | None = self.layers.get(weight.name)
            curves[weight.name] = (
                magnitude_curve(weight, pattern)
                if layer is None
                else error_curve(
                    layer,
                    known[weight.name],
                    pattern,
                    method="obs" if self.options.method in SECOND_ORDER else self.options.method,
                    damping=self.options.damping,
                )
            )
            self.progress("error curves", number + 1, len(weights))
        runner: Runner = self._runner
        error = OutputError(self.model, _first(self.feeds, PROBE_SAMPLES), runner)
        losses = losses_of(
            curves, error, lambda done, total: self.progress("sensitivity", done, total)
        )
        total = keep_count(sum(weight.elements for weight in weights), sparsity)
        least = sum(int(curve.keeps[-1]) for curve in curves.values())
        if total < least:
            # Sparser than the last measured level everywhere: share that level's counts.
            share = {name: int(curve.keeps[-1]) for name, curve in curves.items()}
            return uniform(share, 1 - total / max(1, sum(share.values())))
        return cheapest({name: curve.keeps for name, curve in curves.items()}, losses, total)


def _limited(samples: Dataset, seed: int) -> Dataset:
    if len(samples) <= MAX_SAMPLES:
        return samples
    picked = np.random.default_rng(seed).choice(len(samples), MAX_SAMPLES, replace=False)
    return samples.take(np.sort(picked))


def _first(feeds: Sequence[Feeds], samples: int) -> list[Feeds]:
    """The first feeds that hold about so many samples."""
    size = max(1, len(next(iter(feeds[0].values()))) if next(iter(feeds[0].values())).ndim else 1)
    return list(feeds[: max(1, samples // size)])


def _as_data_error(error: ValueError) -> OnnxPruneError:
    """What ``passes`` say about the data becomes our own error; ours stay as they are."""
    return error if isinstance(error, OnnxPruneError) else DataError(str(error))
