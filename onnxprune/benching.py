"""The ``bench`` command: latency, throughput, load time and memory of models, beside the dense one in the same run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxprune import kernels
from onnxprune.data import Dataset, load_data
from onnxprune.errors import ModelError, RecipeError
from onnxprune.latency import ROUNDS, inferences, latencies
from onnxprune.model_io import file_bytes, load_model
from onnxprune.progress import silent
from onnxprune.report import BenchReport, Report, describe_model
from onnxprune.runtime import Session
from onnxprune.verify import random_samples

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.data import DataSource
    from onnxprune.progress import Progress

LEAST_MS = 2.0
"""A round of a model takes at least so long: shorter ones say more of the clock than of the model."""

INT8 = "dense int8"


def bench(
    dense: Path,
    candidates: Sequence[Path],
    *,
    data: DataSource | None = None,
    batch: int = 1,
    threads: int | None = 1,
    rounds: int = ROUNDS,
    int8: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Measure models in turn, with the kernels where they have operators for them.

    Args:
        dense: path of the model that the others are compared with.
        candidates: paths of models with the same inputs.
        data: of which the first ``batch`` samples are fed; seeded random inputs when None.
        batch: samples of one run.
        threads: of onnxruntime.
        rounds: that count; of each the mean time of a run is taken.
        int8: whether the dense model quantized dynamically by onnxruntime is measured too: what one would do
            without pruning.
        seed: of the random inputs.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, DataError, RecipeError: when one of the arguments cannot be used.
    """
    for name, value in (("batch", batch), ("rounds", rounds)):
        if value < 1:
            msg = f"{name} must be at least 1, found {value}"
            raise RecipeError(msg)
    tell, there = progress or silent, kernels.available()
    model, warnings = load_model(dense), []
    paths = {str(path): path for path in (dense, *candidates)}
    # Also says what is wrong with a file, before anything is measured.
    sizes = [file_bytes(path, load_model(path)) for path in paths.values()]
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        if int8:
            made = Path(folder) / "int8.onnx"
            try:
                _alone(_QUANTIZE, dense, made)
                paths[INT8] = made
                sizes.append(made.stat().st_size)
            except ModelError as error:
                warnings.append(str(error))
        sessions = [Session(path, threads=threads, kernels=there) for path in paths.values()]
        sample = _sample(sessions[0], data, batch, seed)
        runs = inferences(sessions, sample)
        once = latencies(runs, rounds=1)
        repeat = max(1, int(np.ceil(LEAST_MS / max(1e-3, min(one.median_ms for one in once)))))
        tell("bench", 0, 1)
        taken = latencies(runs, rounds=rounds, repeat=repeat)
        tell("bench", 1, 1)
        loads = [_load(path, threads, kernels_too=there) for path in paths.values()]
        rows = tuple(
            BenchReport(
                model=name,
                latency_ms=one.median_ms,
                quartiles_ms=one.quartiles_ms,
                speedup=round(taken[0].median_ms / one.median_ms, 3),
                samples_per_s=round(1e3 * len(sample) / one.median_ms, 1),
                load_ms=load_ms,
                memory_bytes=memory,
                bytes=size,
            )
            for name, one, (load_ms, memory), size in zip(paths, taken, loads, sizes, strict=True)
        )
    if not there:
        warnings.append("there is no kernel library on this machine: models ran without it")
    return Report(
        "bench",
        describe_model(dense, model),
        seed=seed,
        bench=rows,
        hardware={
            "threads": threads or os.cpu_count() or 1,
            "batch": len(sample),
            "rounds": rounds,
        },
        warnings=tuple(warnings),
    )


def _sample(session: Session, data: DataSource | None, batch: int, seed: int) -> Dataset:
    """What is fed in one run."""
    if data is None:
        return random_samples(session, batch, seed)
    given = load_data(data, session.inputs)
    if len(given) < batch:
        msg = f"a batch of {batch} needs as many samples, found {len(given)}"
        raise RecipeError(msg)
    return given.take(np.arange(batch))


_QUANTIZE = """
import sys
from pathlib import Path
from onnxprune.runtime import quantize_dynamic
quantize_dynamic(Path(sys.argv[1]), Path(sys.argv[2]))
"""
"""In a process of its own, for onnxruntime advises at every call, and is loud about it."""

_LOAD = """
import json, sys, time
from pathlib import Path
from onnxprune.runtime import Session
def memory(key):
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
before = memory("VmRSS")
if before is not None:
    Path("/proc/self/clear_refs").write_text("5")  # peaks count from here
start = time.perf_counter()
Session(sys.argv[1], threads=int(sys.argv[2]) or None, kernels=sys.argv[3] == "1")
taken = (time.perf_counter() - start) * 1e3
print(json.dumps([taken, None if before is None else memory("VmHWM") - before]))
"""


def _load(path: Path, threads: int | None, *, kernels_too: bool) -> tuple[float, int | None]:
    """Milliseconds until a session is there, and the bytes by which memory grew at most; in a process of its own.

    Memory is None where the system does not say, which only Linux does.
    """
    milliseconds, memory = json.loads(_alone(_LOAD, path, threads or 0, int(kernels_too)))
    return round(milliseconds, 1), memory


def _alone(program: str, *arguments: object) -> str:
    """What a program of ours prints in a process of its own.

    Raises:
        ModelError: with its last line where it fails.
    """
    command = [sys.executable, "-c", program, *map(str, arguments)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own text
    if made.returncode:
        *_, last = ["it says nothing", *made.stderr.strip().splitlines()]
        raise ModelError(last.removeprefix("onnxprune.errors.ModelError: "))
    return made.stdout
