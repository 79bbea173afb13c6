"""The public functions: one for each command, usable without the command line."""

from __future__ import annotations

import contextlib
import importlib.util
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnxprune.accelerating import accelerate_model
from onnxprune.benching import bench
from onnxprune.blob_image import export
from onnxprune.compress import compress, search
from onnxprune.encoding import decode, encode
from onnxprune.errors import ModelError, RecipeError
from onnxprune.estimating import estimate
from onnxprune.files import check_parent
from onnxprune.in_memory import ModelSource, model_file, run_on_file, run_on_files
from onnxprune.inventory import report_of, weight_reports, zero_point_warnings
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import Check, PackOptions, pack_model, run_pass
from onnxprune.progress import counted, silent
from onnxprune.pruning import prune
from onnxprune.report import Report, describe_model
from onnxprune.runtime import Session
from onnxprune.shrinking import shrink_model
from onnxprune.verify import compare_models, samples_for
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from onnxprune.data import DataSource
    from onnxprune.progress import Progress
    from onnxprune.recipe import Recipe

__all__ = [
    "inspect",
    "prune",
    "search",
    "compress",
    "finetune",
    "pack",
    "unpack",
    "shrink",
    "accelerate",
    "bench",
    "encode",
    "decode",
    "export",
    "estimate",
    "verify",
]

PathLike = str | Path


def inspect(
    model: ModelSource, *, embeddings: bool = False, progress: Progress | None = None
) -> Report:
    """What can be pruned in a model, how sparse it is now, and why the rest is skipped.

    Args:
        model: path of an ONNX file, or a model in memory.
        embeddings: count embeddings among the weights.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError: when the model cannot be read.
    """

    def job(path: Path) -> Report:
        loaded = load_model(path)
        collection = collect_weights(loaded, embeddings=embeddings)
        weights = weight_reports(counted(collection.weights, "count", progress))
        warnings = zero_point_warnings(collection.weights)
        return report_of("inspect", path, loaded, collection, weights=weights, warnings=warnings)

    return run_on_file(model, job)


