"""What a run delivers beside the pruned model, and the proof that all of it says the same."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from onnxprune import hardware
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.packing import run_pass
from onnxprune.report import TargetReport
from onnxprune.runtime import Session
from onnxprune.verify import compare_models, folds_wholly, with_checks
from passes.pack import MIN_OPSET, PackWeightsPass
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import onnx_ir as ir

    from onnxprune.data import Dataset
    from onnxprune.progress import Progress
    from onnxprune.recipe import Recipe
    from onnxprune.report import Totals, Verification


@dataclass(frozen=True)
class Written:
    """Files that stand for one pruned model.

    Attributes:
        model: dense with zeros.
        packed: the packed model, where there is one.
        blob: the encoded weights, where they were written.
        lossy: whether the packed model holds other values than the pruned one, on purpose.
    """

    model: Path
    packed: Path | None = None
    blob: Path | None = None
    lossy: bool = False


def too_old_to_pack(model: ir.Model) -> str | None:
    """Why a model cannot be packed as it is, for the report; None where it can."""
    opset = model.opset_imports.get("", 0)
    if opset >= MIN_OPSET:
        return None
    return (
        f"no packed model: its weights would be rebuilt by operators of opset {MIN_OPSET} or later, the model has "
        f"opset {opset}; `onnxprune pack --opset 13` converts it"
    )


def write_packed(model: Path, packed: Path, progress: Progress) -> bool:
    """Write the packed model; False where the model's opset is too old for it."""
    loaded = load_model(model)
    if too_old_to_pack(loaded):
        return False
    PackWeightsPass(progress=partial(progress, "pack"))(loaded)
    save_model(loaded, packed)
    return True


def verify_written(
    written: Written,
    names: Sequence[str],
    samples: Dataset,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Compare what was written with what was meant, bit for bit.

    Args:
        written: the files.
        names: of the weights that the blob must hold.
        samples: to run the models on.
        threads: of onnxruntime.
        progress: told of samples that each model has run.
    """
    pruned = Session(written.model, threads=threads)
    meant, other, checks = pruned, pruned, {}
    if written.packed is not None:
        other = Session(written.packed, threads=threads)
        if written.lossy:
            unpacked = load_model(written.packed)
            run_pass(UnpackWeightsPass(), unpacked)
            meant = Session(model_bytes(unpacked), threads=threads)
    compared = compare_models(meant, other, samples, rtol=0.0, atol=0.0, progress=progress)
    if written.blob is not None:
        stored = {w.name: w.array() for w in collect_weights(load_model(written.model)).weights}
        decoded = hardware.read_weights(written.blob)
        checks["blob_equals_initializers"] = hardware.same_bits(
            decoded, {name: stored[name] for name in names}
        )
    if written.packed is not None:
        meaning = "unpacked" if written.lossy else "pruned"
        checks[f"packed_outputs_equal_{meaning}"] = compared.passed
        checks["packed_folds_wholly"] = folds_wholly(written.packed)
    return with_checks(compared, checks)


def target_report(recipe: Recipe, totals: Totals) -> TargetReport | None:
    """What the recipe's target came to; None where it has none, or nothing measured it."""
    target = recipe.parsed_target
    if target is None:
        return None
    reached = {
        "elements": totals.compression_rate,
        "packed_bytes": totals.packed_bytes,
        "blob_bytes": totals.blob_bytes,
        "cycles": totals.fetch_cycles,
    }[target.unit]
    if reached is None:
        return None
    return TargetReport(target.text, target.unit, reached, target.met(reached))
