"""The public functions: one for each command, usable without the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxprune import hardware
from onnxprune.compress import compress, search
from onnxprune.data import load_data
from onnxprune.errors import ModelError, RecipeError
from onnxprune.files import check_parent
from onnxprune.inventory import skipped_reports, totals_of, weight_reports
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import Check, PackOptions, pack_model, run_pass
from onnxprune.plan import Plan, load_plan
from onnxprune.report import Report, describe_file, describe_model
from onnxprune.runtime import Session
from onnxprune.selection import select
from onnxprune.verify import compare_models, random_samples
from passes.allocation import uniform
from passes.magnitude import PruneByMagnitudePass, global_keep
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxprune.data import DataSource
    from onnxprune.recipe import Recipe
    from passes.weights import Collection

__all__ = [
    "inspect",
    "prune",
    "search",
    "compress",
    "finetune",
    "pack",
    "unpack",
    "encode",
    "decode",
    "estimate",
    "verify",
]

PathLike = str | Path


def inspect(model: PathLike, *, embeddings: bool = False) -> Report:
    """What can be pruned in a model, how sparse it is now, and why the rest is skipped.

    Args:
        model: path of an ONNX file.
        embeddings: count embeddings among the weights.

    Raises:
        ModelError: when the model cannot be read.
    """
    loaded = load_model(model)
    collection = collect_weights(loaded, embeddings=embeddings)
    return _report("inspect", Path(model), loaded, collection)


def prune(
    model: PathLike,
    output: PathLike,
    *,
    sparsity: float | None = None,
    plan: PathLike | None = None,
    allocation: Literal["uniform", "global"] = "uniform",
    nodes_to_exclude: Sequence[str] = (),
    op_types_to_prune: Sequence[str] | None = None,
    embeddings: bool = False,
) -> Report:
    """Prune by magnitude in one pass and write the model, dense with zeros.

    Args:
        model: path of an ONNX file.
        output: path to write.
        sparsity: share of all prunable weights to set to zero, 0 to 1.
        plan: JSON file with sparsity by weight or node name, instead of ``sparsity``.
        allocation: how ``sparsity`` is shared: the same everywhere, or one global threshold.
        nodes_to_exclude: nodes or weights to leave dense.
        op_types_to_prune: prune only weights that these operators read.
        embeddings: prune embeddings too.

    Raises:
        ModelError, RecipeError, OutputError: when one of the arguments cannot be used.
    """
    source = Path(model)
    check_parent(Path(output))
    loaded = load_model(source)
    found = collect_weights(loaded, embeddings=embeddings)
    collection = select(found, nodes_to_exclude, op_types_to_prune)
    chosen = _plan(collection, sparsity, plan, allocation)
    run_pass(PruneByMagnitudePass(chosen.keep), loaded)
    save_model(loaded, output)
    methods = {"saliency": "magnitude", "allocation": "plan" if plan else allocation}
    return _report("prune", source, loaded, collection, methods=methods)


def finetune(
    model: PathLike,
    data: DataSource,
    output: PathLike,
    recipe: Recipe | None = None,
    **options: Any,
) -> Report:
    """Train a model's own weights, pruning them on the way, and write the same graph with them.

    Arguments and errors are those of :func:`onnxprune.finetune.run.finetune`, which needs torch.

    Raises:
        RecipeError: when torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        msg = "fine-tuning needs torch; install it with `pip install onnxprune[torch]`"
        raise RecipeError(msg)
    from onnxprune.finetune import run

    return run.finetune(model, data, output, recipe, **options)


def pack(
    model: PathLike,
    output: PathLike,
    *,
    values: str = "keep",
    positions: str = "auto",
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime",
    opset: int | None = None,
    freeze_inputs: bool = False,
    large: bool = False,
    data: DataSource | None = None,
    samples: int = 8,
    seed: int = 0,
    threads: int | None = None,
) -> Report:
    """Write a model whose sparse weights standard operators expand when it is loaded.

    Args:
        model: path of an ONNX file.
        output: path to write.
        values: how values are stored: ``keep``, bit for bit; or with a loss, which is then measured
            on ``data`` and reported: ``float16``, ``int8`` (a scale for each output channel), or
            ``codebookK`` with K of 2 to 256 values for each weight.
        positions: ``auto``, or always ``bitmask``, ``delta`` or ``rice``.
        runtime: whose constant folding the steps are made for.
        opset: convert the model to this opset first.
        freeze_inputs: pack also weights that are inputs of the model too; they stop being inputs.
        large: pack also weights that onnxruntime folds only with a session option set.
        data: what a loss is measured on; seeded random inputs when None.
        samples: how many random samples.
        seed: of the random inputs.
        threads: of onnxruntime.

    Raises:
        ModelError, RecipeError, DataError, OutputError: when one of the arguments cannot be used.
    """
    options = PackOptions(values, positions, runtime, opset, freeze_inputs, large)
    check = Check(data, samples, seed, threads)
    return pack_model(Path(model), Path(output), options, check)


