"""Calibration in bounded memory, counted; and what cannot be calibrated is said by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune import api
from onnxprune.errors import DataError
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from passes import calibration
from passes.calibration import calibrate
from passes.layers import find_layers
from passes.schedule import folded_nodes, schedule
from passes.sequential import Options, prune_sequentially
from passes.stream import Stream
from passes.weights import collect_weights
from tests.onnxprune.test_one_shot import make_net
from tests.passes.test_readers import runner

BATCH, BATCHES = 8, 6


class Counting:
    """A runner that counts sessions and batches."""

    def __init__(self) -> None:
        self.sessions = self.batches = 0

    def __call__(self, model: bytes, feeds: Any) -> Any:
        self.sessions += 1
        for made in runner(model, feeds):
            self.batches += 1
            yield made


@pytest.fixture
def net(tmp_path: Path) -> ir.Model:
    return load_model(make_net(tmp_path / "net.onnx"))


@pytest.fixture
def batches() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.standard_normal((BATCH, 3, 8, 8)).astype(np.float32)} for _ in range(BATCHES)]


def prune(net: ir.Model, batches: list[dict[str, np.ndarray]], limit: int) -> tuple[Any, Counting]:
    weights, counting = collect_weights(net).weights, Counting()
    keep = {weight.name: weight.elements // 2 for weight in weights}
    made = prune_sequentially(net, weights, keep, batches, counting, Options(stream_bytes=limit))
    return made, counting


def test_without_room_batches_start_anew_and_the_result_is_the_same(
    net: ir.Model, batches: list[dict[str, np.ndarray]]
) -> None:
    whole, once = prune(net, batches, 2**31)
    none, anew = prune(net, batches, 0)
    some, partly = prune(net, batches, 2 * 3 * BATCH * 8 * 8 * 8 * 4)
    # Three of the four layers have nodes between them and the one before; the first reads the input.
    assert once.batches == 2 * 3 * BATCHES
    assert anew.batches == once.batches, "as many runs, of longer stretches"
    assert partly.sessions > once.sessions
    for other in (none, some):
        for name, array in whole.constants.items():
            np.testing.assert_allclose(other.constants[name], array, rtol=1e-3, atol=1e-5)


def test_a_stream_never_holds_more_than_its_limit(
    net: ir.Model, batches: list[dict[str, np.ndarray]]
) -> None:
    folded = folded_nodes(net.graph)
    nodes = schedule(net.graph, {}, folded)
    one = BATCH * 8 * 8 * 8 * 4
    for limit in (0, one, 3 * one, 100 * one):
        stream = Stream(net, nodes, folded, batches, runner, {}, limit)
        for stop in range(1, len(nodes)):
            assert len(list(stream.visit(stop))) == BATCHES
            assert stream.held_bytes <= limit


def test_taps_are_split_into_passes_when_they_are_too_large(
    net: ir.Model, batches: list[dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = find_layers(net.graph, collect_weights(net).weights)

    def run() -> tuple[dict[str, Any], int]:
        counting = Counting()
        known = calibrate(net, layers, batches, counting, positions=10**9)
        return {name: sums.gram for name, sums in known.items()}, counting.sessions

    whole, sessions = run()
    assert sessions == 1
    monkeypatch.setattr(calibration, "TAP_BYTES", 1)
    split, sessions = run()
    assert sessions == len(layers), "one that was too much, then one for each but the input's layer"
    for name, gram in whole.items():
        np.testing.assert_allclose(split[name], gram)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_activations_that_are_no_numbers_are_refused_by_name(tmp_path: Path, bad: float) -> None:
    net = make_net(tmp_path / "net.onnx")
    model = load_model(net)
    bias = model.graph.initializers["b0"]
    assert bias.const_value is not None
    array = bias.const_value.numpy().copy()
    array[3] = bad
    bias.const_value = ir.tensor(array, name="b0")
    ir.save(model, net)
    data = {"x": np.ones((4, 3, 8, 8), np.float32)}
    for options in (OneShot(method="obs"), OneShot(method="obs", allocation="uniform")):
        with pytest.raises(DataError, match=r"weight 'w[012]'"):
            api.prune(net, tmp_path / "o.onnx", sparsity=0.5, data=data, options=options)
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("kind", ["dead", "one sample", "constant"])
@pytest.mark.parametrize("allocation", [None, "uniform"])
def test_degenerate_data_still_prune(tmp_path: Path, kind: str, allocation: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    if kind == "dead":
        x[:, 1] = 0
    elif kind == "one sample":
        x = x[:1]
    else:
        x[:] = 0.5
    options = OneShot(method="obs", allocation=allocation)
    net, out = make_net(tmp_path / "net.onnx"), tmp_path / "o.onnx"
    report = api.prune(net, out, sparsity=0.5, data={"x": x}, options=options)
    assert report.totals is not None
    assert report.totals.sparsity == pytest.approx(0.5, abs=0.01)
    for weight in collect_weights(load_model(out)).weights:
        assert np.isfinite(weight.array()).all()
