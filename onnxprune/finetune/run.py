"""From a model file and data to a fine-tuned model file with the same graph."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from onnxprune.errors import ModelError, RecipeError
from onnxprune.evaluate import Evaluator
from onnxprune.files import check_parent, write_bytes
from onnxprune.finetune.batches import Batches, find_augment
from onnxprune.finetune.bridge import to_torch, write_back
from onnxprune.finetune.bridge.dtypes import from_array
from onnxprune.finetune.checkpoint import load_moments, save_moments
from onnxprune.finetune.losses import label_loss
from onnxprune.finetune.masks import Shape
from onnxprune.finetune.parts import Parts, deal, validator
from onnxprune.finetune.pruner import Goal
from onnxprune.finetune.train import Score, Trainer
from onnxprune.inventory import skipped_reports, totals_of, weight_reports
from onnxprune.model_io import load_model, load_proto
from onnxprune.paired import paired_drop
from onnxprune.plan import load_plan
from onnxprune.recipe import Recipe, refuse_steps
from onnxprune.recipe_sections import PhaseSection
from onnxprune.report import Quality, Report, TargetReport, describe_model
from onnxprune.rules import apply_rules
from onnxprune.runtime import Session
from passes.patterns import Unstructured
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxprune.data import Dataset, DataSource
    from onnxprune.finetune.bridge import OnnxModule
    from onnxprune.finetune.train import Progress, Trained
    from onnxprune.recipe_sections import FinetuneSection
    from onnxprune.rules import Ruled
    from passes.weights import Collection, Weight

PROBE_BATCHES, PROBE_PASSES = 4, 3

PRUNED = 0.05
"""From this sparsity on a model counts as pruned already."""


def finetune(
    model: str | Path,
    data: DataSource,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    plan: str | Path | None = None,
    held_out: DataSource | None = None,
    validation: DataSource | None = None,
    teacher: str | Path | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    moments: tuple[Path | None, Path | None] = (None, None),
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Train the model's own weights, pruning them on the way, and write the same graph with them.

    Without a target or plan nothing more is pruned: zeros of the model stay zero and the others
    recover. Under ``torchrun`` the processes share each batch; the first one writes.

    Args:
        model: path of an ONNX file.
        data: samples; labels where there are some, else the dense model is the teacher.
        output: path to write.
        recipe: all settings; ``target`` must be a compression rate.
        plan: JSON file with sparsity by weight or node, in place of a target.
        held_out: data to report on; a share of ``data`` when None.
        validation: data that choose the epoch; a share of ``data`` when None.
        teacher: path of the dense model to learn from, of the same inputs and outputs; the model as
            it comes in when None, unless that is pruned already and there are labels.
        checkpoint: file for checkpoints; beside ``output`` when None. Removed when all is done.
        resume: go on from the checkpoint.
        moments: files with what the optimizer remembers: of an earlier run that this one goes on from, and
            where to leave it for another.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        threads: of torch and onnxruntime.
        progress: called with the phase, its steps done and the steps it has.

    Raises:
        OnnxPruneError: when an argument cannot be used, or training diverges.
    """
    recipe = recipe or Recipe()
    refuse_steps(recipe, "finetune")
    source, target = Path(model), Path(output)
    check_parent(target)
    kept_at = Path(checkpoint) if checkpoint else target.with_name(f"{target.name}.checkpoint")
    check_parent(kept_at)
    with _torch_threads(threads), _processes() as (rank, ranks):
        return _Run(
            source,
            target,
            kept_at,
            recipe,
            Path(teacher) if teacher else None,
            moments,
            _device(device),
            rank,
            ranks,
            threads,
            progress,
        ).go(data, held_out, validation, plan, resume=resume)


def check_settings(settings: FinetuneSection, labels: NDArray[Any] | None) -> None:
    """See that loss and augmentation are there and fit the data, before anything is trained.

    Raises:
        RecipeError, DataError: when they do not.
    """
    find_augment(settings.augment)
    label_loss(settings.loss.name, None if labels is None else from_array(labels))


def seconds_a_pass(
    model: Path, data: Dataset, settings: FinetuneSection, *, threads: int | None = None
) -> float:
    """About how long one pass over data takes on this machine, from a few batches of it.

    Args:
        model: path of an ONNX file; it is its own teacher.
        data: what would be trained on.
        settings: of training.
        threads: of torch.
    """
    few = data.take(np.arange(min(len(data), PROBE_BATCHES * settings.optimizer.batch)))
    phases = PhaseSection(sparsify=PROBE_PASSES, prune=0, recover=0)
    with _torch_threads(threads):
        module, dense = (to_torch(model, compute=torch.float32) for _ in range(2))
        trainer = Trainer(
            module,
            dense,
            _batches(Session(model, threads=threads), few, settings, seed=0),
            lambda _: Score(0.0),
            settings.model_copy(update={"phases": phases}),
            Goal(),
            tuple(module.weights),
        )
        fastest = min(epoch.seconds for epoch in trainer.run().epochs)
    return fastest * len(data) / len(few)


