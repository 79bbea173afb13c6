"""What pruned weights cost in the unit of a target: estimated weight by weight, and measured on the whole."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune import hardware
from onnxprune.memories import find_memory
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import run_pass
from onnxprune.storage import Storage
from passes.assign import AssignConstantsPass
from passes.pack import PackWeightsPass, packed_bytes
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from hwmodel.memory import Memory
    from onnxprune.recipe import Target
    from passes.weights import Weight


@dataclass(frozen=True)
class Costs:
    """How to count what a target limits: bytes of the packed file, of the blob, or fetch cycles.

    Attributes:
        target: what is to be reached; its unit is not ``elements``.
        source: file of the dense model.
        encoding: of the blob.
        memory: that it is fetched from.
    """

    target: Target
    source: Path
    encoding: str
    memory: Memory

    def of_weight(self, weight: Weight, array: NDArray[Any]) -> float:
        """What one weight adds to the total, with these values: nearly, where weights share a stream."""
        if self.target.unit == "packed_bytes":
            return packed_bytes(array)
        size = hardware.encoded_bytes(weight, array, self.encoding)
        return hardware.cycles_of(size, self.memory) if self.target.unit == "cycles" else size

    def measure(self, constants: Mapping[str, NDArray[Any]], names: Sequence[str]) -> float:
        """The total of the model with new constants, counted on what would be written.

        Args:
            constants: arrays by weight or initializer name.
            names: of the weights that go into the blob.
        """
        changed = load_model(self.source)
        run_pass(AssignConstantsPass(constants), changed)
        weights = [w for w in collect_weights(changed, embeddings=True).weights if w.name in names]
        if self.target.unit == "cycles":
            return sum(self.of_weight(weight, weight.array()) for weight in weights)
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            path = Path(folder) / "candidate"
            if self.target.unit == "blob_bytes":
                hardware.write_weights(weights, path, Storage(self.encoding))
                return path.stat().st_size
            save_model(changed, path)
            packed = load_model(path)
            run_pass(PackWeightsPass(), packed)
            return save_model(packed, path)


def costs_of(target: Target, source: Path, encoding: str, memory: str) -> Costs:
    """How to count towards a target.

    Args:
        target: in bytes or cycles.
        source: file of the dense model.
        encoding: of the blob, as ``encode`` takes it.
        memory: a name or a YAML file, as ``estimate`` takes it.

    Raises:
        RecipeError: for an encoding or memory that there is not.
    """
    hardware.check_encoding(encoding)
    return Costs(target, source, encoding, find_memory(memory))
