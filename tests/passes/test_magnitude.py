"""Pruning block by block against masks: the same bits, whatever the values and the layout."""

from __future__ import annotations

import io

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import passes.magnitude
import passes.threshold
from passes.allocation import global_threshold
from passes.apply import ApplyMasksPass
from passes.magnitude import PruneByMagnitudePass, PrunedTensor, global_keep
from passes.patterns import Unstructured
from passes.saliency import magnitude
from passes.threshold import KeyStream, find_threshold, keys_of
from passes.weights import collect_weights

DTYPES = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)


def value(name, array=None, dtype=None, shape=None):
    if array is None:
        return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape))
    tensor = ir.tensor(array, name=name)
    return ir.Value(
        name=name, type=ir.TensorType(tensor.dtype), shape=tensor.shape, const_value=tensor
    )


def model_of(**arrays: np.ndarray) -> ir.Model:
    """A chain of MatMuls, each of which reads one array on its right."""
    previous = x = value("x", shape=[1, 1])
    nodes, initializers = [], []
    for name, array in arrays.items():
        weight = value(name, array)
        initializers.append(weight)
        node = ir.node("MatMul", [previous, weight], name=f"node_{name}")
        nodes.append(node)
        previous = node.outputs[0]
        previous.name = f"out_{name}"
    graph = ir.Graph(
        [x], [previous], nodes=nodes, initializers=initializers, opset_imports={"": 17}
    )
    return ir.Model(graph, ir_version=8)


def bits(model: ir.Model, name: str) -> bytes:
    return model.graph.initializers[name].const_value.tobytes()


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    size = shape[0] * shape[1]
    # Few distinct values, zeros of both signs and extremes: ties and borders are the hard cases.
    values = [-0.0, 0.0, 1.0, -1.0, 2.0, -2.0, 0.5, np.inf, 1e-7, 1e-45, 1e-300]
    chosen = draw(st.lists(st.sampled_from(values), min_size=size, max_size=size))
    return np.array(chosen).reshape(shape).astype(draw(st.sampled_from(DTYPES)))


@given(array=arrays(), share=st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_the_same_bits_as_a_mask(array: np.ndarray, share: float) -> None:
    keep = round(share * array.size)
    streamed, masked = model_of(w=array), model_of(w=array)
    weight = collect_weights(masked).weights[0]
    mask = Unstructured().mask(magnitude(weight.matrices()), keep)
    expected = ApplyMasksPass({"w": mask})(masked).modified
    step = PruneByMagnitudePass({"w": keep})
    assert step(streamed).modified == expected
    assert bits(streamed, "w") == bits(masked, "w")
    tensor = streamed.graph.initializers["w"].const_value
    if isinstance(tensor, PrunedTensor):
        stream = io.BytesIO()
        tensor.tofile(stream)
        assert stream.getvalue() == bits(masked, "w")
        if array.dtype != np.float64:
            assert tensor.nonzeros == np.count_nonzero(tensor.numpy())
    assert not step(streamed).modified, "a second time changes nothing"


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(-3, 4, (70, 90)).astype(np.float32)
    whole = model_of(w=array)
    PruneByMagnitudePass({"w": 2000})(whole)
    expected = bits(whole, "w")
    monkeypatch.setattr(passes.magnitude, "BLOCK", 64)
    blocks = model_of(w=array)
    PruneByMagnitudePass({"w": 2000})(blocks)
    assert bits(blocks, "w") == expected
    assert np.count_nonzero(np.frombuffer(expected, np.float32)) == 2000


class Listed(KeyStream):
    def __init__(self, values: np.ndarray, misleading: bool) -> None:
        self.values = values
        self.size = values.size
        self.misleading = misleading

    def blocks(self):
        for start in range(0, self.size, 1000):
            yield self.values[start : start + 1000].copy()

    def sample(self, count: int) -> np.ndarray:
        del count
        return np.full(64, 7, np.uint32) if self.misleading else self.values[:: 1 + self.size // 50]


@pytest.mark.parametrize("misleading", [False, True])
@given(seed=st.integers(0, 10**6), distinct=st.sampled_from([3, 100, 2**31]), share=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_thresholds_are_exact_even_when_the_sample_misleads(
    misleading: bool, seed: int, distinct: int, share: float
) -> None:
    keys = np.random.default_rng(seed).integers(0, distinct, 5000).astype(np.uint32)
    keep = max(1, round(share * keys.size))
    found = find_threshold(Listed(keys, misleading), keep)
    assert found.key == np.sort(keys)[::-1][keep - 1]
    assert found.above == np.count_nonzero(keys > found.key)
    assert found.equal == np.count_nonzero(keys == found.key)


def test_a_threshold_out_of_range_is_refused() -> None:
    for keep in (0, 11):
        with pytest.raises(ValueError, match="between 1 and 10"):
            find_threshold(Listed(np.arange(10, dtype=np.uint32), misleading=False), keep)


def test_keys_order_as_magnitudes_do_and_nan_is_kept() -> None:
    values = np.array([0.0, 1e-45, -1e-7, 1.0, -2.0, np.inf, np.nan], np.float32)
    assert np.all(np.diff(keys_of(values).astype(np.int64)) > 0)


@given(data=st.lists(arrays(), min_size=1, max_size=4), sparsity=st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_global_counts_are_those_of_one_threshold(data: list[np.ndarray], sparsity: float) -> None:
    model = model_of(**{f"w{i}": array for i, array in enumerate(data)})
    weights = collect_weights(model).weights
    scores = {weight.name: magnitude(weight.matrices()) for weight in weights}
    assert global_keep(weights, sparsity) == global_threshold(scores, sparsity)


def test_names_and_counts_that_do_not_fit_are_refused() -> None:
    model = model_of(w=np.ones((2, 3), np.float32))
    with pytest.raises(ir.passes.PreconditionError, match="no such prunable weight"):
        PruneByMagnitudePass({"v": 1})(model)
    with pytest.raises(ir.passes.PreconditionError, match="has 6 elements and cannot keep 7"):
        PruneByMagnitudePass({"w": 7})(model)
