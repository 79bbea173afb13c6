"""What we write, as the tools of deployment see it: Polygraphy's rule for 2:4, and OpenVINO."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.recipe import load_recipe

SHIPPED = ("lenet300", "lenet5")
BRIEF = {
    "finetune.phases.sparsify": 0,
    "finetune.phases.prune": 1,
    "finetune.phases.recover": 0,
    "target": "10x",
}


POLYGRAPHY = "import sys; from polygraphy.tools._main import main; sys.exit(main())"
"""What the command ``polygraphy`` runs, by this interpreter."""


def polygraphy_sees(path: Path) -> tuple[set[str], set[str]]:
    """The weights that ``polygraphy inspect sparsity`` finds to be 2:4, and those it finds not to be.

    It looks at the weights of Conv, Gemm and MatMul whose reduction is a multiple of four.
    """
    pytest.importorskip("polygraphy", reason="polygraphy is not installed (extra: test)")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", POLYGRAPHY, "inspect", "sparsity", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | {"POLYGRAPHY_AUTOINSTALL_DEPS": "0", "NO_COLOR": "1"},
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert done.returncode == 0, text[-2000:]
    sparse = set(re.findall(r"Found sparse tensor: (\S+)", text))
    dense = set(re.findall(r"Found non-sparse tensor: (\S+)", text))
    found = re.search(r"Found: (\d+) weight tensor", text)
    assert found is not None
    assert int(found[1]) == len(sparse | dense)
    return sparse, dense


def make_mixed(path: Path) -> Path:
    """Every place and order in which Polygraphy looks for weights."""
    rng = np.random.default_rng(0)

    def values(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    arrays = {
        "conv": values(6, 8, 3, 3),
        "grouped": values(6, 4, 1, 5),  # two groups; four channels each
        "right": values(12, 8),
        "rows": values(5, 8),  # transB
        "left": values(8, 8),  # transA, on the left
        "turned": values(16, 5),  # behind a Transpose
    }
    nodes = [
        helper.make_node("Conv", ["x", "conv"], ["c0"], pads=[1] * 4),
        helper.make_node("Conv", ["x", "grouped"], ["c1"], pads=[0, 2, 0, 2], group=2),
        helper.make_node("Concat", ["c0", "c1"], ["c2"], axis=1),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "right"], ["m"]),
        helper.make_node("Gemm", ["m", "rows"], ["g"], transB=1),
        helper.make_node("Gemm", ["left", "m"], ["h"], transA=1, transB=1),
        helper.make_node("Transpose", ["h"], ["ht"], perm=[1, 0]),
        helper.make_node("Concat", ["ht", "m"], ["n"], axis=1),
        helper.make_node("Transpose", ["turned"], ["t"], perm=[1, 0]),
        helper.make_node("Gemm", ["n", "t"], ["k"], transB=1),
        helper.make_node("Add", ["k", "g"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "mixed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


def test_every_layout_meets_tensorrts_rule(tmp_path: Path) -> None:
    source, out = make_mixed(tmp_path / "mixed.onnx"), tmp_path / "out.onnx"
    everything = {t.name for t in onnx.load(source).graph.initializer}
    assert polygraphy_sees(source) == (set(), everything)
    onnxprune.prune(source, out, pattern="2:4")
    assert polygraphy_sees(out) == (everything, set())
    # Not because half is zero: the same number of zeros elsewhere does not meet it.
    onnxprune.prune(source, out, sparsity=0.5)
    assert polygraphy_sees(out)[1] == everything


def test_rules_give_two_of_four_to_some_layers(tmp_path: Path) -> None:
    source, out = make_mixed(tmp_path / "mixed.onnx"), tmp_path / "out.onnx"
    recipe = load_recipe(None, {"rules": [{"op_types": ["Conv"], "pattern": "2:4"}]})
    onnxprune.prune(source, out, recipe=recipe)
    sparse, dense = polygraphy_sees(out)
    assert sparse == {"conv", "grouped"}
    assert "right" in dense


@pytest.mark.parametrize(
    ("name", "method"), [("lenet300", "magnitude"), ("lenet5", "wanda"), ("lenet5", "obs")]
)
def test_shipped_models_meet_tensorrts_rule(
    name: str, method: str, models_folder: Path, tmp_path: Path
) -> None:
    source, out = models_folder / f"{name}.onnx", tmp_path / "out.onnx"
    with np.load(models_folder / f"{name}-data.npz") as content:
        data = {"image": content["image"][:64]}
    onnxprune.prune(source, out, pattern="2:4", method=method, data=data, threads=1)
    sparse, dense = polygraphy_sees(out)
    assert dense == set()
    # conv1 has one input channel, which is no group of four: neither of us counts it.
    assert len(sparse) == 3


def test_a_searched_model_meets_tensorrts_rule(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    recipe = load_recipe(
        None, {"prune.pattern": "2:4", "search.trials": 3, "max_drop": 0.9, "target": "4x"}
    )
    onnxprune.compress(mlp, str(mlp_data), tmp_path / "run", recipe)
    assert polygraphy_sees(tmp_path / "run" / "model.onnx") == ({"fc0.weight", "fc1.weight"}, set())


def test_a_real_network_meets_tensorrts_rule(shared_models: Path, tmp_path: Path) -> None:
    source = shared_models / "cifar10_resnet20_bn.onnx"
    out = tmp_path / "out.onnx"
    onnxprune.prune(source, out, pattern="2:4")
    sparse, dense = polygraphy_sees(out)
    assert dense == set()
    assert len(sparse) >= 19


def outputs_of(path: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What OpenVINO and onnxruntime compute."""
    openvino = pytest.importorskip("openvino", reason="openvino is not installed (extra: test)")
    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    compiled = core.compile_model(core.read_model(path), "CPU")
    ours = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.array(compiled({"image": images})[0]), ours.run(None, {"image": images})[0]


