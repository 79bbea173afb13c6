"""Fields of a recipe that are marked as searched: ``damping: {search: [0.001, 0.1, log]}``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "search"
SCALES = ("linear", "log")
STEPS = 5
"""Values that a range is cut into, both ends among them."""


def take_marks(fields: dict[str, Any], known: Sequence[str], label: str) -> None:
    """Move the marks of fields to ``search.vary``, and leave the first value of each in its place.

    Args:
        fields: of a recipe as it was read; changed.
        known: dotted names of fields that may be marked; other marks stay, for the recipe to refuse.
        label: of the recipe, for messages.

    Raises:
        RecipeError: for a mark that is not understood.
    """
    for dotted in known:
        section_name, name = dotted.split(".")
        section = fields.get(section_name)
        if not isinstance(section, dict):
            continue
        mark = section.get(name)
        if not isinstance(mark, dict):
            continue
        values = _values(mark, f"{label}: {dotted}")
        section[name] = values[0]
        search = fields.setdefault("search", {})
        if isinstance(search, dict):
            vary = search.setdefault("vary", {})
            if isinstance(vary, dict):
                vary[dotted] = values


def _values(mark: dict[str, Any], label: str) -> list[Any]:
    values = mark.get(MARK)
    if set(mark) != {MARK} or not isinstance(values, list) or len(values) < 2:
        msg = (
            f"{label}: a searched field is written {{search: [a, b, ...]}}, or {{search: [low, high, log]}} "
            f"for a range, found {mark}"
        )
        raise RecipeError(msg)
    return _range(values, label) if values[-1] in SCALES else values


def _range(values: list[Any], label: str) -> list[float]:
    scale = values[-1]
    numbers = [x for x in values[:-1] if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(values) != 3 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        msg = f"{label}: a range is [low, high, {scale}] with low below high, found {values}"
        raise RecipeError(msg)
    low, high = numbers
    if scale == "log" and low <= 0:
        msg = f"{label}: a log range begins above 0, found {low}"
        raise RecipeError(msg)
    spaced = np.geomspace if scale == "log" else np.linspace
    return [float(f"{value:.6g}") for value in spaced(low, high, STEPS)]
