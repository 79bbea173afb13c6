"""Memory of pruning a model with external data: what one tensor takes, not what the model takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.model_io import load_model
from passes.weights import collect_weights

SIDE, COUNT = 1536, 16  # 9 MiB each, 151 MB in all

WATCHED = """
import sys, threading, time
from onnxprune import api

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024

before, peak, done = anonymous(), 0, threading.Event()

def watch():
    global peak
    while not done.is_set():
        peak = max(peak, anonymous())
        time.sleep(0.001)

thread = threading.Thread(target=watch)
thread.start()
api.prune(sys.argv[1], sys.argv[2], sparsity=0.75, allocation=sys.argv[3])
done.set()
thread.join()
print(peak - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "m.onnx"
    rng = np.random.default_rng(0)
    names = [f"w{i}" for i in range(COUNT)]
    values = ["x", *(f"h{i}" for i in range(COUNT - 1)), "y"]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [values[i], name], [values[i + 1]])
            for i, name in enumerate(names)
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", SIDE])],
        [
            numpy_helper.from_array(rng.standard_normal((SIDE, SIDE), dtype=np.float32), name)
            for name in names
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, save_as_external_data=True, location="m.data")
    return path


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("allocation", ["uniform", "global"])
def test_memory_is_bounded_by_the_largest_tensor(
    large: Path, tmp_path: Path, allocation: str
) -> None:
    out = tmp_path / "p.onnx"
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(large), str(out), allocation],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert int(done.stdout) < 2 * SIDE * SIDE * 4 + 50e6
    weights = collect_weights(load_model(out)).weights
    assert sum(w.nonzeros() for w in weights) == COUNT * SIDE * SIDE // 4
