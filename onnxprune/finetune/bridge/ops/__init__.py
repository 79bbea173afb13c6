"""Implementations of operators, one family a file; importing a file registers its operators."""

from __future__ import annotations

import importlib

FAMILIES = (
    "elementwise",
    "activations",
    "linear",
    "convolution",
    "pooling",
    "normalisation",
    "reduction",
    "shape",
    "indexing",
    "scatter",
    "resize",
    "sampling",
    "recurrent",
    "attention",
    "linear_attention",
    "microsoft",
    "sequences",
    "control",
    "quantise",
    "signal",
    "losses",
)


def register_all() -> None:
    """Register every operator; calling it again changes nothing."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
