"""Calls from several threads at once give what they give alone, and say how far they have come."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from threadpoolctl import threadpool_info

import onnxprune
from onnxprune import api
from onnxprune.blas import blas_threads
from onnxprune.recipe import load_recipe

Progress = Callable[[str, int, int], None]

TRAINING = {
    "finetune.phases.sparsify": 1,
    "finetune.phases.prune": 1,
    "finetune.phases.recover": 1,
    "target": "2x",
}


def with_dropout(path: Path, target: Path) -> Path:
    """The same model with a Dropout before its last layer."""
    model = onnx.load(path)
    last = model.graph.node[-1]
    model.graph.node.insert(
        len(model.graph.node) - 1,
        onnx.helper.make_node("Dropout", [last.input[0]], ["dropped"], name="/drop"),
    )
    last = model.graph.node[-1]
    last.input[0] = "dropped"
    onnx.save(model, target)
    return target


class Jobs:
    """The public functions on small inputs: each takes a folder and a progress, and returns bytes."""

    def __init__(self, mlp: Path, data: Path, folder: Path) -> None:
        self.mlp, self.data = mlp, str(data)
        self.pruned, self.packed = folder / "in.pruned.onnx", folder / "in.packed.onnx"
        self.blob = folder / "in.swb"
        onnxprune.prune(mlp, self.pruned, sparsity=0.9)
        onnxprune.pack(self.pruned, self.packed)
        onnxprune.encode(self.pruned, self.blob)
        self.dropout = with_dropout(mlp, folder / "in.dropout.onnx")

    def inspect(self, _: Path, progress: Progress) -> bytes:
        return onnxprune.inspect(self.mlp, progress=progress).to_json().encode()

    def prune(self, _: Path, progress: Progress) -> bytes:
        report = onnxprune.prune(self.mlp, sparsity=0.5, progress=progress)
        return ir.to_proto(report.output).SerializeToString(deterministic=True)

    def prune_obs(self, folder: Path, progress: Progress) -> bytes:
        out = folder / "obs.onnx"
        onnxprune.prune(
            self.mlp,
            out,
            sparsity=0.5,
            method="obs",
            data=self.data,
            threads=1,
            progress=progress,
        )
        return out.read_bytes()

    def compress(self, folder: Path, progress: Progress) -> bytes:
        recipe = load_recipe(None, {"search.trials": 14, "max_drop": 0.2})
        run = folder / "run"
        onnxprune.compress(self.mlp, self.data, run, recipe, threads=1, progress=progress)
        names = ("model.onnx", "model.packed.onnx", "weights.swb", "plan.json", "journal.jsonl")
        return b"".join((run / name).read_bytes() for name in names)

    def search(self, folder: Path, progress: Progress) -> bytes:
        recipe = load_recipe(None, {"search.trials": 14, "max_drop": 0.2, "seed": 1})
        run = folder / "search"
        onnxprune.search(self.mlp, self.data, run, recipe, threads=1, progress=progress)
        return (run / "model.onnx").read_bytes() + (run / "journal.jsonl").read_bytes()

    def finetune(self, folder: Path, progress: Progress) -> bytes:
        recipe = load_recipe(None, TRAINING | {"finetune.dropout": True})
        out = folder / "tuned.onnx"
        onnxprune.finetune(
            self.dropout, self.data, out, recipe, device="cpu", threads=1, progress=progress
        )
        return out.read_bytes()

    def pack(self, folder: Path, progress: Progress) -> bytes:
        report = onnxprune.pack(self.pruned, folder / "p.onnx", values="int8", progress=progress)
        return (folder / "p.onnx").read_bytes() + repr(report.verification).encode()

    def unpack(self, folder: Path, progress: Progress) -> bytes:
        onnxprune.unpack(self.packed, folder / "u.onnx", progress=progress)
        return (folder / "u.onnx").read_bytes()

    def shrink(self, folder: Path, progress: Progress) -> bytes:
        onnxprune.shrink(self.pruned, folder / "s.onnx", progress=progress)
        return (folder / "s.onnx").read_bytes()

    def accelerate(self, folder: Path, progress: Progress) -> bytes:
        onnxprune.accelerate(self.pruned, folder / "a.onnx", threads=1, progress=progress)
        return (folder / "a.onnx").read_bytes()

    def bench(self, _: Path, progress: Progress) -> bytes:
        report = onnxprune.bench(self.mlp, [self.packed], rounds=2, progress=progress)
        return repr([row.model for row in report.bench or ()]).encode()

    def encode(self, folder: Path, progress: Progress) -> bytes:
        onnxprune.encode(self.pruned, folder / "w.swb", progress=progress)
        return (folder / "w.swb").read_bytes()

    def decode(self, folder: Path, progress: Progress) -> bytes:
        onnxprune.decode(self.blob, folder / "w.npz", progress=progress)
        with np.load(folder / "w.npz") as arrays:
            return b"".join(arrays[name].tobytes() for name in sorted(arrays.files))

    def estimate(self, _: Path, progress: Progress) -> bytes:
        report = onnxprune.estimate(
            self.pruned, memory="ddr4-2400,sram-rp2040", decoder_lanes=(1, 4), progress=progress
        )
        return report.to_json().encode()

    def verify(self, _: Path, progress: Progress) -> bytes:
        report = onnxprune.verify(self.mlp, self.pruned, data=self.data, progress=progress)
        return report.to_json().encode()


STEPS = {
    "inspect": {"count"},
    "prune": {"prune", "write"},
    "prune_obs": {"error curves", "sensitivity", "reconstruct", "write"},
    "compress": {"search", "encode", "pack", "run reference", "run candidate"},
    "search": {"search"},
    "finetune": {"sparsify", "prune", "recover"},
    "pack": {"pack", "run reference", "run candidate"},
    "unpack": {"write"},
    "shrink": {"shrink", "run reference", "run candidate"},
    "accelerate": {"accelerate", "run reference", "run candidate"},
    "bench": {"bench"},
    "encode": {"encode"},
    "decode": {"decode"},
    "estimate": {"estimate"},
    "verify": {"run reference", "run candidate"},
}
"""What each of them tells of."""


@pytest.fixture
def jobs(mlp: Path, mlp_data: Path, tmp_path: Path) -> Jobs:
    return Jobs(mlp, mlp_data, tmp_path)


def run(jobs: Jobs, name: str, folder: Path, progress: Progress = lambda *_: None) -> bytes:
    folder.mkdir()
    return getattr(jobs, name)(folder, progress)


def test_there_is_a_job_for_every_public_function() -> None:
    without = {"export"}  # copies a file
    assert {name.removesuffix("_obs") for name in STEPS} == set(api.__all__) - without


@pytest.mark.parametrize("name", STEPS)
def test_progress_rises_to_its_end(name: str, jobs: Jobs, tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}
    here = threading.get_ident()

    def progress(step: str, done: int, total: int) -> None:
        assert threading.get_ident() == here
        told.setdefault(step, []).append((done, total))

    run(jobs, name, tmp_path / "job", progress)
    assert told.keys() >= STEPS[name]
    for step, calls in told.items():
        done = [d for d, _ in calls]
        assert done == sorted(done) or step.startswith("run "), step  # several comparisons
        assert calls[-1][0] == calls[-1][1], step
        assert all(0 <= d <= total for d, total in calls), step


def test_what_progress_raises_ends_the_call_and_leaves_nothing(
    mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(step: str, done: int, total: int) -> None:
        raise StopError

    before = set(tmp_path.iterdir())
    out = tmp_path / "out.onnx"
    with pytest.raises(StopError):
        onnxprune.prune(mlp, out, sparsity=0.5, progress=stop)
    with pytest.raises(StopError):
        onnxprune.encode(mlp, out, progress=stop)
    assert set(tmp_path.iterdir()) == before


def state_of_the_process() -> dict[str, object]:
    import torch

    return {
        "filters": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "numpy": np.random.get_state()[1].tobytes(),  # noqa: NPY002 - what must not be touched
        "torch": torch.get_rng_state().numpy().tobytes(),
        "torch threads": torch.get_num_threads(),
        "blas": [(p["filepath"], p["num_threads"]) for p in threadpool_info()],
        "errors": np.geterr(),
    }


def test_all_functions_at_once_give_what_they_give_alone(jobs: Jobs, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    alone = {name: run(jobs, name, tmp_path / f"alone-{name}") for name in STEPS}
    before = state_of_the_process()
    names = [*STEPS, *reversed(STEPS)]
    with ThreadPoolExecutor(6) as pool:
        waiting = [
            pool.submit(run, jobs, name, tmp_path / f"together-{number}-{name}")
            for number, name in enumerate(names)
        ]
        together = [future.result() for future in waiting]
    for name, result in zip(names, together, strict=True):
        assert result == alone[name], name
    assert state_of_the_process() == before


def blas_numbers() -> set[int]:
    return {p["num_threads"] for p in threadpool_info() if p["user_api"] == "blas"}


def test_one_number_of_blas_threads_at_a_time() -> None:
    before = blas_numbers()
    seen: list[tuple[int, set[int]]] = []

    def work(wanted: int) -> None:
        with blas_threads(wanted):
            seen.append((wanted, blas_numbers()))
            with blas_threads(wanted + 4):
                seen.append((wanted + 4, blas_numbers()))
            time.sleep(0.05)
            seen.append((wanted, blas_numbers()))

    with ThreadPoolExecutor(5) as pool:
        for future in [pool.submit(work, wanted) for wanted in (1, 2, 1, 3, 2)]:
            future.result()
        assert len(seen) == 15
        for wanted, numbers in seen:
            assert numbers == {wanted}
        assert blas_numbers() == before
