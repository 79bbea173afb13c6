"""Position codes for masks with a pattern: N:M groups, and blocks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from passes.pack.codes import Bitmask, Coded, Cost, PositionCode, Positions

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Groups(PositionCode):
    """At most ``keep`` of each ``size`` neighbours: which combination, several to a byte.

    2:4 has 6 combinations, three of which make 216, so that three groups take a byte: 2.67 bits a
    group against 4 of a bitmask. A group with fewer values is filled up with fillers.

    Attributes:
        keep: values in each group.
        size: of a group.
    """

    name: ClassVar[str] = "groups"
    min_opset: ClassVar[int] = 7
    leading_fill: ClassVar[bool] = True
    keep: int = 2
    size: int = 4

    @property
    def masks(self) -> NDArray[np.bool_]:
        """The combinations of one group, ``(count, size)``."""
        chosen = list(itertools.combinations(range(self.size), self.keep))
        masks = np.zeros((len(chosen), self.size), np.bool_)
        for number, places in enumerate(chosen):
            masks[number, list(places)] = True
        return masks

    @property
    def per_byte(self) -> int:
        """Groups that share a byte."""
        count = math.comb(self.size, self.keep)
        return max(number for number in range(1, 9) if count**number <= 256)

    @property
    def table(self) -> NDArray[np.bool_]:
        """The bits that each byte stands for, ``(bytes that occur, per_byte * size)``."""
        masks = self.masks
        numbers = np.arange(len(masks) ** self.per_byte)
        digits = [(numbers // len(masks) ** at) % len(masks) for at in range(self.per_byte)]
        return np.concatenate([masks[digit] for digit in digits], axis=1)

    def fits(self, positions: Positions) -> bool:
        """Whether no group holds more than it may."""
        if positions.elements % self.size:
            return False
        if positions.at.size * self.size > positions.elements * self.keep:
            return False
        return bool(np.bincount(positions.at // self.size).max() <= self.keep)

    def cost(self, positions: Positions) -> Cost:
        """A byte for ``per_byte`` groups."""
        groups = positions.elements // self.size
        return Cost(-(-groups // self.per_byte) * 8, groups * self.keep - positions.at.size)

    def encode(self, positions: Positions) -> Coded:
        """Part ``groups``."""
        mask = np.zeros(positions.elements, np.bool_)
        mask[positions.at] = True
        full = _filled_up(mask.reshape(-1, self.size), self.keep)
        weights = 1 << np.arange(self.size)
        known = self.masks @ weights
        order = np.argsort(known)
        digits = order[np.searchsorted(known[order], full @ weights)]
        padded = np.zeros(-(-digits.size // self.per_byte) * self.per_byte, np.int64)
        padded[: digits.size] = digits
        scale = len(known) ** np.arange(self.per_byte)
        codes = padded.reshape(-1, self.per_byte) @ scale
        stored = np.flatnonzero(full)
        number = np.cumsum(mask) - 1
        source = np.where(mask[stored], number[stored], -1)
        return Coded({"groups": codes.astype(np.uint8)}, source, positions.elements)


@dataclass(frozen=True)
class Blocks(Bitmask):
    """A bit for each block of elements that are stored or left out together."""

    name: ClassVar[str] = "blocks"


def _filled_up(mask: NDArray[np.bool_], keep: int) -> NDArray[np.bool_]:
    """Exactly ``keep`` True in each row: those there are, then the first others."""
    order = np.argsort(~mask, axis=1, kind="stable")[:, :keep]
    full = np.zeros_like(mask)
    np.put_along_axis(full, order, values=True, axis=1)
    return full


GROUP_CODES: tuple[Groups, ...] = tuple(
    Groups(keep, size) for keep, size in ((1, 2), (1, 4), (2, 4), (3, 4), (1, 8), (1, 16))
)
"""Those that a byte holds well; others are no smaller than a bitmask."""
