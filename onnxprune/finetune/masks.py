"""Masks on the weights of a module: drawn from scores, exact at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import torch

from onnxprune.finetune.bridge.registry import Live
from passes.masks import keep_largest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from passes.layout import Layout
    from passes.patterns import Pattern

WORTH = 0.75
"""Of a convolution's work; where more remains, picking channels costs about what it saves."""

SaliencyName = Literal["magnitude", "lamp", "fisher"]


@dataclass(frozen=True)
class Shape:
    """The pattern of one weight's masks, and how its array is seen as matrices."""

    layout: Layout
    pattern: Pattern

    def mask(self, scores: NDArray[np.float64], keep: int) -> NDArray[np.bool_]:
        """The best mask of the stored shape that keeps at most ``keep``; minus infinity is dropped already."""
        chosen = self.pattern.mask(self.layout.matrices(scores), keep)
        mask: NDArray[np.bool_] = self.layout.array(chosen) & np.isfinite(scores)
        return mask


@final
class Masks:
    """Which elements of some parameters stay; all others are zero after :meth:`apply`.

    Args:
        weights: parameters by name.
        keep_zeros: elements that are zero now stay zero.
        shapes: patterns that masks must obey, by name; any weight may go where none is given.
    """

    def __init__(
        self,
        weights: Mapping[str, nn.Parameter],
        *,
        keep_zeros: bool,
        shapes: Mapping[str, Shape] | None = None,
    ) -> None:
        self._weights, self._shapes = dict(weights), dict(shapes or {})
        self._masks: dict[str, Tensor] = {
            name: (w.detach() != 0 if keep_zeros else torch.ones_like(w, dtype=torch.bool))
            for name, w in self._weights.items()
        }
        self._dropped: dict[str, Tensor] = {}
        self._refresh()

    def _refresh(self) -> None:
        """What is not kept, of the weights that have anything of that kind."""
        self._dropped = {n: ~m for n, m in self._masks.items() if not bool(m.all())}

    @property
    def by_name(self) -> dict[str, Tensor]:
        """The masks, bool, of the shapes of the weights; True keeps."""
        return self._masks

    @property
    def elements(self) -> int:
        """How many weights there are."""
        return sum(mask.numel() for mask in self._masks.values())

    @property
    def kept(self) -> int:
        """How many of them stay."""
        return sum(int(mask.sum()) for mask in self._masks.values())

    def live_channels(self) -> dict[str, Live]:
        """What is left of weights ``(O, I, height, width)`` that lost whole channels, worth leaving out.

        That is where at most :data:`WORTH` of the work remains.
        """
        found = {}
        for name, mask in self._masks.items():
            if mask.ndim != 4:
                continue
            outputs = mask.flatten(1).any(1).nonzero()[:, 0]
            inputs = mask.transpose(0, 1).flatten(1).any(1).nonzero()[:, 0]
            share = len(outputs) * len(inputs) / (mask.shape[0] * mask.shape[1])
            if 0 < share <= WORTH:
                found[name] = Live(outputs, inputs)
        return found

    def load(self, masks: Mapping[str, Tensor]) -> None:
        """Take masks as :attr:`by_name` gave them."""
        for name, mask in masks.items():
            self._masks[name] = mask.to(self._weights[name].device)
        self._refresh()

    @torch.no_grad()
    def apply(self, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Set what is not kept to +0.0, in the weights and in the optimizer's momentum."""
        for name, dropped in self._dropped.items():
            weight = self._weights[name]
            weight.masked_fill_(dropped, 0.0)
            state = {} if optimizer is None else optimizer.state.get(weight, {})
            for moment in ("exp_avg", "momentum_buffer"):
                if state.get(moment) is not None:
                    state[moment].masked_fill_(dropped, 0.0)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Set the gradients of what is not kept to zero."""
        for name, dropped in self._dropped.items():
            gradient = self._weights[name].grad
            if gradient is not None:
                gradient.masked_fill_(dropped, 0.0)

    def shrink_to(self, scores: Mapping[str, Tensor], keep: int) -> None:
        """Keep exactly ``keep`` weights of highest score, over all weights, of those kept now.

        With fewer kept already nothing changes. What a pattern lets stay is compared; then each weight keeps
        so many in its pattern, where whole cells may make it a few less.
        """
        if keep >= self.kept:
            return
        live = {name: _live(scores[name], mask) for name, mask in self._masks.items()}
        for name, shape in self._shapes.items():
            live[name] = np.where(shape.mask(live[name], live[name].size), live[name], -np.inf)
        flat = np.concatenate([array.reshape(-1) for array in live.values()])
        chosen = keep_largest(flat, keep)
        start = 0
        for name, mask in self._masks.items():
            part = chosen[start : start + mask.numel()].reshape(tuple(mask.shape))
            start += mask.numel()
            if name in self._shapes:
                part = self._shapes[name].mask(_live(scores[name], mask), int(part.sum()))
            self._masks[name] = torch.from_numpy(part.copy()).to(mask.device) & mask
        self._refresh()

    def shrink_each_to(self, scores: Mapping[str, Tensor], keep: Mapping[str, int]) -> None:
        """Keep in each weight so many elements of highest score; weights not named stay."""
        for name, count in keep.items():
            mask = self._masks[name]
            if count < int(mask.sum()):
                shape = self._shapes.get(name)
                live = _live(scores[name], mask)
                chosen = keep_largest(live, count) if shape is None else shape.mask(live, count)
                self._masks[name] = torch.from_numpy(chosen).to(mask.device) & mask
        self._refresh()

    def follow_zeros(self) -> None:
        """Drop what has become zero, as a proximal map leaves it."""
        for name, weight in self._weights.items():
            self._masks[name] = self._masks[name] & (weight.detach() != 0)
        self._refresh()


def _live(scores: Tensor, mask: Tensor) -> np.ndarray:
    """Scores as float64, below all others where a weight is dropped already."""
    values = scores.detach().to(torch.float64)
    return torch.where(mask, values, -torch.inf).cpu().numpy()


def magnitude(weight: Tensor, moment: Tensor | None) -> Tensor:
    """|w|."""
    del moment
    return weight.detach().abs()


def lamp(weight: Tensor, moment: Tensor | None) -> Tensor:
    """w^2 over the sum of all squares in the layer that are not smaller (Lee et al. 2021, "Layer-adaptive sparsity for the magnitude-based pruning")."""
    del moment
    squares = weight.detach().double().square().reshape(-1)
    values, order = squares.sort(stable=True)
    remaining = values.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(values)
    scores[order] = values / remaining.clamp_min(1e-300)
    return scores.reshape(weight.shape)


def fisher(weight: Tensor, moment: Tensor | None) -> Tensor:
    """w^2 sqrt(E[g^2]), g the gradient of the loss.

    The saliency of optimal brain damage (LeCun, Denker and Solla 1990) is w^2 H / 2. The second
    moment of the gradient of a batch stands for the curvature H; near a minimum its root ranks
    weights better than itself in our trials, for it is less noisy. Where no moment is known yet,
    |w|^2 alone ranks.
    """
    squares = weight.detach().square()
    return squares if moment is None else squares * moment.sqrt()


SALIENCY: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "magnitude": magnitude,
    "lamp": lamp,
    "fisher": fisher,
}
