"""What a recipe says of the hardware: how weights are stored for it, and how it fetches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.design_space import make_design_space
from onnxprune.memories import find_memory
from onnxprune.storage import make_storage

if TYPE_CHECKING:
    from onnxprune.design_space import DesignSpace
    from onnxprune.recipe import Recipe
    from onnxprune.storage import Storage


@dataclass(frozen=True)
class TargetHardware:
    """The hardware of a recipe.

    Attributes:
        storage: how weights are stored.
        space: of one point: its memory, its decoder and what stands behind it.
    """

    storage: Storage
    space: DesignSpace


def target_hardware(recipe: Recipe) -> TargetHardware:
    """The hardware of a recipe.

    Raises:
        RecipeError: when there is no such memory.
    """
    encode, estimate = recipe.encode, recipe.estimate
    lanes = estimate.decoder_lanes
    space = make_design_space(
        [find_memory(estimate.memory)],
        encoding=encode.encoding,
        decoder_lanes=() if lanes is None else (lanes,),
        decoder_width=estimate.decoder_width,
        chunk=encode.chunk,
        align=encode.align,
        decoder=encode.decoder,
        compute_lanes=estimate.compute_lanes,
        clock_ratio=estimate.clock_ratio,
        buffers=estimate.buffers,
        buffer_bytes=estimate.buffer_bytes,
    )
    storage = make_storage(
        encode.encoding,
        chunk=encode.chunk if lanes is None else space.chunk_weights,
        align=encode.align,
        decoder=encode.decoder,
        hardware=space.only,
    )
    return TargetHardware(storage, space)
