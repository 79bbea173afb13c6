"""Patterns: which shapes a mask may take inside one tensor.

A pattern turns scores and a budget into a mask, and can tell whether a mask obeys it; whoever
prunes asks it and knows no shapes.
"""

from passes.patterns.fetched import Balanced, Burst, Segments
from passes.patterns.names import parse_pattern
from passes.patterns.pattern import Pattern, Stored, Unstructured
from passes.patterns.tiles import NM, Block, Channel

__all__ = [
    "Balanced",
    "Block",
    "Burst",
    "Channel",
    "NM",
    "Pattern",
    "Segments",
    "Stored",
    "Unstructured",
    "parse_pattern",
]
