"""One-shot pruning with calibration data: from a model and options to new constants."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from onnxprune.allocate import Allocator
from onnxprune.data import MAX_CALIBRATION, load_data, random_data
from onnxprune.errors import DataError, OnnxPruneError, RecipeError
from onnxprune.evaluate import prepare
from onnxprune.model_io import model_bytes
from onnxprune.pattern_text import read_pattern
from onnxprune.progress import Progress, silent
from onnxprune.reach import reach
from onnxprune.rules import share_left
from onnxprune.runtime import Session
from passes.courses import Courses
from passes.methods import METHODS, SECOND_ORDER, Method
from passes.patterns import NM
from passes.reconstruction import DAMPING
from passes.saliency import magnitude
from passes.sequential import Options

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxprune.costs import Costs
    from onnxprune.data import DataSource, Feeds
    from onnxprune.rules import Ruled
    from passes.patterns import Pattern
    from passes.sequential import Reconstruction
    from passes.weights import Weight


Allocation = Literal["uniform", "global", "erk", "lamp", "owl", "loss"]
Reconstruct = Literal["layers", "blocks"]
RECONSTRUCTIONS: tuple[Reconstruct, ...] = get_args(Reconstruct)
ALLOCATIONS: tuple[Allocation, ...] = get_args(Allocation)

NEEDS_TORCH = (
    "reconstruction by blocks needs torch; install it with `pip install onnxprune[torch]`, or leave "
    "--reconstruct at layers"
)

RANDOM = "random"
RANDOM_SAMPLES = 64

BATCH = 64


def check_installed(reconstruct: Reconstruct) -> None:
    """See that what a reconstruction needs is there, without loading it.

    Raises:
        RecipeError: when it is not.
    """
    if reconstruct == "blocks" and importlib.util.find_spec("torch") is None:
        raise RecipeError(NEEDS_TORCH)


@dataclass(frozen=True)
class OneShot:
    """How to prune in one shot.

    Attributes:
        method: of :data:`passes.methods.METHODS`.
        allocation: how a total sparsity is shared; None takes ``loss`` for second-order methods and
            ``uniform`` for the others.
        pattern: as :func:`~onnxprune.pattern_text.read_pattern` reads it.
        damping: of the Hessian, the least, as a share of its mean diagonal; more is taken where the data
            are few for the width of a layer (:func:`passes.reconstruction.shrinkage`).
        sequential, bias_correction, batch_norm: see :class:`passes.sequential.Options`.
        reconstruct: ``layers`` leaves each layer as it was solved; ``blocks`` then trains blocks of
            layers towards the dense model's values, which needs torch.
        seed: of all randomness.
    """

    method: Method = "magnitude"
    allocation: Allocation | None = None
    pattern: str = "unstructured"
    damping: float = DAMPING
    sequential: bool = True
    bias_correction: bool = True
    batch_norm: bool = True
    reconstruct: Reconstruct = "layers"
    seed: int = 0

    @property
    def chosen_allocation(self) -> Allocation:
        """The allocation asked for, or the one that measures best on most models with the method."""
        return self.allocation or ("loss" if self.method in SECOND_ORDER else "uniform")

    @property
    def needs_data(self) -> bool:
        """Whether the method or the allocation looks at activations."""
        looks = self.chosen_allocation in {"owl", "loss"} or self.reconstruct == "blocks"
        return self.method != "magnitude" or looks

    @property
    def streams(self) -> bool:
        """Whether weights can be pruned one after the other, in blocks, without data."""
        plain = self.method == "magnitude" and self.pattern == "unstructured"
        return plain and not self.needs_data and self.chosen_allocation in {"uniform", "global"}

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
        if self.reconstruct not in RECONSTRUCTIONS:
            msg = f"reconstruction '{self.reconstruct}' is not known; choose one of {', '.join(RECONSTRUCTIONS)}"
            raise RecipeError(msg)
        check_installed(self.reconstruct)
        if not 0 <= self.damping <= 10:
            msg = f"damping must lie between 0 and 10 (0.01 is usual), found {self.damping}"
            raise RecipeError(msg)
        try:
            return read_pattern(self.pattern)
        except ValueError as error:
            raise RecipeError(str(error)) from error


@dataclass(frozen=True)
class Pruned:
    """What one-shot pruning made.

    Attributes:
        constants: new arrays by initializer name.
        methods: what was taken, by step or weight.
        warnings: sentences for the report.
        reached: bytes or cycles, measured, where those were the target.
    """

    constants: Mapping[str, NDArray[Any]]
    methods: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    reached: float | None = None


def prune_one_shot(
    model: ir.Model,
    ruled: Ruled,
    options: OneShot,
    *,
    sparsity: float | None = None,
    keep: Mapping[str, int] | None = None,
    costs: Costs | None = None,
    data: DataSource | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Pruned:
    """Prune weights to a total sparsity, to given counts, or to bytes or cycles; the model stays as it is.

    Args:
        model: dense.
        ruled: what to prune, which of it to what sparsity, and in which patterns.
        options: how; ``ruled`` goes before its pattern.
        sparsity: over all weights, 0 to 1; without it, weights that neither a rule nor an N:M
            pattern says something of stay as they are.
        keep: weights to keep, by name, instead of ``sparsity``.
        costs: a target in bytes or cycles, instead of either. What is estimated weight by weight is
            measured on the whole, and the budget corrected until what was made is at most the target:
            a hundredth below it where that takes up to four attempts.
        data: calibration samples, labels not needed; ``"random"`` for seeded random inputs.
        threads: of onnxruntime.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        RecipeError, DataError, ModelError: when an option, the data or the model cannot be used.
    """
    job = _Job(model, ruled, options, data, threads, progress or silent)
    if costs is not None:
        return job.within(costs)
    return job.run(keep if keep is not None else job.counts(sparsity), planned=keep is not None)


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
        self.threads = threads
        self.warnings: list[str] = []
        self.feeds: list[Feeds] = self._feeds(data) if data is not None else []
        if options.needs_data and not self.feeds:
            asks = f"allocation {options.chosen_allocation}"
            if options.method != "magnitude":
                asks = f"method {options.method}"
            elif options.reconstruct == "blocks":
                asks = "reconstruction by blocks"
            msg = (
                f"{asks} needs calibration data: give --data FILE (or --data random to try it out)"
            )
            raise RecipeError(msg)
        self.courses = self._courses() if self.feeds else None

    def _courses(self) -> Courses:
        try:
            patterns = self.ruled.patterns
            return Courses(
                self.model,
                self.weights,
                self.feeds,
                self._runner,
                lambda name: patterns[name].row_tile,
            )
        except ValueError as error:
            raise _as_data_error(error) from error

    def within(self, costs: Costs) -> Pruned:
        """Prune until the measured total is at most the target, and near it."""
        allocator = self._allocator(costs)
        try:
            return reach(costs, self.weights, allocator.within, self.run)
        except ValueError as error:
            raise _as_data_error(error) from error

    def run(self, counts: Mapping[str, int], *, planned: bool = False) -> Pruned:
        """Prune each weight to its count."""
        watched = {} if self.courses is None else self.courses.layers
        rest = [w for w in self.weights if w.name in counts and w.name not in watched]
        constants = {w.name: self._by_magnitude(w, counts[w.name]) for w in rest}
        methods = {w.name: "magnitude" for w in rest}
        if self.options.method != "magnitude" and self.courses is not None:
            reasons = self.courses.reasons
            methods = {name: f"magnitude: {reasons[name]}" for name in methods}
            self.warnings += _by_reason({w.name: reasons[w.name] for w in rest})
        if self.courses is not None:
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
                made = self.courses.prune(
                    counts,
                    options,
                    constants,
                    lambda done, total: self.progress("reconstruct", done, total),
                )
            except ValueError as error:
                raise _as_data_error(error) from error
            constants, methods = made.constants, methods | made.methods
            if self.options.reconstruct == "blocks" and made.masks:
                constants, more = self._by_blocks(made)
                methods |= more
        steps = {"allocation": "plan" if planned else self.options.chosen_allocation}
        return Pruned(
            constants,
            {"saliency": self.options.method, "pattern": self.pattern.name} | steps | methods,
            tuple(dict.fromkeys(self.warnings)),
        )

    def _by_blocks(self, made: Reconstruction) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
        """What training block by block makes of constants, and of each block in words."""
        from onnxprune.finetune.blockwise import BlockTraining, reconstruct_blocks

        constants, results = dict(made.constants), []
        for course in self.courses or ():
            constants, more = reconstruct_blocks(
                course.model,
                [layer for layer in course.layers if layer.name in made.masks],
                made.masks,
                constants,
                course.batches,
                self._runner,
                BlockTraining(seed=self.options.seed),
                threads=self.threads,
                progress=lambda done, total: self.progress("blocks", done, total),
            )
            results += more
        return constants, {
            f"block {number}": result.words for number, result in enumerate(results, start=1)
        }

    def _feeds(self, data: DataSource) -> list[Feeds]:
        session = Session(model_bytes(self.model), threads=self.threads)
        if isinstance(data, str) and data == RANDOM:
            self.warnings.append(
                "calibrated on random inputs, which say little about real ones; give --data for those"
            )
            samples = random_data(session.inputs, RANDOM_SAMPLES, self.options.seed)
        else:
            given = load_data(data, session.inputs)
            samples = given.limited(MAX_CALIBRATION, self.options.seed)
        return list(prepare(session, samples, BATCH).feeds)

    def _runner(self, model: bytes, feeds: Iterable[Feeds]) -> Iterator[Feeds]:
        session = Session(model, threads=self.threads)
        for feed in feeds:
            yield dict(zip(session.outputs, session.run(feed), strict=True))

    def _by_magnitude(self, weight: Weight, keep: int) -> NDArray[Any]:
        pattern = self.ruled.patterns[weight.name]
        return weight.masked(pattern.mask(magnitude(weight.matrices()), keep))

    def counts(self, sparsity: float | None) -> dict[str, int]:
        """Weights to keep at a total sparsity, or as rules and patterns say."""
        fixed = dict(self.ruled.keep)
        if sparsity is None:
            return fixed | self._told_by_patterns()
        share = share_left(self.ruled, sparsity)
        if not self.ruled.free:
            return fixed
        try:
            return fixed | self._allocator(None).share(share)
        except ValueError as error:
            raise _as_data_error(error) from error

    def _told_by_patterns(self) -> dict[str, int]:
        """Without a total: all elements of weights whose pattern itself says how many of them stay."""
        told = {
            w.name: w.elements
            for w in self.ruled.free
            if isinstance(self.ruled.patterns[w.name], NM)
        }
        if not told and not self.ruled.keep:
            msg = (
                "give a sparsity (--sparsity), a target (--target), a plan (--plan), an N:M pattern "
                "(--pattern 2:4) or rules with either (--recipe)"
            )
            raise RecipeError(msg)
        return told

    def _allocator(self, costs: Costs | None) -> Allocator:
        return Allocator(
            self.ruled,
            self.courses,
            self.options,
            self.progress,
            costs,
        )


def _by_reason(reasons: Mapping[str, str]) -> list[str]:
    """A sentence for each reason why weights were pruned by magnitude."""
    found: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        found.setdefault(reason, []).append(f"'{name}'")
    sentences = []
    for reason, names in found.items():
        listed = ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
        was = "were" if len(names) > 1 else "was"
        sentences.append(f"{listed} {was} pruned by magnitude: {reason}")
    return sentences


def _as_data_error(error: ValueError) -> OnnxPruneError:
    """What ``passes`` say about the data becomes our own error; ours stay as they are."""
    return error if isinstance(error, OnnxPruneError) else DataError(str(error))
