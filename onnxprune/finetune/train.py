"""Training in phases: sparsify under a penalty, prune step by step, recover; masks exact throughout.

After Chang's thesis: the L½ penalty makes the pretrained model sparse before anything is cut, so
that less is cut that mattered; then weights are cut gradually while the rest adapt; then the
learning rate is rewound and the survivors recover. The phases may be repeated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import torch
from torch.nn.parallel import DistributedDataParallel

from onnxprune.errors import RecipeError, TrainingError
from onnxprune.finetune.bridge import several
from onnxprune.finetune.checkpoint import load_checkpoint, save_checkpoint
from onnxprune.finetune.losses import label_loss, total_loss
from onnxprune.finetune.pruner import Goal, Pruner
from onnxprune.finetune.schedule import Phase, PhaseName, RateCurve, phases, rate_at
from onnxprune.finetune.teacher import Teacher

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from onnxprune.finetune.batches import Batch, Batches
    from onnxprune.finetune.bridge.module import OnnxModule
    from onnxprune.finetune.masks import Shape
    from onnxprune.recipe_sections import FinetuneSection

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Score:
    """The score of a module on the validation split, higher is better, and its standard error."""

    mean: float
    error: float = 0.0


Validate = Callable[["OnnxModule"], Score]
"""Scores a module on the validation split."""

RUNAWAY = 50.0
"""A smoothed loss of so many times its first value (at least 1) counts as divergence."""


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data came to."""

    number: int
    phase: str
    loss: float
    score: float
    kept: int
    seconds: float


@dataclass(frozen=True)
class Trained:
    """The result of a run: the epoch whose weights were taken, and all epochs.

    Of the epochs of the last recovery that is the last one whose score lies within its standard error of
    the highest: validation cannot tell it from the best, and the learning rate has fallen further (the
    one-standard-error rule of Breiman et al. 1984, with training time in the place of complexity). Where
    the last phase is no recovery there is nothing to choose: its end is what the next step goes on from.
    """

    best: Epoch
    epochs: tuple[Epoch, ...]
    stopped_early: bool


@dataclass
class _State:
    step: int = 0
    epochs: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    peak: Epoch | None = None
    best_weights: dict[str, Tensor] | None = None
    losses: list[float] = field(default_factory=list)
    first_loss: float | None = None
    smooth_loss: float | None = None


