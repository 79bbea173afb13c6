"""Trials a second against workers: in one process, in processes of this machine, on dask and ray clusters.

    python benchmarks/workers.py [--workers 1 2 4] [--backends local dask ray] [--trials 48]

The same candidates of the shipped LeNet-5, each looked at on all of its search samples by one thread, are
tried by every kind of workers; the clusters are of this machine. Time begins when each worker has made a
trial (so libraries are loaded and the levels are there) and ends with the last trial; what it took before,
to start workers and hand them what they need, stands beside it. More workers than cores cannot help.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record

from onnxprune.recipe import load_recipe
from onnxprune.search.opening import open_search
from onnxprune.search.workers import BACKENDS, open_workers
from onnxprune.study import open_study

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxprune.search.problem import Trial
    from onnxprune.search.space import Levels
    from onnxprune.search.tester import Tester
    from onnxprune.search.workers import Backend, Workers

MODELS = Path(__file__).parents[1] / "models"


@contextlib.contextmanager
def cluster(backend: Backend, count: int) -> Iterator[str | None]:
    """A cluster of this machine; its address."""
    if backend == "dask":
        import distributed

        with distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None
        ) as local:
            yield local.scheduler_address
    elif backend == "ray":
        import ray

        ray.init(num_cpus=count, include_dashboard=False, log_to_driver=False)
        try:
            yield "local"
        finally:
            ray.shutdown()
    else:
        yield None


def run(workers: Workers, candidates: Sequence[Levels]) -> list[Trial]:
    """All trials, all asked for at once."""
    futures: list[Future[Trial]] = [workers.submit(levels, np.inf) for levels in candidates]
    wait(futures)
    return [future.result() for future in futures]


def measure(
    tester: Tester, backend: Backend, count: int, candidates: Sequence[Levels]
) -> tuple[dict[str, Any], list[Trial]]:
    """One row, and the trials, which must not depend on who made them."""
    began = time.perf_counter()
    with (
        cluster(backend, count) as address,
        open_workers(tester, count, backend, address) as workers,
    ):
        # Several for each worker: which of them takes which is not ours to say.
        run(workers, candidates[:4] * count)
        ready = time.perf_counter()
        trials = run(workers, candidates)
        seconds = time.perf_counter() - ready
    row = {
        "backend": backend if backend != "local" or count > 1 else "this process",
        "workers": count,
        "rate": len(candidates) / seconds,
        "started": ready - began,
    }
    return row, trials


def tables(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rates, and as multiples of that of one process."""
    forms = {"backend": "{}", "workers": "{}", "rate": "trials a second|{:.1f}"}
    forms |= {"ratio": "of one process|{:.2f}", "started": "seconds to start|{:.1f}"}
    return [record.table(f"{os.cpu_count()} cores", rows, forms)]


def main() -> None:
    """Print the table and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--backends", nargs="+", default=list(BACKENDS), choices=BACKENDS)
    parser.add_argument("--trials", type=int, default=48)
    options = parser.parse_args()
    recipe = load_recipe(None, {"prune.method": "magnitude", "data.search": 0.8})
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        study = open_study(MODELS / "lenet5.onnx", MODELS / "mnist-test.npz", recipe, threads=1)
        search = open_search(study, recipe, Path(folder) / "levels", lambda *_: None)
        tops = search.problem.space.tops
        drawn = np.random.default_rng(0).integers(0, tops // 2 + 1, (options.trials, len(tops)))
        candidates = [tuple(row) for row in drawn.tolist()]
        expected: list[Trial] | None = None
        for backend in options.backends:
            for count in options.workers:
                row, trials = measure(search.tester, backend, count, candidates)
                expected = expected or trials
                assert trials == expected, "trials depend on who makes them"
                rows.append(row | {"ratio": row["rate"] / (rows[0] if rows else row)["rate"]})
                print(rows[-1], flush=True)
    record.write(__file__, tables(rows), rows)


if __name__ == "__main__":
    main()
