"""Patterns by the names that users write."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from passes.patterns.fetched import Balanced, Burst, Segments
from passes.patterns.pattern import Pattern, Unstructured
from passes.patterns.tiles import NM, Block, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

_FETCHED: dict[str, Callable[[int, int], Pattern]] = {
    "balanced": lambda lanes, chunk: Balanced(lanes=lanes, chunk=chunk),
    "segments": lambda lanes, chunk: Segments(lanes=lanes, chunk=chunk),
    "burst": lambda burst, chunk: Burst(burst=burst, chunk=chunk),
}


def parse_pattern(text: str) -> Pattern:
    """Read the name of a pattern.

    Names are ``unstructured``, ``2:4``, ``4x1`` (rows x columns), ``channel``, ``balanced:16x64`` and
    ``segments:16x64`` (lanes x weights), and ``burst:64x1024`` (bytes x weights).

    Raises:
        ValueError: for anything else.
    """
    plain = {"unstructured": Unstructured(), "channel": Channel()}
    if text in plain:
        return plain[text]
    match = re.fullmatch(r"(?:(balanced|segments|burst):)?(\d{1,6})([:x])(\d{1,6})", text)
    if match is None or not int(match[2]) or not int(match[4]):
        raise _not_understood(text)
    first, second = int(match[2]), int(match[4])
    if match[1] and match[3] == "x":
        return _FETCHED[match[1]](first, second)
    if not match[1] and match[3] == "x":
        return Block(rows=first, columns=second)
    if not match[1] and first <= second:
        return NM(n=first, m=second)
    raise _not_understood(text)


def _not_understood(text: str) -> ValueError:
    return ValueError(
        f"pattern '{text}' is not understood; write unstructured, N:M (2:4: at most 2 of each 4 "
        "along the reduction), RxC (4x1: tiles of 4 rows and 1 column), channel, balanced:LxB "
        "(balanced:16x64: 16 rows keep equally many of each 64 columns), segments:LxB (segments:16x64: "
        "16 runs of 64 weights in memory keep equally many) or burst:MEMORY (burst:ddr4-2400: each 1024 "
        "weights fill whole bursts)"
    )
