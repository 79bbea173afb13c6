"""Exact removal of dead structure: what pruning left without any say in the outputs."""

from passes.shrink.count import Size, size_of
from passes.shrink.rewrite import RULES, ShrinkPass

__all__ = ["RULES", "ShrinkPass", "Size", "size_of"]
