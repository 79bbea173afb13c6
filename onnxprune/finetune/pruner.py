"""The penalty, the schedule and the masks of one training run: what happens to weights beside the optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import torch

from onnxprune.errors import RecipeError
from onnxprune.finetune.masks import SALIENCY, Masks, Shape
from onnxprune.finetune.penalty import kappa_in_metric, make_penalty
from onnxprune.finetune.schedule import Phase, density_at, ramped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from onnxprune.recipe_sections import FinetuneSection


@dataclass(frozen=True)
class Goal:
    """How many weights stay in the end: in all, or by weight; None leaves the masks as they are."""

    keep: int | None = None
    by_weight: Mapping[str, int] | None = None

    @property
    def prunes(self) -> bool:
        """Whether anything is to be cut."""
        return self.keep is not None or self.by_weight is not None


@final
class Pruner:
    """Acts on the weights that can be pruned, before and after each step of the optimizer.

    Args:
        weights: parameters by name.
        optimizer: of all parameters; its moments rank weights, and its metric sets proximal steps.
        settings: the recipe's section.
        goal: what to prune down to.
        shapes: patterns of the masks, by name; any weight may go where none is given.

    Raises:
        RecipeError: when the settings name a weight that is not there, or contradict each other.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        settings: FinetuneSection,
        goal: Goal,
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        self._weights, self._optimizer = dict(weights), optimizer
        self._settings, self._section, self._goal = settings, settings.penalty, goal
        unknown = sorted(set(self._section.by_weight) - set(weights))
        if unknown:
            msg = f"finetune.penalty.by_weight names {unknown}, but the prunable weights are {sorted(weights)}"
            raise RecipeError(msg)
        self._penalty = make_penalty(self._section.name, self._section.smoothing)
        if self._section.prune_strength == "auto" and self._section.name not in {"l_half", "l1"}:
            msg = f"finetune.penalty.prune_strength auto needs l_half or l1, found {self._section.name}"
            raise RecipeError(msg)
        self._factors = dict.fromkeys(weights, 1.0) | dict(self._section.by_weight)
        if self._section.prune_strength == "auto" and shapes:
            msg = "finetune.penalty.prune_strength auto cuts whatever is small, which keeps no pattern; give a strength"
            raise RecipeError(msg)
        self.masks = Masks(weights, keep_zeros=settings.keep_zeros, shapes=shapes)
        self._begin_keep = self.masks.kept
        self._begin_each = {name: int(mask.sum()) for name, mask in self.masks.by_name.items()}
        self._moments: dict[str, Tensor] = {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold of it."""
        return {
            "masks": dict(self.masks.by_name),
            "moments": dict(self._moments),
            "begin_keep": self._begin_keep,
            "begin_each": dict(self._begin_each),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take the state that :meth:`state` gave."""
        self.masks.load(state["masks"])
        self._moments = {n: m.to(self._weights[n].device) for n, m in state["moments"].items()}
        self._begin_keep, self._begin_each = state["begin_keep"], dict(state["begin_each"])

    def prune_if_due(self, phase: Phase, step: int) -> bool:
        """Draw new masks where the schedule has it, and say so; recovery begins at the goal exactly."""
        within = step - phase.first_step
        if not self._goal.prunes or phase.name == "sparsify":
            return False
        if not within and not phase.cycle:
            self._begin()
        if phase.name == "recover":
            due, progress = within == 0, 1.0
        else:
            due, progress = within % self._settings.prune_every == 0, (within + 1) / phase.steps
        if due:
            self._prune(phase, progress)
        return due

    def before_step(self, phase: Phase, progress: float) -> None:
        """Between the backward pass and the optimizer's step: the smoothed penalty, and the masks."""
        if self._section.form == "smoothed":
            self._add_penalty(self._strength(phase.name, progress))
        self.masks.mask_gradients()
        self._track_moments()

    def after_step(self, phase: Phase, progress: float) -> None:
        """After the optimizer's step: the proximal map, and the masks."""
        if self._section.form == "proximal":
            self._proximal_step(self._strength(phase.name, progress))
        self.masks.apply(self._optimizer)

    def finish(self) -> None:
        """Draw the masks of the goal, where the last phase was pruning itself."""
        if self._goal.prunes:
            self._shrink(self._goal.keep, self._goal.by_weight)

    def _strength(self, phase: str, progress: float) -> float:
        section = self._section
        strength = {
            "sparsify": section.strength,
            "prune": section.prune_strength,
            "recover": section.recover_strength,
        }[phase]
        if strength == "auto":
            return 0.0  # the closed rule sets it when masks are drawn
        assert isinstance(strength, float)
        return ramped(strength, progress, section.ramp) if phase == "sparsify" else strength

    @torch.no_grad()
    def _add_penalty(self, strength: float) -> None:
        if self._penalty is None or not strength:
            return
        for name, weight in self._weights.items():
            if weight.grad is not None and self._factors[name]:
                weight.grad.add_(
                    self._penalty.gradient(weight), alpha=strength * self._factors[name]
                )

    @torch.no_grad()
    def _proximal_step(self, strength: float) -> None:
        if self._penalty is None or not strength:
            return
        for name, weight in self._weights.items():
            kappa = kappa_in_metric(self._optimizer, weight, strength * self._factors[name])
            weight.copy_(self._penalty.prox(weight, kappa))

    def _track_moments(self) -> None:
        """The mean square of each gradient, for ``fisher``; Adam keeps it itself."""
        if self._settings.saliency != "fisher" or isinstance(self._optimizer, torch.optim.Adam):
            return
        for name, weight in self._weights.items():
            if weight.grad is not None:
                square = weight.grad.detach().square()
                known = self._moments.get(name)
                self._moments[name] = square if known is None else known.lerp(square, 0.001)

    def _moment(self, name: str) -> Tensor | None:
        if isinstance(self._optimizer, torch.optim.Adam):
            return self._optimizer.state.get(self._weights[name], {}).get("exp_avg_sq")
        return self._moments.get(name)

    def _prune(self, phase: Phase, progress: float) -> None:
        """Draw the masks for this point of the schedule."""
        goal = self._goal
        if goal.by_weight is None:
            assert goal.keep is not None
            keep = self._due(self._begin_keep, goal.keep, phase, progress)
            self._shrink(keep, None)
        else:
            each = {
                name: self._due(self._begin_each[name], end, phase, progress)
                for name, end in goal.by_weight.items()
            }
            self._shrink(None, each)

    def _begin(self) -> None:
        """Take stock before the first cut: the schedule begins at what the penalty has left alive.

        Weights that a smoothed penalty holds near zero cost nothing to cut, so no time is spent on
        cutting them slowly.
        """
        if self._penalty is None or self._section.name == "l2":
            return
        for name, mask in self.masks.by_name.items():
            alive = (self._weights[name].detach().abs() > self._section.smoothing) & mask
            self._begin_each[name] = int(alive.sum())
        self._begin_keep = sum(self._begin_each.values())

    def _due(self, begin: int, end: int, phase: Phase, progress: float) -> int:
        """How many weights stay at this point, of ``begin`` before all cycles and ``end`` after.

        Each cycle takes the same share of what is left; within it the schedule's curve holds.
        """
        cycles, begin = self._settings.cycles, max(begin, end)
        ratio = max(end, 1) / max(begin, 1)
        before = ratio ** (phase.cycle / cycles)
        after = ratio ** ((phase.cycle + 1) / cycles)
        if progress >= 1 and phase.cycle + 1 == cycles:
            return end
        return round(begin * density_at(self._settings.schedule, before, after, progress))

    def _shrink(self, keep: int | None, each: Mapping[str, int] | None) -> None:
        if each is not None:
            self.masks.shrink_each_to(self._scores(), each)
        elif keep is not None and self._section.prune_strength == "auto":
            self._threshold_to(keep)
        elif keep is not None:
            self.masks.shrink_to(self._scores(), keep)
        self.masks.apply(self._optimizer)

    def _scores(self) -> dict[str, Tensor]:
        score = SALIENCY[self._settings.saliency]
        return {name: score(w.detach(), self._moment(name)) for name, w in self._weights.items()}

    @torch.no_grad()
    def _threshold_to(self, keep: int) -> None:
        """The penalty's own map, at the strength that leaves ``keep`` weights (the closed rule)."""
        assert self._penalty is not None
        sizes = torch.cat([weight.detach().abs().reshape(-1) for weight in self._weights.values()])
        kappa = self._penalty.kappa_for(sizes, keep)
        if kappa:
            for weight in self._weights.values():
                weight.copy_(self._penalty.prox(weight, kappa))
        self.masks.follow_zeros()
