"""The kernels against exact products, in onnxruntime, with each set of instructions."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxprune import kernels
from onnxprune.kernels.compile import compile_library
from onnxprune.model_io import load_model, save_model
from onnxprune.packing import run_pass
from onnxprune.runtime import Session
from passes.accelerate import AcceleratePass, CostModel
from tests.onnxprune.kernels.layers import Layer, sparse, write_layer

ALWAYS = CostModel(many=0, few=0, few_in_cache=0)
SETS = ("128", "avx2", "avx512") if platform.machine() == "x86_64" else ("128",)


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forces a set; what the processor lacks is the next lower one."""
    monkeypatch.setenv("ONNXPRUNE_KERNELS", request.param)
    return request.param


@pytest.fixture(autouse=True)
def no_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of any size are rewritten."""
    monkeypatch.setattr("passes.accelerate.SMALLEST", 0)


def accelerated(path: Path) -> Path:
    """The model with all its products as operators of ours."""
    model = load_model(path)
    step = AcceleratePass(cost=ALWAYS)
    run_pass(step, model)
    assert step.decisions
    assert not any(one.reason for one in step.decisions)
    out = path.with_name("fast.onnx")
    save_model(model, out)
    return out


def close(ours: np.ndarray, exact: np.ndarray, layer: Layer, x: np.ndarray) -> None:
    """Within the rounding of a float32 sum, element by element."""
    assert ours.shape == exact.shape
    sizes = np.abs(x).astype(np.float64) @ np.abs(layer.matrix).astype(np.float64)
    sizes += 0 if layer.bias is None else np.abs(layer.bias)
    assert (np.abs(ours - exact) <= 4e-6 * sizes + 1e-30).all()


@st.composite
def layers(draw: st.DrawFn) -> tuple[Layer, int]:
    """Products of all forms, at sizes around those of blocks and tiles."""
    size = st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 255, 256, 257, 300, 600]))
    columns, outputs = draw(size), draw(size)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    matrix = sparse(rng, columns, outputs, density=draw(st.sampled_from([0, 0.02, 0.1, 0.5, 1])))
    if draw(st.booleans()):
        matrix[:, rng.integers(outputs)] = 1  # a full row among sparse ones
    bias = rng.standard_normal(outputs).astype(np.float32) if draw(st.booleans()) else None
    gemm = draw(st.booleans())
    layer = Layer(
        matrix, bias, bias is not None and draw(st.booleans()), gemm, gemm and draw(st.booleans())
    )
    rows = draw(st.one_of(st.integers(0, 20), st.sampled_from([31, 32, 33, 63, 64, 65, 130, 700])))
    return layer, rows


@given(case=layers())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_products_are_exact_to_rounding(
    library: Path, instructions: str, tmp_path: Path, case: tuple[Layer, int]
) -> None:
    layer, rows = case
    path = accelerated(write_layer(tmp_path / "layer.onnx", layer))
    x = (
        np.random.default_rng(rows)
        .standard_normal((rows, layer.matrix.shape[0]))
        .astype(np.float32)
    )
    [ours] = Session(path, threads=1, kernels=True).run({"x": x})
    close(ours, layer.reference(x), layer, x)
    # Without the library the functions compute what the model did.
    [plain] = Session(path, threads=1).run({"x": x})
    [dense] = Session(tmp_path / "layer.onnx", threads=1).run({"x": x})
    assert plain.tobytes() == dense.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (2, 3, 5), (4, 0, 2), (7,), ()])
def test_activations_of_any_rank(
    library: Path, layer_file: Callable[..., Path], shape: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(sparse(rng, 48, 20), rng.standard_normal(20).astype(np.float32), relu=True)
    path = accelerated(layer_file(layer, rank=len(shape) + 1))
    x = rng.standard_normal((*shape, 48)).astype(np.float32)
    [ours] = Session(path, kernels=True).run({"x": x})
    close(ours, layer.reference(x), layer, x)


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("rows", [1, 40, 1000])
def test_threads_and_runs_at_once_change_no_bit(
    library: Path, layer_file: Callable[..., Path], threads: int, rows: int
) -> None:
    rng = np.random.default_rng(0)
    layer = Layer(sparse(rng, 300, 700), rng.standard_normal(700).astype(np.float32))
    path = accelerated(layer_file(layer))
    inputs = [rng.standard_normal((rows, 300)).astype(np.float32) for _ in range(4)]
    alone = Session(path, threads=1, kernels=True)
    expected = [alone.run({"x": x})[0].tobytes() for x in inputs]
    sessions = [Session(path, threads=threads, kernels=True) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        jobs = [
            (number, pool.submit(session.run, {"x": inputs[number]}))
            for _ in range(6)
            for number, session in itertools.product(range(4), sessions)
        ]
        for number, job in jobs:
            assert job.result()[0].tobytes() == expected[number]


def test_values_that_are_no_numbers_stay(library: Path, layer_file: Callable[..., Path]) -> None:
    """Relu keeps NaN, and weights that are infinite or NaN count as any other."""
    matrix = np.zeros((20, 9), np.float32)
    matrix[3] = [np.inf, -np.inf, np.nan, 1, -1, 0, 0, 0, 0]
    layer = Layer(matrix, np.zeros(9, np.float32), relu=True)
    path = accelerated(layer_file(layer))
    for rows in (1, 5):
        [ours] = Session(path, kernels=True).run({"x": np.ones((rows, 20), np.float32)})
        expected = np.array([np.inf, 0, np.nan, 1, 0, 0, 0, 0, 0], np.float32)
        assert np.array_equal(ours, np.tile(expected, (rows, 1)), equal_nan=True)


def hostile() -> Iterator[tuple[str, onnx.ModelProto]]:
    """Models that use our operators as nobody should."""
    w, b = np.ones((8, 4), np.float32), np.ones(4, np.float32)
    cases = {
        "weights that are fed": ([("x", 8), ("w", 4)], {}, "SparseMatMul", ["x", "w"]),
        "a weight of three axes": ([("x", 8)], {"w": w[None]}, "SparseMatMul", ["x", "w"]),
        "a weight of one axis": ([("x", 8)], {"w": b}, "SparseMatMul", ["x", "w"]),
        "a bias too long": (
            [("x", 8)],
            {"w": w, "b": np.ones(5, np.float32)},
            "SparseMatMulBias",
            ["x", "w", "b"],
        ),
        "a bias too short": ([("x", 8)], {"w": w, "b": b[:3]}, "SparseGemmBias", ["x", "w", "b"]),
        "a scalar bias": (
            [("x", 8)],
            {"w": w, "b": np.float32(1)},
            "SparseGemmBias",
            ["x", "w", "b"],
        ),
        "activations too wide": ([("x", 9)], {"w": w}, "SparseMatMul", ["x", "w"]),
        "activations too narrow": ([("x", 3)], {"w": w}, "SparseGemm", ["x", "w"]),
        "weights in doubles": ([("x", 8)], {"w": w.astype(np.float64)}, "SparseMatMul", ["x", "w"]),
    }
    for name, (inputs, constants, op_type, reads) in cases.items():
        graph = helper.make_graph(
            [helper.make_node(op_type, reads, ["y"], domain="onnxprune")],
            "g",
            [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", width])
                for n, width in inputs
            ],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(array), n) for n, array in constants.items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("onnxprune", 1)]
        yield name, helper.make_model(graph, opset_imports=opsets, ir_version=8)


HOSTILE = list(hostile())


@pytest.mark.parametrize(("name", "model"), HOSTILE, ids=[name for name, _ in HOSTILE])
def test_hostile_models_are_errors(library: Path, name: str, model: onnx.ModelProto) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    kernels.register(options)
    with pytest.raises(Exception, match=r"."):  # noqa: PT012 - some fail to load, some to run
        session = ort.InferenceSession(model.SerializeToString(), options)
        session.run(
            None,
            {one.name: np.ones((2, one.shape[1]), np.float32) for one in session.get_inputs()},
        )


SANITIZED = """
import sys, numpy as np, onnxruntime as ort
for path in sys.argv[2:]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    options.register_custom_ops_library(sys.argv[1])
    session = ort.InferenceSession(path, options)
    columns = session.get_inputs()[0].shape[1]
    for rows in (0, 1, 2, 5, 16, 33, 64, 100, 700):
        session.run(None, {"x": np.ones((rows, columns), np.float32)})
print("clean")
"""


@pytest.mark.slow
def test_no_access_out_of_place(
    library: Path,
    instructions: str,
    tmp_path: Path,
    program: Callable[[str], str],
) -> None:
    """gcc's address and undefined-behaviour sanitizers see all kernels run."""
    gcc = program("gcc")
    checked = tmp_path / "checked.so"
    compile_library(
        checked, options=("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")
    )
    rng = np.random.default_rng(0)
    paths = []
    for number, (columns, outputs) in enumerate(
        [(1, 1), (13, 300), (256, 256), (257, 129), (700, 70)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        bias = rng.standard_normal(outputs).astype(np.float32)
        for density in (0, 0.1, 1):
            layer = Layer(
                sparse(rng, columns, outputs, density=density),
                bias,
                relu=True,
                gemm=bool(number % 2),
            )
            where = folder / str(density)
            where.mkdir()
            paths.append(accelerated(write_layer(where / "m.onnx", layer)))
    runtime = subprocess.run(
        [gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    )
    made = subprocess.run(
        [sys.executable, "-c", SANITIZED, checked, *paths],
        env=os.environ | {"LD_PRELOAD": runtime.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.stdout.strip() == "clean", made.stderr[-3000:]
