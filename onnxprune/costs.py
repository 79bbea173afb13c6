"""What pruned weights cost in the unit of a target: estimated weight by weight, and measured on the whole."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune import hardware
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import run_pass
from passes.assign import AssignConstantsPass
from passes.pack import PackWeightsPass, packed_bytes
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxprune.recipe import Target
    from onnxprune.recipe_sections import Unit
    from onnxprune.target_hardware import TargetHardware
    from passes.weights import Weight


CostOf = Callable[["Weight", "NDArray[Any]"], float]
"""The cost of a weight whose array, in stored order, has been pruned."""


def weight_cost(unit: Unit, target: TargetHardware) -> CostOf:
    """What one weight adds to a total in a unit: nearly, where weights share a stream.

    Args:
        unit: all but ``elements``.
        target: how the blob is stored, and from where it is fetched.
    """
    storage, one = target.storage, target.space.only
    if unit == "packed_bytes":
        return lambda _, array: packed_bytes(array)
    if unit == "cycles":
        return lambda weight, array: hardware.fetch_cycles(weight, array, storage, one)
    return lambda weight, array: hardware.encoded_bytes(weight, array, storage)


@dataclass(frozen=True)
class Costs:
    """How to count what a target limits: bytes of the packed file, of the blob, or fetch cycles.

    Attributes:
        target: what is to be reached; its unit is not ``elements``.
        source: file of the dense model.
        hardware: how the blob is stored, and from where it is fetched.
    """

    target: Target
    source: Path
    hardware: TargetHardware

    def of_weight(self, weight: Weight, array: NDArray[Any]) -> float:
        """What one weight adds to the total, with these values: nearly, where weights share a stream."""
        return weight_cost(self.target.unit, self.hardware)(weight, array)

    def measure(self, constants: Mapping[str, NDArray[Any]], names: Sequence[str]) -> float:
        """The total of the model with new constants, counted on what would be written.

        Args:
            constants: arrays by weight or initializer name.
            names: of the weights that go into the blob.
        """
        changed = load_model(self.source)
        run_pass(AssignConstantsPass(constants), changed)
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            path = Path(folder) / "candidate"
            if self.target.unit == "packed_bytes":
                save_model(changed, path)
                packed = load_model(path)
                run_pass(PackWeightsPass(), packed)
                return save_model(packed, path)
            found = collect_weights(changed, embeddings=True).weights
            weights = [weight for weight in found if weight.name in names]
            hardware.write_weights(weights, path, self.hardware.storage)
            if self.target.unit == "blob_bytes":
                return path.stat().st_size
            fetched = hardware.fetch_costs(path, self.hardware.space)
            return sum(own.cycles for _, own in fetched.values())