def finetune(
    model: ModelSource,
    data: DataSource,
    output: PathLike | None = None,
    recipe: Recipe | None = None,
    *,
    plan: PathLike | None = None,
    held_out: DataSource | None = None,
    validation: DataSource | None = None,
    teacher: ModelSource | None = None,
    checkpoint: PathLike | None = None,
    resume: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Train a model's own weights, pruning them on the way, and write the same graph with them.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        data: samples; labels where there are some, else the dense model is the teacher.
        output: path to write; with None the model made is in the report's ``output``.
        recipe: all settings; ``target`` must be a compression rate, without which zeros stay and the
            others recover.
        plan: JSON file with sparsity by weight or node, in place of a target.
        held_out: data to report on; a share of ``data`` when None.
        validation: data that choose the epoch; a share of ``data`` when None.
        teacher: the dense model to learn from, by path or in memory; the model as it comes in when
            None, unless that is pruned already and there are labels.
        checkpoint: file for checkpoints; beside ``output`` when None.
        resume: go on from the checkpoint.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        threads: of torch and onnxruntime.
        progress: called with a phase's name, its steps done, and the steps it has.

    Raises:
        RecipeError: when torch is not installed.
        OnnxPruneError: when an argument cannot be used, or training diverges.
    """
    if importlib.util.find_spec("torch") is None:
        msg = "fine-tuning needs torch; install it with `pip install onnxprune[torch]`"
        raise RecipeError(msg)
    from onnxprune.finetune import run

    def job(source: Path, target: Path) -> Report:
        with contextlib.ExitStack() as stack:
            dense = None if teacher is None else stack.enter_context(model_file(teacher))
            return run.finetune(
                source,
                data,
                target,
                recipe,
                plan=plan,
                held_out=held_out,
                validation=validation,
                teacher=dense,
                checkpoint=checkpoint,
                resume=resume,
                device=device,
                threads=threads,
                progress=progress,
            )

    return run_on_files(model, output, job)


def pack(
    model: ModelSource,
    output: PathLike | None = None,
    *,
    values: str = "keep",
    positions: str = "auto",
    runtime: Literal["onnxruntime", "openvino", "reference"] = "onnxruntime",
    opset: int | None = None,
    freeze_inputs: bool = False,
    large: bool = False,
    data: DataSource | None = None,
    samples: int = 8,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write a model whose sparse weights standard operators expand when it is loaded.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
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
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, RecipeError, DataError, OutputError: when one of the arguments cannot be used.
    """
    options = PackOptions(values, positions, runtime, opset, freeze_inputs, large)
    check = Check(data, samples, seed, threads, progress)
    return run_on_files(
        model, output, lambda source, target: pack_model(source, target, options, check)
    )


def shrink(
    model: ModelSource,
    output: PathLike | None = None,
    *,
    channel_multiple: int = 4,
    data: DataSource | None = None,
    samples: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Write the model without the channels that cannot change any output.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
        channel_multiple: images keep a multiple of so many channels, for which some dead ones stay:
            onnxruntime's fast convolutions need a multiple of 4. With 1 all that is dead goes.
        data: what both models are compared on; seeded random inputs when None.
        samples: how many random samples.
        seed: of the random inputs.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, DataError, OutputError: when one of the arguments cannot be used.
    """
    check = Check(data, samples, seed, progress=progress)
    return run_on_files(
        model, output, lambda source, target: shrink_model(source, target, check, channel_multiple)
    )


def accelerate(
    model: ModelSource,
    output: PathLike | None = None,
    *,
    rows: int = 64,
    data: DataSource | None = None,
    samples: int = 8,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Write the model with its sparse products as operators of the kernels, where these win.

    The file runs in any onnxruntime; it is faster where :func:`onnxprune.kernels.register` was called on the
    session's options.

    Args:
        model: path of a pruned float32 model, or one in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
        rows: of activations (batch times sequence) to expect where the model leaves them open.
        data: what both models are compared on; seeded random inputs when None.
        samples: how many random samples.
        seed: of the random inputs.
        threads: of onnxruntime.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, DataError, OutputError, RecipeError: when one of the arguments cannot be used.
    """
    if rows < 1:
        msg = f"rows of activations must be at least 1, found {rows}"
        raise RecipeError(msg)
    check = Check(data, samples, seed, threads=threads, progress=progress)
    return run_on_files(
        model, output, lambda source, target: accelerate_model(source, target, check, rows)
    )


def unpack(
    model: ModelSource, output: PathLike | None = None, *, progress: Progress | None = None
) -> Report:
    """Write the dense model with zeros that a packed model stands for, bit for bit.

    Args:
        model: path of a packed ONNX file, or such a model in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError: when the model cannot be read, is not packed or is damaged.
        OutputError: when the result cannot be written.
    """

    def job(source: Path, target: Path) -> Report:
        check_parent(target)
        loaded = load_model(source)
        run_pass(UnpackWeightsPass(), loaded)
        save_model(loaded, target, progress=partial(progress or silent, "write"))
        return report_of("unpack", source, loaded, collect_weights(loaded))

    return run_on_files(model, output, job)


def verify(
    reference: ModelSource,
    candidate: ModelSource,
    *,
    data: DataSource | None = None,
    samples: int = 8,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    seed: int = 0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compare the outputs of two models in onnxruntime.

    Args:
        reference: the model that is right, by path or in memory.
        candidate: the model to compare with it, likewise.
        data: what to run; seeded random inputs when None.
        samples: how many random samples.
        rtol: relative tolerance; with ``atol`` zero too, outputs must be equal bit for bit.
        atol: absolute tolerance.
        seed: of the random inputs.
        threads: of onnxruntime.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, DataError: when a model or the data cannot be used.
    """

    def job(path: Path, other: Path) -> Report:
        loaded = load_model(path)
        load_model(other)
        sessions = [Session(model, threads=threads) for model in (path, other)]
        specs = sessions[0].inputs
        if sessions[1].inputs != specs or sessions[1].outputs != sessions[0].outputs:
            msg = f"'{path}' and '{other}' differ in their inputs or outputs; compare models of one interface"
            raise ModelError(msg)
        loaded_data = samples_for(sessions[0], data, samples, seed)
        warnings = (
            () if data is not None else ("compared on random inputs; give --data for real ones",)
        )
        reference_session, candidate_session = sessions
        verification = compare_models(
            reference_session,
            candidate_session,
            loaded_data,
            rtol=rtol,
            atol=atol,
            progress=progress,
        )
        return Report(
            "verify",
            describe_model(path, loaded),
            seed=seed,
            verification=verification,
            warnings=warnings,
        )

    with model_file(candidate) as other:
        return run_on_file(reference, lambda path: job(path, other))
