"""What all tests share: small models made on the spot, and where real ones lie."""

from __future__ import annotations

import itertools
import os

# Tests run side by side, and threads of linear algebra that wait for each other's processor are slow.
# This is read when numpy is first loaded, and by every process that a test starts.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The models that the repository ships."""
    return ROOT / "models"


@pytest.fixture(scope="session")
def shared_models() -> Path:
    """Real models beside the repository; tests that want them skip where they are missing."""
    folder = ROOT.parent / "shared" / "models"
    if not folder.is_dir():
        pytest.skip("the real models of ../shared/models are not here")
    return folder


def need_program(name: str) -> str:
    """The path of a program that is not installed by pip; the test skips where it is missing.

    Where ``ONNXPRUNE_REQUIRE`` names it, as in CI, the test fails instead.
    """
    path = shutil.which(name)
    if path is None:
        if name in os.environ.get("ONNXPRUNE_REQUIRE", "").split():
            pytest.fail(f"{name} is required here and is not installed")
        pytest.skip(f"{name} is not installed")
    return path


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """Finds programs by name; see :func:`need_program`."""
    return need_program


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Reference figures beside the repository; tests that want them skip where they are missing."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference figures of ../shared are not here")
    return folder


def make_mlp(
    path: Path, sizes: tuple[int, ...] = (12, 16, 4), seed: int = 0, opset: int = 17
) -> Path:
    """A small fully connected network with Relu between layers, weights ``fc0.weight`` and so on."""
    rng = np.random.default_rng(seed)
    nodes, initializers, previous = [], [], "x"
    for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.standard_normal((fan_out, fan_in)).astype(np.float32)
        bias = rng.standard_normal(fan_out).astype(np.float32)
        initializers += [
            numpy_helper.from_array(weight, f"fc{index}.weight"),
            numpy_helper.from_array(bias, f"fc{index}.bias"),
        ]
        last = index == len(sizes) - 2
        out = "y" if last else f"h{index}"
        nodes.append(
            helper.make_node(
                "Gemm",
                [previous, f"fc{index}.weight", f"fc{index}.bias"],
                [out],
                name=f"/fc{index}/Gemm",
                transB=1,
            )
        )
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"a{index}"], name=f"/relu{index}"))
            previous = f"a{index}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", sizes[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", sizes[-1]])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def mlp(tmp_path: Path) -> Path:
    """A 12-16-4 network."""
    return make_mlp(tmp_path / "mlp.onnx")


@pytest.fixture
def mlp_data(tmp_path: Path, mlp: Path) -> Path:
    """400 samples for :func:`mlp`, labelled by the network itself with a tenth of the labels wrong."""
    import onnxruntime as ort

    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 12)).astype(np.float32)
    labels = ort.InferenceSession(str(mlp)).run(None, {"x": x})[0].argmax(axis=1)
    wrong = rng.random(400) < 0.1
    labels[wrong] = rng.integers(0, 4, int(wrong.sum()))
    path = tmp_path / "data.npz"
    np.savez(path, x=x, labels=labels)
    return path
