"""The public functions: one for each command, usable without the command line."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from onnxprune import hardware
from onnxprune.blob_image import export
from onnxprune.compress import compress, search
from onnxprune.data import load_data
from onnxprune.design_space import AUTO, explore, make_design_space, with_points
from onnxprune.errors import ModelError, RecipeError
from onnxprune.files import check_parent
from onnxprune.in_memory import ModelSource, model_file, run_on_file, run_on_files
from onnxprune.inventory import report_of, totals_of, weight_reports
from onnxprune.memories import DEFAULT_MEMORY, find_memories, find_memory
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import Check, PackOptions, pack_model, run_pass
from onnxprune.pruning import prune
from onnxprune.report import Report, WeightReport, describe_file, describe_model
from onnxprune.runtime import Session
from onnxprune.shrinking import shrink_model
from onnxprune.storage import make_storage
from onnxprune.verify import compare_models, random_samples
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.data import DataSource
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
    "encode",
    "decode",
    "export",
    "estimate",
    "verify",
]

PathLike = str | Path


def inspect(model: ModelSource, *, embeddings: bool = False) -> Report:
    """What can be pruned in a model, how sparse it is now, and why the rest is skipped.

    Args:
        model: path of an ONNX file, or a model in memory.
        embeddings: count embeddings among the weights.

    Raises:
        ModelError: when the model cannot be read.
    """

    def job(path: Path) -> Report:
        loaded = load_model(path)
        collection = collect_weights(loaded, embeddings=embeddings)
        return report_of("inspect", path, loaded, collection)

    return run_on_file(model, job)


def finetune(
    model: ModelSource,
    data: DataSource,
    output: PathLike | None = None,
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

    return run_on_files(
        model,
        output,
        lambda source, target: run.finetune(source, data, target, recipe, **options),
    )


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

    Raises:
        ModelError, RecipeError, DataError, OutputError: when one of the arguments cannot be used.
    """
    options = PackOptions(values, positions, runtime, opset, freeze_inputs, large)
    check = Check(data, samples, seed, threads)
    return run_on_files(
        model, output, lambda source, target: pack_model(source, target, options, check)
    )


def shrink(
    model: ModelSource,
    output: PathLike | None = None,
    *,
    data: DataSource | None = None,
    samples: int = 8,
    seed: int = 0,
) -> Report:
    """Write the model without the channels that cannot change any output.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
        data: what both models are compared on; seeded random inputs when None.
        samples: how many random samples.
        seed: of the random inputs.

    Raises:
        ModelError, DataError, OutputError: when one of the arguments cannot be used.
    """
    check = Check(data, samples, seed)
    return run_on_files(model, output, lambda source, target: shrink_model(source, target, check))


def unpack(model: ModelSource, output: PathLike | None = None) -> Report:
    """Write the dense model with zeros that a packed model stands for, bit for bit.

    Raises:
        ModelError: when the model cannot be read, is not packed or is damaged.
        OutputError: when the result cannot be written.
    """

    def job(source: Path, target: Path) -> Report:
        check_parent(target)
        loaded = load_model(source)
        run_pass(UnpackWeightsPass(), loaded)
        save_model(loaded, target)
        return report_of("unpack", source, loaded, collect_weights(loaded))

    return run_on_files(model, output, job)


def encode(
    model: ModelSource,
    output: PathLike,
    *,
    encoding: str = AUTO,
    chunk: int | None = None,
    align: int = 1,
    decoder: Sequence[str] = (),
    decoder_lanes: int = 1,
    decoder_width: int = 1,
    memory: str | None = None,
    embeddings: bool = False,
) -> Report:
    """Write the weights of a model as a blob for hardware.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        output: path of the blob to write.
        encoding: its name, ``auto`` for the fewest bytes of each weight, or ``auto-cycles`` for the
            fewest cycles of fetching and decoding it.
        chunk: weights of a chunk that decodes on its own, 0 for one chunk; None takes 1024 with
            ``auto-cycles``, else one chunk.
        align: chunks begin at multiples of so many bytes, a power of two.
        decoder: names of the encodings that the hardware's decoder knows; empty for all.
        decoder_lanes: lanes of the decoder, for ``auto-cycles``.
        decoder_width: values that a lane places in a clock, for ``auto-cycles``.
        memory: by name or YAML file, for ``auto-cycles``.
        embeddings: encode embeddings too.

    Raises:
        ModelError, RecipeError, OutputError: when one of the arguments cannot be used.
    """
    target, known = Path(output), tuple(decoder)
    space = make_design_space(
        [find_memory(memory or DEFAULT_MEMORY)],
        decoder=known,
        decoder_lanes=[decoder_lanes],
        decoder_width=decoder_width,
    )
    storage = make_storage(
        encoding,
        chunk=chunk,
        align=align,
        decoder=known,
        hardware=None if memory is None else space.only,
    )
    check_parent(target)

    def job(source: Path) -> Report:
        loaded = load_model(source)
        collection = collect_weights(loaded, embeddings=embeddings)
        hardware.write_weights(collection.weights, target, storage)
        weights = hardware.with_blob(weight_reports(collection.weights), target)
        totals = totals_of(weights, blob_bytes=target.stat().st_size)
        return report_of("encode", source, loaded, collection, weights=weights, totals=totals)

    return run_on_file(model, job)


