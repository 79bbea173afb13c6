"""The ``estimate`` command: cycles of fetching and decoding, over memories, encodings and decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune import hardware
from onnxprune.design_space import AUTO, explore, make_design_space, with_points
from onnxprune.errors import RecipeError
from onnxprune.in_memory import ModelSource, run_on_file
from onnxprune.inventory import report_of
from onnxprune.memories import DEFAULT_MEMORY, find_memories
from onnxprune.model_io import load_model
from onnxprune.progress import counted
from onnxprune.report import Report, WeightReport, describe_file
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxprune.progress import Progress


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
    progress: Progress | None = None,
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
        progress: called with a step's name, how much of it is done, and how much there is.

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
            explored = explore(hardware.blob_tensors(path, weights, progress), space)
            report = Report("estimate", describe_file(path), weights=tuple(weights))
            return with_points(report, explored, space)
        loaded = load_model(path)
        collection = collect_weights(loaded, embeddings=embeddings)
        tensors = map(hardware.tensor_of, counted(collection.weights, "estimate", progress))
        explored = explore(tensors, space)
        return with_points(report_of("estimate", path, loaded, collection), explored, space)

    return run_on_file(source, job)
