"""What benchmarks that compare two files share: loading and running them in turn, and kept rows."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import record
from scipy import stats

from onnxprune.errors import ModelError
from onnxprune.runtime import Session
from onnxprune.verify import random_samples

if TYPE_CHECKING:
    from collections.abc import Callable

CHILD = """
import json, sys, time
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 4
def peak():  # of this process alone: ru_maxrss begins with the parent's
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1024
base = peak()
start = time.process_time()
ort.InferenceSession(sys.argv[1], options, providers=['CPUExecutionProvider'])
print(json.dumps([time.process_time() - start, peak() - base]))
"""


def load_cost(paths: list[Path], rounds: int) -> list[tuple[float, float]]:
    """Least CPU milliseconds and least peak megabytes of loading each file, the files in turn.

    Each load is a fresh process with one thread.
    """
    found: list[list[tuple[float, float]]] = [[] for _ in paths]
    for _ in range(rounds):
        for path, results in zip(paths, found, strict=True):
            done = subprocess.run(
                [sys.executable, "-c", CHILD, path], capture_output=True, text=True, check=True
            )
            seconds, megabytes = json.loads(done.stdout)
            results.append((seconds * 1e3, megabytes))
    return [(min(r[0] for r in results), min(r[1] for r in results)) for results in found]


def feeds_of(session: Session) -> dict[str, np.ndarray]:
    """One seeded sample that the model runs on.

    Raises:
        ModelError: when it runs on no random input.
    """
    return dict(next(random_samples(session, 1, 0).batches(1)))


def run_in_turn(
    before: Path | bytes, after: Path | bytes, seconds: float = 1.0
) -> dict[str, object]:
    """Two models on the same input, one thread: latencies, their ratio, and how outputs differ.

    They run in turn, so that what else the machine does meets both. The ratio (after / before) is
    the median over the rounds, its interval the order statistics that hold the median with 95 %.
    """
    pair = [Session(one, threads=1) for one in (before, after)]
    try:
        feeds = feeds_of(pair[0])
    except ModelError as error:
        return {"does_not_run": str(error).splitlines()[0][:120]}
    outputs = [one.run(feeds) for one in pair]
    start = time.perf_counter()
    pair[0].run(feeds)
    once = max(time.perf_counter() - start, 1e-6)
    repeats = max(1, int(2e-3 / once))
    rounds = int(np.clip(seconds / (2 * once * repeats), 11, 101))
    times: list[list[float]] = [[], []]
    for number in range(rounds):
        order = (0, 1) if number % 2 else (1, 0)
        for which in order:
            start = time.perf_counter()
            for _ in range(repeats):
                pair[which].run(feeds)
            times[which].append((time.perf_counter() - start) / repeats)
    ratios = sorted(b / a for a, b in zip(*times, strict=True))
    low, high = stats.binom.interval(0.95, rounds, 0.5)
    return {
        "rounds": rounds,
        "before_latency_ms": statistics.median(times[0]) * 1e3,
        "after_latency_ms": statistics.median(times[1]) * 1e3,
        "latency_ratio": statistics.median(ratios),
        "latency_ratio_ci95": [ratios[int(low)], ratios[min(rounds - 1, int(high))]],
        "equal": all(a.tobytes() == b.tobytes() for a, b in zip(*outputs, strict=True)),
        "error": max((_error(a, b) for a, b in zip(*outputs, strict=True)), default=0.0),
    }


def _error(before: np.ndarray, after: np.ndarray) -> float:
    """The largest difference over the largest magnitude."""
    if not before.size or before.dtype.kind not in "biuf":
        return 0.0
    left, right = before.astype(np.float64), after.astype(np.float64)
    return float(np.abs(left - right).max() / max(1e-12, float(np.abs(left).max())))


class Rows:
    """Rows of a table that are kept as they come, so that a run that was stopped goes on.

    Args:
        script: its ``__file__``.
        leave: writes all rows and a summary, and says where.
        path: JSON file, where it is not the script's own.
        fresh: forget what it holds.
    """

    def __init__(
        self,
        script: str,
        leave: Callable[[list[dict[str, object]], dict[str, object]], Path],
        path: Path | None,
        *,
        fresh: bool,
    ) -> None:
        self._leave = leave
        known = path or record.RESULTS / f"{Path(script).stem}.json"
        self.rows: list[dict[str, object]] = []
        if known.exists() and not fresh:
            self.rows = json.loads(known.read_text(encoding="utf-8"))["figures"]["rows"]

    def find(self, model: str, sparsity: float) -> dict[str, object] | None:
        """A row that is there already."""
        known = (row for row in self.rows if (row["model"], row["sparsity"]) == (model, sparsity))
        return next(known, None)

    def add(self, row: dict[str, object]) -> None:
        """Keep a row."""
        self.rows.append(row)
        self.write({})

    def write(self, summary: dict[str, object]) -> Path:
        """The file: tables, a summary, and all rows."""
        return self._leave(self.rows, summary)


def model_files(paths: list[Path], min_bytes: int) -> list[Path]:
    """The models named, and those in the folders named, of at least so many bytes and not packed."""
    found: list[Path] = []
    for path in paths:
        found += [path] if path.is_file() else sorted(path.glob("*.onnx"))
    return [
        path
        for path in found
        if path.stat().st_size >= min_bytes and not path.name.endswith(".packed.onnx")
    ]