def decode(blob: PathLike, output: PathLike) -> None:
    """Decode a blob to an ``.npz`` with one array for each weight, bit for bit.

    Raises:
        BlobError, OutputError: when the blob is damaged, or the result cannot be written.
    """
    check_parent(Path(output))
    hardware.write_npz(hardware.read_weights(Path(blob)), Path(output))


def estimate(
    source: ModelSource,
    *,
    memory: str = DEFAULT_MEMORY,
    encoding: str | None = None,
    decoder_lanes: Sequence[int] = (),
    decoder_width: int = 1,
    chunk: int | None = None,
    align: int = 1,
    decoder: Sequence[str] = (),
    compute_lanes: int = 0,
    clock_ratio: float = 1.0,
    buffers: int = 2,
    buffer_bytes: int = 4096,
    embeddings: bool = False,
) -> Report:
    """The cycles that fetching each weight of a model or a blob takes, against dense.

    Every memory is combined with every encoding and every number of lanes. With one combination the
    report has the figures by weight; with several it has ``points``.

    Args:
        source: path of a model or a blob.
        memory: names of memories, or YAML files of the user's own, separated by commas.
        encoding: names separated by commas, ``auto`` (fewest bytes; also when None) or
            ``auto-cycles``; a blob's tensors stay as they are.
        decoder_lanes: numbers of lanes of the decoder; none leaves decoding out.
        decoder_width: values that a lane places in a clock.
        chunk: weights of a chunk; None: 1024 with a decoder, all without.
        align: chunks begin at multiples of so many bytes, a power of two.
        decoder: names of the encodings that the hardware's decoder knows; empty for all.
        compute_lanes: units that take a nonzero weight a clock; 0 leaves them out.
        clock_ratio: clocks of decoder and compute units in a clock of the memory.
        buffers: 1 single, 2 double buffering, more for deeper prefetch.
        buffer_bytes: size of one.
        embeddings: estimate embeddings too.

    Raises:
        ModelError, BlobError, RecipeError: when one of the arguments cannot be used.
    """
    space = make_design_space(
        find_memories(memory),
        encoding=encoding or AUTO,
        decoder_lanes=decoder_lanes,
        decoder_width=decoder_width,
        chunk=chunk,
        align=align,
        decoder=tuple(decoder),
        compute_lanes=compute_lanes,
        clock_ratio=clock_ratio,
        buffers=buffers,
        buffer_bytes=buffer_bytes,
    )

    def job(path: Path) -> Report:
        if hardware.is_blob(path):
            if encoding is not None or chunk is not None or align != 1 or decoder:
                msg = f"'{path}' is a blob, whose tensors are encoded already; leave encoding, chunk, align and decoder out"
                raise RecipeError(msg)
            weights: list[WeightReport] = []
            explored = explore(hardware.blob_tensors(path, weights), space)
            report = Report("estimate", describe_file(path), weights=tuple(weights))
            return with_points(report, explored, space)
        loaded = load_model(path)
        collection = collect_weights(loaded, embeddings=embeddings)
        explored = explore((hardware.tensor_of(weight) for weight in collection.weights), space)
        return with_points(report_of("estimate", path, loaded, collection), explored, space)

    return run_on_file(source, job)


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
        loaded_data = (
            random_samples(sessions[0], samples, seed) if data is None else load_data(data, specs)
        )
        warnings = (
            () if data is not None else ("compared on random inputs; give --data for real ones",)
        )
        verification = compare_models(sessions[0], sessions[1], loaded_data, rtol=rtol, atol=atol)
        return Report(
            "verify",
            describe_model(path, loaded),
            seed=seed,
            verification=verification,
            warnings=warnings,
        )

    with model_file(candidate) as other:
        return run_on_file(reference, lambda path: job(path, other))
