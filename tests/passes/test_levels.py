from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.layers import Layer, find_layers
from passes.levels import prune_levels
from passes.methods import METHODS
from passes.moments import Moments, moments
from passes.patterns import parse_pattern
from passes.weights import collect_weights

PATTERNS = ("unstructured", "2:4", "4x2", "channel")
KEEPS = (48, 30, 20, 8)


def layer_of(samples: int = 300) -> tuple[Layer, Moments, np.ndarray]:
    """A Gemm of 8 inputs and 6 outputs with a bias, and what it multiplies."""
    rng = np.random.default_rng(0)
    weight, bias = rng.standard_normal((6, 8)), rng.standard_normal(6)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)],
        "gemm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 6])],
        [
            numpy_helper.from_array(weight.astype(np.float32), "w"),
            numpy_helper.from_array(bias.astype(np.float32), "b"),
        ],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    model = ir.from_proto(proto)
    (layer,) = find_layers(model.graph, collect_weights(model).weights)
    x = (rng.standard_normal((samples, 8)) @ rng.standard_normal((8, 8)) + 1).astype(np.float32)
    return layer, moments(x[None], (x @ weight.T.astype(np.float32))[None]), x


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
def test_levels_are_what_they_say(method: str, text: str) -> None:
    layer, sums, x = layer_of()
    pattern = parse_pattern(text)
    levels = list(prune_levels(layer, sums, pattern, KEEPS, method=method))
    dense_weight = layer.weight.array()
    outputs = x @ dense_weight.T + layer.bias.value.const_value.numpy()
    for keep, level in zip(KEEPS, levels, strict=True):
        assert level.kept == level.mask.sum() <= keep
        assert pattern.obeys(level.mask)
        assert not level.weights[~level.mask].any()
        stored, bias = level.constants["w"], level.constants["b"]
        assert stored.dtype == dense_weight.dtype
        got = x @ stored.T + bias
        lost = ((got - outputs) ** 2).sum() / ((outputs - outputs.mean(axis=0)) ** 2).sum()
        assert lost <= level.error * 1.001 + 1e-9, "the error counts the damping in"
        assert lost >= level.error / 2 - 1e-3
        np.testing.assert_allclose(got.mean(axis=0), outputs.mean(axis=0), atol=1e-4)
    assert [level.error for level in levels] == sorted(level.error for level in levels)


@pytest.mark.parametrize("method", METHODS)
def test_a_level_does_not_depend_on_the_others(method: str) -> None:
    layer, sums, _ = layer_of()
    pattern = parse_pattern("unstructured")
    together = list(prune_levels(layer, sums, pattern, KEEPS, method=method))
    for keep, level in zip(KEEPS, together, strict=True):
        (alone,) = prune_levels(layer, sums, pattern, [keep], method=method)
        np.testing.assert_array_equal(alone.weights, level.weights)
