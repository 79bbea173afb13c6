"""The models that come with onnx itself: read, inspected, written, and never a crash."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import onnx.backend.test
import pytest

from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, model_bytes, save_model
from passes.magnitude import PruneByMagnitudePass
from passes.weights import collect_weights

DATA = Path(onnx.backend.test.__file__).parent / "data"


def same(path: Path, copy: Path) -> bool:
    """Whether the copy is the model, sparse tensors aside, which are made dense."""
    before, after = onnx.load(path), onnx.load(copy)
    return before == after


@pytest.mark.parametrize("kind", ["light", "simple", "pytorch-converted", "pytorch-operator"])
def test_models_on_disk(kind: str, tmp_path: Path) -> None:
    paths = sorted((DATA / kind).rglob("*.onnx"))
    assert paths
    for path in paths:
        model = load_model(path)
        collection = collect_weights(model, embeddings=True)
        assert all(s.reason for s in collection.skipped), path
        assert save_model(model, tmp_path / "copy.onnx") == (tmp_path / "copy.onnx").stat().st_size
        assert same(path, tmp_path / "copy.onnx"), path


@pytest.mark.slow
def test_node_tests(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some cases overflow on purpose when they are made
        from onnx.backend.test.loader import load_model_tests

        cases = load_model_tests(kind="node")
    assert len(cases) > 1000
    path = tmp_path / "m.onnx"
    for case in cases:
        proto = case.model or onnx.load(Path(case.model_dir) / "model.onnx")
        path.write_bytes(proto.SerializeToString())
        model = load_model(path)
        collection = collect_weights(model, embeddings=True)
        assert all(s.reason for s in collection.skipped), case.name
        if "sparse" not in case.name:  # those are made dense
            assert onnx.ModelProto.FromString(model_bytes(model)) == proto, case.name


def test_damaged_models_are_errors_of_ours_and_no_crash(tmp_path: Path) -> None:
    """Bytes of small models overwritten one at a time."""
    path = tmp_path / "m.onnx"
    refused = 0
    for model in sorted((DATA / "simple").rglob("*.onnx"))[::4]:
        source = model.read_bytes()
        for place in range(0, len(source), 5):
            for byte in (b"\xff", b"\x00", b"\x7f"):
                path.write_bytes(source[:place] + byte + source[place + 1 :])
                try:
                    loaded = load_model(path)
                    weights = collect_weights(loaded, embeddings=True).weights
                    PruneByMagnitudePass({w.name: w.elements // 2 for w in weights})(loaded)
                    model_bytes(loaded)
                except ModelError:
                    refused += 1
    assert refused > 100
