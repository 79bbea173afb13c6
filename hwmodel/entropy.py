"""The entropy bound: what no code for independent positions can beat."""

from __future__ import annotations

import math


def binary_entropy(probability: float) -> float:
    """H2(p) in bits; 0 at 0 and 1."""
    if probability in {0.0, 1.0}:
        return 0.0
    other = 1.0 - probability
    return -probability * math.log2(probability) - other * math.log2(other)


def entropy_bound_bits(elements: int, nonzeros: int, value_bits: int) -> float:
    """Elements x H2(density) + nonzeros x bits a value."""
    if not elements:
        return 0.0
    return elements * binary_entropy(nonzeros / elements) + nonzeros * value_bits
