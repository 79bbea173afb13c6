"""Patterns as users write them, the name of a memory among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.design_space import CHUNK
from onnxprune.errors import RecipeError
from onnxprune.memories import find_memory
from passes.patterns import Burst, parse_pattern

if TYPE_CHECKING:
    from passes.patterns import Pattern

_BURST = "burst:"


def read_pattern(text: str) -> Pattern:
    """A pattern by its name.

    Args:
        text: as :func:`passes.patterns.parse_pattern` takes it, or ``burst:`` and the name or YAML file of
            a memory: its bursts, and chunks of 1024 weights.

    Raises:
        ValueError: with a sentence for the person who wrote it.
    """
    try:
        return parse_pattern(text)
    except ValueError:
        if not text.startswith(_BURST):
            raise
    try:
        memory = find_memory(text.removeprefix(_BURST))
    except RecipeError as error:
        msg = f"pattern '{text}' wants a memory, or bytes and weights as 64x1024: {error}"
        raise ValueError(msg) from error
    return Burst(burst=memory.unit_bytes, chunk=CHUNK)
