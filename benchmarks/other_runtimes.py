"""Whether runtimes other than onnxruntime compute the same bits for a packed model as for the dense."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from side_by_side import feeds_of

from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, save_model
from onnxprune.runtime import Session
from passes.pack import PackWeightsPass

WEB = Path(__file__).parents[1] / "tests" / "runtimes"


def agreeing(dense: Path, packed: Path) -> dict[str, str]:
    """What each runtime that is installed says: equal, differs, or why it cannot run the dense model."""
    try:
        feeds = feeds_of(Session(dense, threads=1))
    except ModelError:
        return {}
    told = {}
    if importlib.util.find_spec("openvino") is not None:
        told["openvino"] = _openvino(dense, feeds)
    if shutil.which("node") and (WEB / "node_modules" / "onnxruntime-web").is_dir():
        told["onnxruntime-web"] = _web(dense, packed, feeds)
    return told


def _openvino(dense: Path, feeds: dict[str, np.ndarray]) -> str:
    import openvino

    core = openvino.Core()
    core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(path: Path) -> list[bytes]:
        compiled = core.compile_model(core.read_model(path), "CPU")
        results = compiled(feeds)
        return [np.array(results[output]).tobytes() for output in compiled.outputs]

    try:
        expected = run(dense)
    except Exception:  # noqa: BLE001 - whatever a runtime raises for a model that it cannot run
        return "cannot run the dense model"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "packed.onnx"
        model = load_model(dense)
        PackWeightsPass(cumsum=False, freeze_inputs=True)(model)
        save_model(model, path)
        try:
            return "equal" if run(path) == expected else "differs"
        except Exception as error:  # noqa: BLE001
            return f"fails: {str(error).strip().splitlines()[-1][:80]}"


def _web(dense: Path, packed: Path, feeds: dict[str, np.ndarray]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        listed = []
        for number, (key, array) in enumerate(feeds.items()):
            path = folder / f"feed{number}.bin"
            array.tofile(path)
            kind = str(array.dtype)
            listed.append({"name": key, "type": kind, "dims": list(array.shape), "path": str(path)})
        outputs = []
        for path in (dense, packed):
            job = {"models": [str(path)], "feeds": listed, "out": str(folder)}
            (folder / "job.json").write_text(json.dumps(job))
            done = subprocess.run(
                ["node", WEB / "web.mjs", folder / "job.json"], capture_output=True, check=False
            )
            if done.returncode:
                return "cannot run the dense model" if path == dense else "fails"
            outputs.append((folder / "0.bin").read_bytes())
    return "equal" if outputs[0] == outputs[1] else "differs"
