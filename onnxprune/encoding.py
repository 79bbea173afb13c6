"""The ``encode`` and ``decode`` commands: from a model to a weight blob, and from a blob to arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune import hardware
from onnxprune.design_space import AUTO, make_design_space
from onnxprune.files import check_parent
from onnxprune.in_memory import ModelSource, run_on_file
from onnxprune.inventory import report_of, totals_of, weight_reports
from onnxprune.memories import DEFAULT_MEMORY, find_memory
from onnxprune.model_io import load_model
from onnxprune.report import Report, WeightReport, describe_file
from onnxprune.storage import make_storage
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.progress import Progress

PathLike = str | Path


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
    progress: Progress | None = None,
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
        progress: called with a step's name, how much of it is done, and how much there is.

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
        hardware.write_weights(collection.weights, target, storage, progress)
        weights = hardware.with_blob(weight_reports(collection.weights), target)
        totals = totals_of(weights, blob_bytes=target.stat().st_size)
        return report_of("encode", source, loaded, collection, weights=weights, totals=totals)

    return run_on_file(model, job)


def decode(blob: PathLike, output: PathLike, *, progress: Progress | None = None) -> Report:
    """Decode a blob to an ``.npz`` with one array for each weight, bit for bit.

    Args:
        blob: path of a ``.swb`` file.
        output: path of the ``.npz`` to write.
        progress: called with a step's name, how much of it is done, and how much there is.

    Returns:
        What the blob holds, weight by weight.

    Raises:
        BlobError, OutputError: when the blob is damaged, or the result cannot be written.
    """
    source, target = Path(blob), Path(output)
    check_parent(target)
    weights: list[WeightReport] = []
    tensors = hardware.blob_tensors(source, weights, progress, step="decode")
    arrays = {tensor.spec.name: tensor.array for tensor in tensors}
    hardware.write_npz(arrays, target)
    totals = totals_of(weights, blob_bytes=source.stat().st_size)
    return Report("decode", describe_file(source), weights=tuple(weights), totals=totals)