@dataclass(frozen=True)
class _Run:
    source: Path
    target: Path
    checkpoint: Path
    recipe: Recipe
    teacher: Path | None
    moments: tuple[Path | None, Path | None]
    device: torch.device
    rank: int
    ranks: int
    threads: int | None
    progress: Progress | None

    def go(
        self,
        data: DataSource,
        held_out: DataSource | None,
        validation: DataSource | None,
        plan: str | Path | None,
        *,
        resume: bool,
    ) -> Report:
        """Read, train, write, report."""
        started = time.perf_counter()
        recipe, settings = self.recipe, self.recipe.finetune
        proto = load_proto(self.source)
        loaded = load_model(self.source)
        ruled = _selected(loaded, recipe, prunes=bool(recipe.target or plan))
        collection = ruled.collection
        session = Session(self.source, threads=self.threads)
        parts = deal(session, data, held_out, validation, recipe)
        module = to_torch(proto, compute=torch.float32).to(self.device)
        module.set_mode(
            straight_through=True,
            dropout=settings.dropout,
            batch_norm=settings.batch_norm == "train",
        )
        dense = self._dense(session)
        prunable = tuple(w.name for w in collection.weights if w.name in module.weights)
        others = [w for w in collection.weights if w.name not in module.weights]
        goal = _goal(recipe, plan, collection, others)
        trainer = Trainer(
            module,
            dense if self._learns_from_dense(collection, parts) else None,
            _batches(session, parts.train, settings, recipe.seed, rank=self.rank, ranks=self.ranks),
            validator(dense, parts.validation, recipe.data.metric, self.device),
            settings,
            goal,
            prunable,
            shapes=_shapes(ruled, prunable),
            checkpoint=self.checkpoint,
            identity=self._identity(parts.train, goal),
            progress=self.progress if self.rank == 0 else None,
        )
        before, after = self.moments
        if before is not None:
            load_moments(before, module, trainer.optimizer)
        if resume:
            trainer.resume()
        trained = trainer.run()
        if self.rank == 0:
            if after is not None:
                save_moments(after, module, trainer.optimizer)
            write_back(proto, module)
            write_bytes(self.target, proto.SerializeToString(deterministic=True))
            self.checkpoint.unlink(missing_ok=True)
        if self.ranks > 1:
            torch.distributed.barrier()
        seconds = time.perf_counter() - started
        warnings = self._warnings(collection, parts, others)
        return self._report(ruled, goal, parts.held_out, session, trained, seconds, warnings)

    def _dense(self, session: Session) -> OnnxModule:
        """The teacher, which never changes."""
        dense = to_torch(self.teacher or self.source, compute=torch.float32).to(self.device)
        if tuple(dense.input_types) != tuple(s.name for s in session.inputs) or (
            dense.output_names != session.outputs
        ):
            msg = f"teacher '{self.teacher}' and '{self.source}' differ in their inputs or outputs; name the dense original"
            raise ModelError(msg)
        dense.set_mode(straight_through=True)
        dense.requires_grad_(requires_grad=False)
        return dense

    def _learns_from_dense(self, collection: Collection, parts: Parts) -> bool:
        if parts.train.labels is None:
            return True
        return bool(self.recipe.finetune.loss.distill) and not self._teaches_itself(collection)

    def _teaches_itself(self, collection: Collection) -> bool:
        """The model is pruned already and no other is named: learning from it would hold it back."""
        kept = sum(weight.nonzeros() for weight in collection.weights)
        return self.teacher is None and kept < (1 - PRUNED) * collection.elements

    def _identity(self, train: Dataset, goal: Goal) -> str:
        digest = hashlib.sha256(self.source.read_bytes())
        digest.update(train.fingerprint().encode())
        for file in (self.teacher, self.moments[0]):
            if file is not None:
                digest.update(file.read_bytes())
        settings = self.recipe.finetune.model_dump(mode="json")
        del settings["checkpoint_every"]
        described = [settings, self.recipe.seed, goal.keep, goal.by_weight, self.ranks]
        digest.update(json.dumps(described, sort_keys=True).encode())
        return digest.hexdigest()

    def _warnings(
        self, collection: Collection, parts: Parts, others: Sequence[Weight]
    ) -> list[str]:
        warnings = []
        distils = self.recipe.finetune.loss.distill and parts.train.labels is not None
        if distils and self._teaches_itself(collection):
            warnings.append(
                "the model is pruned already, so it learned from the labels alone; name its dense "
                "original as the teacher (--teacher) to learn from that too"
            )
        if others:
            names = ", ".join(repr(weight.name) for weight in others[:3])
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            warnings.append(
                f"not trained and not pruned, though `prune` can: {names}{more} (computed in the graph, "
                "inside a function, or one of several of the same name)"
            )
        return warnings

    def _report(
        self,
        ruled: Ruled,
        goal: Goal,
        held_out: Dataset,
        dense: Session,
        trained: Trained,
        seconds: float,
        warnings: list[str],
    ) -> Report:
        recipe, settings = self.recipe, self.recipe.finetune
        written = load_model(self.target)
        collection = ruled.collection
        chosen = {weight.name for weight in collection.weights}
        after = [w for w in collect_weights(written).weights if w.name in chosen]
        weights = weight_reports(after, ruled.patterns)
        totals = totals_of(weights, model_bytes=self.target.stat().st_size)
        evaluator = Evaluator(dense, held_out, recipe.data.metric)
        scores = evaluator.scores(Session(self.target, threads=self.threads))
        drop = paired_drop(evaluator.baseline, scores)
        quality = Quality(
            metric=evaluator.metric.name,
            samples=len(scores),
            baseline=float(evaluator.baseline.mean()),
            compressed=float(scores.mean()),
            drop=drop.mean,
            drop_ci95=drop.interval(),
            max_drop=recipe.max_drop,
            target_met=drop.mean <= recipe.max_drop,
        )
        if trained.stopped_early:
            warnings = [*warnings, "stopped early: validation did not improve"]
        wanted = recipe.parsed_target
        reached = totals.compression_rate
        return Report(
            "finetune",
            describe_model(self.source, load_model(self.source)),
            seed=recipe.seed,
            weights=weights,
            skipped=skipped_reports(collection),
            totals=totals,
            quality=quality,
            target=None
            if wanted is None
            else TargetReport(wanted.text, wanted.unit, reached, wanted.met(reached)),
            methods={
                "penalty": f"{settings.penalty.name}, {settings.penalty.form}",
                **({"saliency": settings.saliency} if goal.prunes else {}),
                "training": f"{len(trained.epochs)} epochs, the weights of epoch {trained.best.number} "
                f"(validation {trained.best.score:.4f})",
            },
            warnings=tuple(warnings),
            timings_s={"finetune": round(seconds, 3)},
        )


