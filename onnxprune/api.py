"""The public functions: one for each command, usable without the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
from threadpoolctl import threadpool_limits

from onnxprune import hardware
from onnxprune.compress import compress, search
from onnxprune.data import load_data, random_data
from onnxprune.errors import ModelError, RecipeError
from onnxprune.files import check_parent
from onnxprune.inventory import skipped_reports, totals_of, weight_reports
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.one_shot import OneShot, prune_one_shot
from onnxprune.plan import load_plan
from onnxprune.report import Report, describe_file, describe_model
from onnxprune.runtime import Session
from onnxprune.selection import select
from onnxprune.verify import compare_models
from passes.assign import AssignConstantsPass
from passes.pack import PackWeightsPass, packed_names
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnxprune.data import DataSource
    from passes.weights import Collection

__all__ = [
    "inspect",
    "prune",
    "search",
    "compress",
    "pack",
    "encode",
    "decode",
    "estimate",
    "verify",
]

PathLike = str | Path


def inspect(model: PathLike) -> Report:
    """What can be pruned in a model, how sparse it is now, and why the rest is skipped.

    Raises:
        ModelError: when the model cannot be read.
    """
    loaded = load_model(model)
    return _report("inspect", Path(model), loaded, collect_weights(loaded))


def prune(
    model: PathLike,
    output: PathLike,
    *,
    sparsity: float | None = None,
    plan: PathLike | None = None,
    data: DataSource | None = None,
    options: OneShot | None = None,
    nodes_to_exclude: Sequence[str] = (),
    op_types_to_prune: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Prune in one shot, without search and without labels, and write the model, dense with zeros.

    Args:
        model: path of an ONNX file.
        output: path to write.
        sparsity: share of all prunable weights to set to zero, 0 to 1; an N:M pattern needs none.
        plan: JSON file with sparsity by weight or node name, instead of ``sparsity``.
        data: calibration samples (see :mod:`onnxprune.data`), all of which are used up to 1,024;
            ``"random"`` for seeded random inputs. Magnitude needs none.
        options: method, allocation, pattern and the rest; magnitude with ``uniform`` when None.
        nodes_to_exclude: nodes or weights to leave dense.
        op_types_to_prune: prune only weights that these operators read.
        threads: of onnxruntime and of linear algebra.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, RecipeError, DataError, OutputError: when one of the arguments cannot be used.
    """
    options = options or OneShot()
    source = Path(model)
    check_parent(Path(output))
    loaded = load_model(source)
    collection = select(collect_weights(loaded), nodes_to_exclude, op_types_to_prune)
    if sparsity is not None and plan is not None:
        msg = "give either a sparsity (--sparsity) or a plan (--plan), not both"
        raise RecipeError(msg)
    with threadpool_limits(threads, user_api="blas"):
        pruned = prune_one_shot(
            loaded,
            collection.weights,
            options,
            sparsity=sparsity,
            keep=None if plan is None else load_plan(Path(plan), collection.weights).keep,
            data=data,
            threads=threads,
            progress=progress,
        )
    run_pass(AssignConstantsPass(pruned.constants), loaded)
    save_model(loaded, output)
    weights = tuple(
        replace(weight, pattern=options.pattern) for weight in weight_reports(collection.weights)
    )
    return _report(
        "prune",
        source,
        loaded,
        collection,
        seed=options.seed,
        weights=weights,
        methods=pruned.methods,
        warnings=pruned.warnings,
    )


def pack(model: PathLike, output: PathLike) -> Report:
    """Write a model whose sparse weights standard operators expand when it is loaded.

    Raises:
        ModelError: when the model cannot be read, or its opset is too old for packing.
        OutputError: when the result cannot be written.
    """
    source = Path(model)
    check_parent(Path(output))
    loaded = load_model(source)
    collection = collect_weights(loaded)
    report = _report("pack", source, loaded, collection)
    run_pass(PackWeightsPass(), loaded)
    warnings = (
        () if packed_names(loaded) else ("no weight gets smaller by packing; is the model pruned?",)
    )
    save_model(loaded, output)
    totals = totals_of(report.weights or (), packed_bytes=len(model_bytes(loaded)))
    return _report("pack", source, load_model(source), collection, totals=totals, warnings=warnings)


def encode(model: PathLike, output: PathLike, *, encoding: str = hardware.AUTO) -> Report:
    """Write the weights of a model as a blob for hardware.

    Raises:
        ModelError, RecipeError, OutputError: when one of the arguments cannot be used.
    """
    source, target = Path(model), Path(output)
    hardware.check_encoding(encoding)
    check_parent(target)
    loaded = load_model(source)
    collection = collect_weights(loaded)
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
    loaded_data = random_data(specs, samples, seed) if data is None else load_data(data, specs)
    warnings = () if data is not None else ("compared on random inputs; give --data for real ones",)
    verification = compare_models(sessions[0], sessions[1], loaded_data, rtol=rtol, atol=atol)
    return Report(
        "verify",
        describe_model(path, loaded),
        seed=seed,
        verification=verification,
        warnings=warnings,
    )


def run_pass(step: ir.passes.InPlacePass, model: ir.Model) -> None:
    """Run a pass; its refusal becomes our own error.

    Raises:
        ModelError: with the pass's sentence.
    """
    try:
        step(model)
    except ir.passes.PreconditionError as error:
        raise ModelError(str(error)) from error


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