@final
class Trainer:
    """Trains one module; the same arguments give the same weights.

    Args:
        module: what is trained, on its device.
        dense: what it is distilled from, or None.
        batches: training data.
        validate: scores the module on the validation split.
        settings: the recipe's section.
        goal: what to prune down to.
        prunable: names of the weights that the penalty and the masks act on.
        shapes: patterns of their masks, by name.
        checkpoint: file to write every so often, or None.
        identity: of the run, kept in the checkpoint.
        progress: told the step after each.

    Attributes:
        module: as above.
        optimizer: of its parameters.
        pruner: of its weights.
    """

    def __init__(
        self,
        module: OnnxModule,
        dense: OnnxModule | None,
        batches: Batches,
        validate: Validate,
        settings: FinetuneSection,
        goal: Goal,
        prunable: tuple[str, ...],
        *,
        shapes: Mapping[str, Shape] | None = None,
        checkpoint: Path | None = None,
        identity: str = "",
        progress: Progress | None = None,
    ) -> None:
        self.module, self._batches = module, batches
        self._validate, self._settings, self._goal = validate, settings, goal
        self._checkpoint, self._identity = checkpoint, identity
        self._progress: Progress = progress or (lambda *_: None)
        self._loss = label_loss(settings.loss.name, batches.labels)
        self.optimizer = _optimizer(module, settings)
        weights = module.weights
        self.pruner = Pruner(
            {name: weights[name] for name in prunable}, self.optimizer, settings, goal, shapes
        )
        epochs: dict[PhaseName, int] = {
            "sparsify": settings.phases.sparsify,
            "prune": settings.phases.prune if goal.prunes else 0,
            "recover": settings.phases.recover,
        }
        self._phases = phases(epochs, batches.steps_per_epoch, settings.cycles)
        if not self._phases:
            msg = "finetune.phases leave nothing to do: all are 0 epochs, or only prune without a target"
            raise RecipeError(msg)
        self._device = next(iter(module.parameters())).device
        self._teacher = None if dense is None else Teacher(dense, batches, self._device)
        self._dropped = module.mode.generator = torch.Generator(self._device)
        self._scaler = torch.amp.GradScaler(
            self._device.type, enabled=settings.optimizer.precision == "float16"
        )
        parallel = torch.distributed.is_available() and torch.distributed.is_initialized()
        self._forward: Any = (
            DistributedDataParallel(module, find_unused_parameters=True) if parallel else module
        )
        self._rank = torch.distributed.get_rank() if parallel else 0
        self._state = _State()

    @property
    def steps(self) -> int:
        """How many steps the whole run has."""
        last = self._phases[-1]
        return last.first_step + last.steps

    def resume(self) -> None:
        """Go on from the checkpoint.

        Raises:
            RunError: when there is none, or it is of another run.
        """
        assert self._checkpoint is not None
        held = load_checkpoint(self._checkpoint, self._identity)
        self.module.load_state_dict(held["module"])
        self.optimizer.load_state_dict(held["optimizer"])
        self._scaler.load_state_dict(held["scaler"])
        self.pruner.load_state(held["pruner"])
        epochs = [Epoch(**epoch) for epoch in held["epochs"]]
        best, peak = (None if held[key] is None else Epoch(**held[key]) for key in ("best", "peak"))
        self._state = _State(
            held["step"], epochs, best, peak, held["best_weights"], held["losses"],
            held["first_loss"], held["smooth_loss"],
        )  # fmt: skip

    def run(self) -> Trained:
        """Train to the end; the module then holds the weights of the best epoch.

        Raises:
            TrainingError: when the loss is no number or runs away; the last checkpoint stays.
        """
        state, per_epoch = self._state, self._batches.steps_per_epoch
        self.pruner.masks.apply()
        self.module.mode.live = self.pruner.masks.live_channels()
        started = time.perf_counter()
        # A checkpoint may be of the very step at which patience ended.
        stopped = state.step > 0 and state.step % per_epoch == 0 and self._out_of_patience()
        while state.step < self.steps and not stopped:
            phase = next(p for p in self._phases if state.step < p.first_step + p.steps)
            self._take_step(phase, state.step)
            state.step += 1
            self._progress(phase.name, state.step - phase.first_step, phase.steps)
            if state.step % per_epoch == 0:
                self._end_epoch(phase, time.perf_counter() - started)
                started = time.perf_counter()
                stopped = self._out_of_patience()
            if state.step % self._settings.checkpoint_every == 0:
                self._save()
        if state.best_weights is None:
            self.pruner.finish()
        else:
            self.module.load_state_dict(state.best_weights)
        best = state.best or state.epochs[-1]
        return Trained(best, tuple(state.epochs), stopped)

    def _take_step(self, phase: Phase, step: int) -> None:
        settings, optimizer = self._settings, self.optimizer
        if self.pruner.prune_if_due(phase, step):
            self.module.mode.live = self.pruner.masks.live_channels()
        progress = phase.progress(step)
        curve: RateCurve = "cosine" if phase.name == "recover" else "constant"
        for group in optimizer.param_groups:
            group["lr"] = rate_at(curve, settings.optimizer.learning_rate, progress)
        self._dropped.manual_seed(step)
        loss = self._loss_of(self._batches.batch(step))
        self._watch(loss, step)
        optimizer.zero_grad()
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(optimizer)
        self.pruner.before_step(phase, progress)
        self._scaler.step(optimizer)
        self._scaler.update()
        self.pruner.after_step(phase, progress)

    def _loss_of(self, batch: Batch) -> Tensor:
        batch = batch.to(self._device)
        precision = self._settings.optimizer.precision
        dense = None
        if self._teacher is not None and (self._settings.loss.distill or self._loss is None):
            dense = self._teacher(batch)
        with torch.autocast(
            self._device.type, getattr(torch, precision), enabled=precision != "float32"
        ):
            outputs = several(self._forward(batch.inputs))
        return total_loss(self._settings.loss, self._loss, outputs, batch.labels, dense)

    def _watch(self, loss: Tensor, step: int) -> None:
        """Stop when the loss is no number or has run away."""
        state, value = self._state, float(loss.detach())
        state.losses.append(value)
        if state.first_loss is None or state.smooth_loss is None:
            state.first_loss = state.smooth_loss = value
        state.smooth_loss = 0.98 * state.smooth_loss + 0.02 * value
        if math.isfinite(value) and state.smooth_loss <= RUNAWAY * max(state.first_loss, 1.0):
            return
        kept = (
            f"; the last good checkpoint is '{self._checkpoint}'"
            if self._checkpoint is not None and self._checkpoint.is_file()
            else ""
        )
        msg = (
            f"training diverged at step {step + 1}: the loss is {value:.4g} (it began at "
            f"{state.first_loss:.4g}); lower the learning rate or the penalty's strength{kept}"
        )
        raise TrainingError(msg)

    def _end_epoch(self, phase: Phase, seconds: float) -> None:
        state = self._state
        score = self._validate(self.module)
        mean = sum(state.losses) / max(1, len(state.losses))
        state.losses = []
        number = len(state.epochs) + 1
        epoch = Epoch(
            number, phase.name, mean, score.mean, self.pruner.masks.kept, round(seconds, 3)
        )
        state.epochs.append(epoch)
        if phase is not self._phases[-1] or phase.name != "recover":
            return
        if state.peak is None or score.mean >= state.peak.score:
            state.peak = epoch
        if score.mean >= state.peak.score - score.error:
            state.best = epoch
            state.best_weights = {
                key: value.clone() for key, value in self.module.state_dict().items()
            }

    def _out_of_patience(self) -> bool:
        patience, state = self._settings.patience, self._state
        if patience is None or state.peak is None:
            return False
        return len(state.epochs) - state.peak.number >= patience

    def _save(self) -> None:
        if self._checkpoint is None or self._rank:
            return
        state = self._state
        save_checkpoint(
            self._checkpoint,
            self._identity,
            {
                "module": self.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self._scaler.state_dict(),
                "pruner": self.pruner.state(),
                "step": state.step,
                "epochs": [vars(epoch) for epoch in state.epochs],
                "best": None if state.best is None else vars(state.best),
                "peak": None if state.peak is None else vars(state.peak),
                "best_weights": state.best_weights,
                "losses": state.losses,
                "first_loss": state.first_loss,
                "smooth_loss": state.smooth_loss,
            },
        )


def _optimizer(module: OnnxModule, settings: FinetuneSection) -> torch.optim.Optimizer:
    section = settings.optimizer
    parameters = list(module.parameters())
    if section.name == "adam":
        return torch.optim.Adam(parameters, lr=section.learning_rate, fused=True)
    return torch.optim.SGD(
        parameters,
        lr=section.learning_rate,
        momentum=section.momentum,
        nesterov=section.momentum > 0,
    )
