"""Fields of a recipe that are marked as searched: ``damping: {search: [0.001, 0.1, log]}``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "search"
STEPS = "steps"
SCALES = ("linear", "log")
VALUES = 5
"""Values that a range of a section's field is cut into, both ends among them ..."""
STEP_VALUES = 9
"""... and that of a step's field: there a value costs no database of its own. A range between two whole numbers
has whole numbers there; write 0.0 and 1.0 for what lies between 0 and 1."""


def take_marks(fields: dict[str, Any], known: Sequence[str], label: str) -> None:
    """Move the marks of fields to ``search.vary``, and leave the first value of each in its place.

    Args:
        fields: of a recipe as it was read; changed.
        known: dotted names of fields of sections that may be marked; other marks there stay, for the recipe to
            refuse. Every field of a step may be.
        label: of the recipe, for messages.

    Raises:
        RecipeError: for a mark that is not understood.
    """
    found: dict[str, list[Any]] = {}
    for dotted in known:
        section_name, name = dotted.split(".")
        section = fields.get(section_name)
        if isinstance(section, dict) and isinstance(section.get(name), dict):
            found[dotted] = _values(section[name], f"{label}: {dotted}", VALUES)
            section[name] = found[dotted][0]
    _take_from(fields.get("steps"), STEPS, label, found)
    search = fields.setdefault("search", {}) if found else None
    if isinstance(search, dict):
        vary = search.setdefault("vary", {})
        if isinstance(vary, dict):
            vary.update(found)


def _take_from(place: Any, dotted: str, label: str, found: dict[str, list[Any]]) -> None:
    """Take the marks of a step, or of all steps, wherever they stand in it."""
    pairs = (
        place.items()
        if isinstance(place, dict)
        else enumerate(place if isinstance(place, list) else ())
    )
    for name, value in list(pairs):
        where = f"{dotted}.{name}"
        if isinstance(value, dict) and MARK in value:
            found[where] = _values(value, f"{label}: {where}", STEP_VALUES)
            place[name] = found[where][0]
        else:
            _take_from(value, where, label, found)


def _values(mark: dict[str, Any], label: str, count: int) -> list[Any]:
    values = mark.get(MARK)
    if set(mark) != {MARK} or not isinstance(values, list) or len(values) < 2:
        msg = (
            f"{label}: a searched field is written {{search: [a, b, ...]}}, or {{search: [low, high, log]}} "
            f"for a range, found {mark}"
        )
        raise RecipeError(msg)
    return _range(values, label, count) if values[-1] in SCALES else values


def _range(values: list[Any], label: str, count: int) -> list[Any]:
    scale = values[-1]
    numbers = [x for x in values[:-1] if _is_number(x)]
    if len(values) != 3 or len(numbers) != 2 or not numbers[0] < numbers[1]:
        msg = f"{label}: a range is [low, high, {scale}] with low below high, found {values}"
        raise RecipeError(msg)
    low, high = numbers
    if scale == "log" and low <= 0:
        msg = f"{label}: a log range begins above 0, found {low}"
        raise RecipeError(msg)
    spaced = np.geomspace if scale == "log" else np.linspace
    between = spaced(low, high, count)
    if count == STEP_VALUES and all(isinstance(number, int) for number in numbers):
        return sorted({round(float(value)) for value in between})
    return [float(f"{value:.6g}") for value in between]


def _is_number(value: Any) -> bool:
    """Whether a value is a number that a double can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max  # compares whole numbers of any size; false for NaN