@pytest.fixture(scope="module")
def deliverables(models_folder: Path, tmp_path_factory) -> dict[str, Path]:
    """Every kind of file that we write, of both shipped models."""
    folder = tmp_path_factory.mktemp("deliverables")
    made: dict[str, Path] = {}

    def path(name: str) -> Path:
        made[name] = folder / f"{name}.onnx"
        return made[name]

    for name in SHIPPED:
        source, data = models_folder / f"{name}.onnx", models_folder / f"{name}-data.npz"
        pruned = path(f"{name} pruned")
        onnxprune.prune(source, pruned, sparsity=0.9, allocation="global")
        onnxprune.pack(pruned, path(f"{name} packed"))
        onnxprune.pack(pruned, path(f"{name} packed for openvino"), runtime="openvino")
        onnxprune.pack(pruned, path(f"{name} packed int8"), values="int8")
        channels = path(f"{name} pruned by channels")
        first = ["conv1.weight"] if name == "lenet5" else []  # the one channel of the images
        onnxprune.prune(source, channels, sparsity=0.5, pattern="channel", nodes_to_exclude=first)
        onnxprune.shrink(channels, path(f"{name} shrunk"))
        with np.load(data) as content:
            some = {"image": content["image"][:256], "labels": content["labels"][:256]}
        onnxprune.prune(source, path(f"{name} updated"), sparsity=0.8, method="wanda", data=some)
        tuned, brief = path(f"{name} fine-tuned"), load_recipe(None, BRIEF)
        onnxprune.finetune(source, some, tuned, brief, device="cpu", threads=1)
        onnxprune.pack(tuned, path(f"{name} fine-tuned and packed"))
    for file in models_folder.glob("*.onnx"):
        made[f"shipped {file.name}"] = file
    return made


KINDS = (
    "pruned", "packed", "packed for openvino", "packed int8", "pruned by channels", "shrunk",
    "updated", "fine-tuned", "fine-tuned and packed",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SHIPPED)
def test_openvino_runs_every_deliverable(
    name: str, kind: str, deliverables: dict[str, Path], models_folder: Path
) -> None:
    pytest.importorskip("torch")
    with np.load(models_folder / "mnist-test.npz") as content:
        images = content["image"][:256]
    theirs, ours = outputs_of(deliverables[f"{name} {kind}"], images)
    np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3)
    assert len(np.unique(ours.argmax(axis=1))) > 5, "a model that still tells digits apart"
    if kind.startswith("packed") and kind != "packed int8":
        dense, _ = outputs_of(deliverables[f"{name} pruned"], images)
        assert theirs.tobytes() == dense.tobytes()


def test_openvino_runs_every_shipped_model(models_folder: Path) -> None:
    with np.load(models_folder / "mnist-test.npz") as content:
        images = content["image"][:64]
    files = sorted(models_folder.glob("*.onnx"))
    assert len(files) >= 4
    for file in files:
        theirs, ours = outputs_of(file, images)
        np.testing.assert_allclose(theirs, ours, rtol=1e-3, atol=1e-3, err_msg=file.name)
