"""What a trial costs beside the bare inference of its data, by the ways in which its weights can reach onnxruntime.

    python benchmarks/trial_cost.py [--models resnet20 magika dtln]

- ``handed over``: a new session for each trial, of a model without its weights; they are given to it beside
  the model and taken in before the graph is optimized. This is what searches do.
- ``whole model``: a new session from the bytes of the model with other weights written into it.
- ``as inputs``: one session that is kept, whose weights are inputs with memory of their own. onnxruntime
  cannot rearrange what may change, so inference itself is slower.

Processor time, medians of interleaved runs on one thread; inference is of 256 samples (16 of magika, of dtln
one at a time).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort
import record
from onnx import helper, numpy_helper

from onnxprune.candidates import Candidates
from onnxprune.data import random_data
from onnxprune.model_io import load_model
from onnxprune.runtime import Session
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

MODELS = Path(__file__).parents[2] / "shared" / "models"
NAMES = {
    "resnet20": ("cifar10_resnet20_folded.onnx", 256),
    "magika": ("magika_standard_v2_1.onnx", 16),
    "dtln": ("dtln_1_lstm.onnx", 1),
}
ROUNDS = 9


def one_model(name: str) -> dict[str, Any]:
    """The row of one model: milliseconds, and each way as a multiple of the bare inference."""
    file, batch = NAMES[name]
    path = MODELS / file
    loaded = load_model(path)
    arrays = {w.name: w.array() for w in collect_weights(loaded).weights}
    bare = Session(path, threads=1)
    drawn = random_data(bare.inputs, 1, 0, size=batch).inputs
    feeds = {key: array[0] for key, array in drawn.items()}
    candidates = Candidates(path, arrays)
    whole, kept = _whole(path, arrays), _inputs(path, arrays, feeds)
    ways: dict[str, Callable[[], Any]] = {
        "bare inference": lambda: bare.run(feeds),
        "handed over": lambda: candidates.session(arrays, threads=1).run(feeds),
        "whole model": lambda: Session(whole(), threads=1).run(feeds),
        "as inputs": kept,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, run in ways.items():
            start = time.process_time()
            run()
            seconds[way].append(time.process_time() - start)
    medians = {way: float(np.median(found[1:])) for way, found in seconds.items()}
    base = medians["bare inference"]
    row: dict[str, Any] = {"model": name, "samples": batch, "bare inference ms": 1000 * base}
    return row | {way: medians[way] / base for way in ways if way != "bare inference"}


def _whole(path: Path, arrays: dict[str, NDArray[Any]]) -> Callable[[], bytes]:
    model = onnx.load(path)

    def write() -> bytes:
        for tensor in model.graph.initializer:
            if tensor.name in arrays:
                tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
        return bytes(model.SerializeToString())

    return write


def _inputs(
    path: Path, arrays: dict[str, NDArray[Any]], feeds: dict[str, NDArray[Any]]
) -> Callable[[], None]:
    model = onnx.load(path)
    there = [t for t in model.graph.initializer if t.name in arrays]
    for tensor in there:
        model.graph.initializer.remove(tensor)
        if tensor.name not in {value.name for value in model.graph.input}:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    for key, array in feeds.items():
        binding.bind_cpu_input(key, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def run() -> None:
        for tensor in there:
            binding.bind_cpu_input(tensor.name, arrays[tensor.name])
        session.run_with_iobinding(binding)

    return run


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if not MODELS.exists():
        sys.exit("benchmarks/trial_cost.py needs the models of ../shared")
    rows = []
    for name in arguments.models:
        rows.append(one_model(name))
        print(rows[-1], flush=True)
    forms = {
        "model": "{}",
        "samples": "{}",
        "bare inference ms": "{:.1f}",
        "handed over": "{:.2f}",
        "whole model": "{:.2f}",
        "as inputs": "{:.2f}",
    }
    note = "Each way as a multiple of the bare inference, loading included."
    record.write(__file__, [record.table("A trial", rows, forms, note)], rows, arguments.output)


if __name__ == "__main__":
    main()