def unpack(model: PathLike, output: PathLike) -> Report:
    """Write the dense model with zeros that a packed model stands for, bit for bit.

    Raises:
        ModelError: when the model cannot be read, is not packed or is damaged.
        OutputError: when the result cannot be written.
    """
    source = Path(model)
    check_parent(Path(output))
    loaded = load_model(source)
    run_pass(UnpackWeightsPass(), loaded)
    save_model(loaded, output)
    return _report("unpack", source, loaded, collect_weights(loaded))


def encode(
    model: PathLike,
    output: PathLike,
    *,
    encoding: str = hardware.AUTO,
    embeddings: bool = False,
) -> Report:
    """Write the weights of a model as a blob for hardware.

    Args:
        model: path of an ONNX file.
        output: path to write.
        encoding: its name, or ``auto`` for the fewest bytes of each weight.
        embeddings: encode embeddings too.

    Raises:
        ModelError, RecipeError, OutputError: when one of the arguments cannot be used.
    """
    source, target = Path(model), Path(output)
    hardware.check_encoding(encoding)
    check_parent(target)
    loaded = load_model(source)
    collection = collect_weights(loaded, embeddings=embeddings)
    hardware.write_weights(collection.weights, target, encoding)
    weights = hardware.with_blob(weight_reports(collection.weights), target)
    totals = totals_of(weights, blob_bytes=target.stat().st_size)
    return _report("encode", source, loaded, collection, weights=weights, totals=totals)


def decode(blob: PathLike, output: PathLike) -> None:
    """Decode a blob to an ``.npz`` with one array for each weight, bit for bit.

    Raises:
        BlobError, OutputError: when the blob is damaged, or the result cannot be written.
    """
    check_parent(Path(output))
    hardware.write_npz(hardware.read_weights(Path(blob)), Path(output))


def estimate(
    source: PathLike, *, memory: str = "ddr4-2400", encoding: str = hardware.AUTO
) -> Report:
    """The cycles that fetching each weight of a model or a blob takes, against dense.

    Raises:
        ModelError, BlobError, RecipeError: when one of the arguments cannot be used.
    """
    hardware.check_encoding(encoding)
    spec = hardware.find_memory(memory)
    path = Path(source)
    if hardware.is_blob(path):
        weights = hardware.blob_weights(path, spec)
        model = describe_file(path)
        return Report(
            "estimate",
            model,
            weights=weights,
            totals=totals_of(weights),
            memory=hardware.describe(spec),
        )
    loaded = load_model(path)
    collection = collect_weights(loaded)
    weights = hardware.with_fetch(
        hardware.with_encoding(weight_reports(collection.weights), collection.weights, encoding),
        spec,
    )
    return _report(
        "estimate", path, loaded, collection, weights=weights, memory=hardware.describe(spec)
    )


def verify(
    reference: PathLike,
    candidate: PathLike,
    *,
    data: DataSource | None = None,
    samples: int = 8,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    seed: int = 0,
    threads: int | None = None,
) -> Report:
    """Compare the outputs of two models in onnxruntime.

    Args:
        reference: path of the model that is right.
        candidate: path of the model to compare with it.
        data: what to run; seeded random inputs when None.
        samples: how many random samples.
        rtol: relative tolerance; with ``atol`` zero too, outputs must be equal bit for bit.
        atol: absolute tolerance.
        seed: of the random inputs.
        threads: of onnxruntime.

    Raises:
        ModelError, DataError: when a model or the data cannot be used.
    """
    path = Path(reference)
    loaded = load_model(path)
    load_model(candidate)
    sessions = [Session(Path(model), threads=threads) for model in (reference, candidate)]
    specs = sessions[0].inputs
    if sessions[1].inputs != specs or sessions[1].outputs != sessions[0].outputs:
        msg = f"'{reference}' and '{candidate}' differ in their inputs or outputs; compare models of one interface"
        raise ModelError(msg)
    loaded_data = (
        random_samples(sessions[0], samples, seed) if data is None else load_data(data, specs)
    )
    warnings = () if data is not None else ("compared on random inputs; give --data for real ones",)
    verification = compare_models(sessions[0], sessions[1], loaded_data, rtol=rtol, atol=atol)
    return Report(
        "verify",
        describe_model(path, loaded),
        seed=seed,
        verification=verification,
        warnings=warnings,
    )


def _plan(
    collection: Collection, sparsity: float | None, plan: PathLike | None, allocation: str
) -> Plan:
    if (sparsity is None) == (plan is None):
        msg = "give either a sparsity (--sparsity) or a plan (--plan)"
        raise RecipeError(msg)
    if plan is not None:
        return load_plan(Path(plan), collection.weights)
    assert sparsity is not None
    if not 0 <= sparsity <= 1:  # NaN fails this too
        msg = f"sparsity must lie between 0 and 1, found {sparsity}"
        raise RecipeError(msg)
    elements = {weight.name: weight.elements for weight in collection.weights}
    if allocation == "uniform":
        return Plan(uniform(elements, sparsity), elements)
    return Plan(global_keep(collection.weights, sparsity), elements)


def _report(
    command: str, path: Path, model: ir.Model, collection: Collection, **parts: Any
) -> Report:
    weights = parts.pop("weights", None) or weight_reports(collection.weights)
    totals = parts.pop("totals", None) or totals_of(weights)
    return Report(
        command,
        describe_model(path, model),
        weights=weights,
        skipped=skipped_reports(collection),
        totals=totals,
        **parts,
    )
