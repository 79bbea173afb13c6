"""The Verilog decoders, simulated on blobs of real weights: every value, and every clock."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwmodel.bits import width_of
from hwmodel.blob import BlobEntry, open_blob, write_blob
from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings import get_encoding
from hwmodel.tensor import DTYPES, TensorSpec

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "hwmodel" / "decoder" / "rtl"
BENCH = Path(__file__).parent / "rtl"
KINDS = ("bitmask", "run_length", "rice")


@dataclass(frozen=True)
class Case:
    """A decoder and what it is fed."""

    encoding: str
    dtype: str
    sparsity: float
    width: int = 1
    word_bits: int = 32
    own: int | None = None
    chunk: int = 1000


CASES = (
    Case("bitmask", "int8", 0.7),
    Case("bitmask", "float32", 0.9, width=4, word_bits=16),
    Case("bitmask", "int8", 0.3, width=3, word_bits=23, chunk=777),
    Case("run_length", "int8", 0.9),
    Case("run_length", "float16", 0.95, width=4),
    Case("run_length", "int8", 0.995, width=2, own=3),
    Case("rice", "int8", 0.9),
    Case("rice", "float32", 0.95, word_bits=8, own=0, chunk=500),
    Case("rice", "bfloat16", 0.995, word_bits=4, own=2),
)


def seeded() -> np.ndarray:
    """Weights with rows of different spread, so that chunks differ."""
    rng = np.random.default_rng(5)
    spread = np.exp(rng.standard_normal((30, 1)) / 2)
    return (rng.standard_normal((30, 784)) * spread).astype(np.float32)


def pruned(weights: np.ndarray, case: Case) -> np.ndarray:
    """Pruned by magnitude, with whole chunks of zeros, in the dtype asked for."""
    array = np.where(np.abs(weights) > np.quantile(np.abs(weights), case.sparsity), weights, 0)
    array[2:7] = 0
    if case.dtype == "int8":
        return np.round(array / np.abs(array).max() * 127).astype(np.int8)
    return array.astype(DTYPES[case.dtype])


def simulate(folder: Path, case: Case, chunks: list[dict], value_bits: int) -> list[dict]:
    """What the decoder makes of each chunk, and in how many clocks."""
    from cocotb_tools.runner import get_runner

    task = {
        "width": case.width,
        "value_bits": value_bits,
        "ports": ["elements", "k", "count_bits", "gap_bits"],
        "chunks": chunks,
    }
    (folder / "chunks.json").write_text(json.dumps(task), encoding="utf-8")
    runner = get_runner("icarus")
    runner.build(
        sources=[*sorted(SOURCES.glob("*.v")), BENCH / "swb_bench.v"],
        hdl_toplevel="swb_bench",
        build_dir=folder,
        parameters={
            "KIND": KINDS.index(case.encoding),
            "VALUE_BITS": value_bits,
            "WIDTH": case.width,
            "WORD_BITS": case.word_bits,
        },
        timescale=("1ns", "1ps"),
    )
    runner.test(
        hdl_toplevel="swb_bench",
        test_module="rtl_bench",
        build_dir=folder,
        test_dir=folder,
        results_xml=str(folder / "results.xml"),
        extra_env={
            "SWB_CHUNKS": str(folder / "chunks.json"),
            "SWB_RESULTS": str(folder / "results.json"),
        },
    )
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_are_exact_and_clocks_are_those_of_the_model(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    check(case, seeded(), tmp_path)


@pytest.mark.parametrize("encoding", KINDS)
def test_the_same_on_real_weights(
    encoding: str, shared_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    model = onnx.load(shared_models / "mnist_fc_256x2.onnx")
    arrays = [numpy_helper.to_array(one) for one in model.graph.initializer]
    largest = max(arrays, key=lambda one: one.size)
    weights = np.ascontiguousarray(largest.reshape(-1)[: 30 * 784]).reshape(30, 784)
    check(Case(encoding, "float32", 0.9), weights, tmp_path)


def check(case: Case, weights: np.ndarray, tmp_path: Path) -> None:
    if shutil.which("iverilog") is None:
        needed = "iverilog" in os.environ.get("ONNXPRUNE_REQUIRE", "").split()
        (pytest.fail if needed else pytest.skip)("iverilog is not installed")
    pytest.importorskip("cocotb_tools", reason="cocotb is not installed")
    array = pruned(weights, case)
    spec = TensorSpec("w", array.shape, case.dtype)
    own = {} if case.own is None else {"bits" if case.encoding == "run_length" else "k": case.own}
    encoding = get_encoding(case.encoding, {"chunk": case.chunk, **own})
    path = tmp_path / "w.swb"
    with path.open("wb") as file:
        write_blob(file, [BlobEntry(spec, array, encoding)])
    with open_blob(path) as blob:
        segments = blob.segments("w")
    bounds, starts = (
        encoding.chunk_bounds(spec),
        encoding.chunk_bytes(spec, segments, len(segments["data"])),
    )
    parameter = segments["header"][0] if segments["header"] else 0
    chunks = [
        {
            "bytes": segments["data"][starts[i] : starts[i + 1]].hex(),
            "ports": {
                "elements": int(bounds[i + 1] - bounds[i]),
                "k": parameter if case.encoding == "rice" else 0,
                "count_bits": width_of(encoding.granularity(spec) + 1),
                "gap_bits": parameter if case.encoding == "run_length" else 0,
            },
        }
        for i in range(bounds.size - 1)
    ]
    results = simulate(tmp_path, case, chunks, spec.value_bits)

    codes = Codes.of(array, spec)
    decoded = np.zeros(codes.size, np.uint64)
    for i, result in enumerate(results):
        for position, value in result["placed"]:
            assert position < bounds[i + 1] - bounds[i]
            decoded[bounds[i] + position] = value
    assert np.array_equal(decoded, codes.numbers)
    assert len(results) == bounds.size - 1 > 20
    model = encoding.decode_cycles(
        codes, DecoderSpec(width=case.width, word_bits=case.word_bits, fill=1)
    )
    assert [result["clocks"] for result in results] == model.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_a_synthesis_tool_takes_it_and_finds_no_latch(
    kind: str, program: Callable[[str], str]
) -> None:
    yosys = program("yosys")
    top = f"swb_{kind}"
    script = f"read_verilog {SOURCES / top}.v; hierarchy -top {top}; proc; opt; check -assert; stat"
    done = subprocess.run([yosys, "-p", script], capture_output=True, text=True, check=True)
    assert "$dff" in done.stdout
    assert "$dlatch" not in done.stdout