def _batches(
    session: Session,
    train: Dataset,
    settings: FinetuneSection,
    seed: int,
    *,
    rank: int = 0,
    ranks: int = 1,
) -> Batches:
    """Batches of the size that the settings, or the model, ask for."""
    fixed = min((s.shape[0] for s in session.inputs if s.shape and s.shape[0]), default=None)
    size = settings.optimizer.batch if fixed is None or train.stacked else fixed
    augment = find_augment(settings.augment)
    return Batches(train, size, seed, augment=augment, rank=rank, ranks=ranks)


def _selected(model: ir.Model, recipe: Recipe, *, prunes: bool) -> Ruled:
    """The weights that the recipe does not leave out, and the pattern of each.

    Raises:
        RecipeError: where rules say what training does not do.
    """
    ruled = apply_rules(collect_weights(model), recipe.with_pattern(recipe.finetune.pattern))
    if prunes and ruled.keep:
        msg = (
            "fine-tuning prunes by a target or a plan, not by the sparsity of rules; give the sparsities as a plan "
            "(--plan), or prune first and fine-tune without a target"
        )
        raise RecipeError(msg)
    return ruled


def _shapes(ruled: Ruled, prunable: Sequence[str]) -> dict[str, Shape]:
    """The patterns of the weights that are trained, where they have one."""
    return {
        weight.name: Shape(weight.layout, ruled.patterns[weight.name])
        for weight in ruled.collection.weights
        if weight.name in prunable and not isinstance(ruled.patterns[weight.name], Unstructured)
    }


def _goal(
    recipe: Recipe, plan: str | Path | None, collection: Collection, others: Sequence[Weight]
) -> Goal:
    """What is left of the target or plan for the weights that are trained.

    Args:
        recipe: with the target.
        plan: path of a plan, or None.
        collection: all weights that count.
        others: those among them that are not trained, and stay as they are.
    """
    target = recipe.parsed_target
    fixed = {weight.name: weight.nonzeros() for weight in others}
    if plan is not None:
        if target is not None:
            msg = "give either a target or a plan"
            raise RecipeError(msg)
        keep = load_plan(Path(plan), collection.weights).keep
        return Goal(by_weight={name: count for name, count in keep.items() if name not in fixed})
    if target is None:
        return Goal()
    if target.unit != "elements":
        msg = f"finetune takes its target as a compression rate such as 50x, found '{target.text}'"
        raise RecipeError(msg)
    return Goal(keep=max(0, int(collection.elements / target.limit) - sum(fixed.values())))


def _device(name: str) -> torch.device:
    if name == "auto":
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        msg = f"device '{name}' cannot be used: {reason}; use auto or cpu"
        raise RecipeError(msg) from error
    return device


@contextlib.contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    """So many threads of torch for a block; afterwards as many as before."""
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _processes() -> Iterator[tuple[int, int]]:
    """Our rank and the number of processes; ``torchrun`` sets both in the environment."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if ranks == 1:
        yield 0, 1
        return
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield torch.distributed.get_rank(), ranks
    finally:
        torch.distributed.destroy_process_group()
