"""Operators of com.microsoft against onnxruntime, forward; their gradients against differences."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onnxprune.finetune.bridge import to_torch
from onnxprune.finetune.bridge.dtypes import from_array

F = TensorProto.FLOAT
I = TensorProto.INT32  # noqa: E741


def values(*shape, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) / 2).astype(np.float32)


def model_of(op, inputs, weights, outputs, **attributes):
    """One node: ``inputs`` are (name, array) that are fed, ``weights`` are stored; "" leaves one out."""
    order = attributes.pop("order")
    node = helper.make_node(op, order, outputs, domain="com.microsoft", **attributes)
    kinds = {"f": F, "i": I}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(n, kinds[a.dtype.kind], a.shape) for n, a in inputs.items()],
        [
            helper.make_tensor_value_info(n, F if n != "mask_index" else I, None)
            for n in outputs
            if n
        ],
        [numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


X = values(2, 5, 8)
TOKENS = np.random.default_rng(3).integers(0, 9, (2, 5)).astype(np.int32)
MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], np.int32)
ATTENTION = {"w": values(8, 24, seed=1), "b": values(24, seed=2)}
NORM = {"gamma": values(8, seed=4) + 1, "beta": values(8, seed=5)}
TABLES = {
    "words": values(9, 8, seed=6),
    "places": values(7, 8, seed=7),
    "kinds": values(2, 8, seed=8),
}

CASES = {
    "gelu": ("Gelu", {"x": X}, {}, ["y"], {"order": ["x"]}),
    "bias gelu": ("BiasGelu", {"x": X}, {"b": values(8)}, ["y"], {"order": ["x", "b"]}),
    "fast gelu": ("FastGelu", {"x": X}, {}, ["y"], {"order": ["x"]}),
    "fast gelu with bias": ("FastGelu", {"x": X}, {"b": values(8)}, ["y"], {"order": ["x", "b"]}),
    "quick gelu": ("QuickGelu", {"x": X}, {}, ["y"], {"order": ["x"], "alpha": 1.5}),
    "fused matmul": (
        "FusedMatMul", {"x": X}, {"w": values(6, 8)}, ["y"],
        {"order": ["x", "w"], "alpha": 0.5, "transB": 1},
    ),
    "fused matmul, both turned": (
        "FusedMatMul", {"x": X}, {"w": values(2, 6, 5)}, ["y"],
        {"order": ["x", "w"], "transA": 1, "transB": 1},
    ),
    "skip layer norm": (
        "SkipLayerNormalization", {"x": X, "s": values(2, 5, 8, seed=9)}, {**NORM, "b": values(8)},
        ["y", "", "", "sum"], {"order": ["x", "s", "gamma", "beta", "b"], "epsilon": 1e-5},
    ),
    "skip simplified layer norm": (
        "SkipSimplifiedLayerNormalization", {"x": X, "s": values(2, 5, 8, seed=9)},
        {"gamma": NORM["gamma"]}, ["y", "", "", "sum"], {"order": ["x", "s", "gamma"]},
    ),
    "embed layer norm": (
        "EmbedLayerNormalization", {"ids": TOKENS, "kind": TOKENS % 2, "mask": MASK},
        {**TABLES, **NORM}, ["y", "mask_index"],
        {"order": ["ids", "kind", "words", "places", "kinds", "gamma", "beta", "mask"]},
    ),
    "attention": (
        "Attention", {"x": X}, ATTENTION, ["y"], {"order": ["x", "w", "b"], "num_heads": 2},
    ),
    "attention, masked": (
        "Attention", {"x": X, "m": MASK}, ATTENTION, ["y"],
        {"order": ["x", "w", "b", "m"], "num_heads": 2},
    ),
    "attention, masked by lengths": (
        "Attention", {"x": X, "m": np.array([4, 3], np.int32)}, ATTENTION, ["y"],
        {"order": ["x", "w", "b", "m"], "num_heads": 2},
    ),
    "attention, causal with a past": (
        "Attention", {"x": X, "past": values(2, 2, 2, 3, 4, seed=11)}, ATTENTION, ["y", "present"],
        {"order": ["x", "w", "b", "", "past"], "num_heads": 2, "unidirectional": 1},
    ),
    "attention with a bias on its logits": (
        "Attention", {"x": X}, {**ATTENTION, "more": values(2, 2, 5, 5)}, ["y"],
        {"order": ["x", "w", "b", "", "", "more"], "num_heads": 2, "scale": 0.3},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_forward_equals_onnxruntime_and_the_gradient_differences(name: str) -> None:
    op, inputs, weights, outputs, attributes = CASES[name]
    model = model_of(op, inputs, weights, outputs, **dict(attributes))
    module = to_torch(model)
    feeds = {n: from_array(a) for n, a in inputs.items()}
    results = module(feeds)
    results = results if isinstance(results, tuple) else (results,)
    for ours, theirs in zip(
        results, ort.InferenceSession(model.SerializeToString()).run(None, inputs), strict=True
    ):
        assert ours.detach().numpy().dtype == theirs.dtype
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-4, atol=2e-6)
    assert set(module.weights) == set(weights)
    exact = to_torch(model, compute=torch.float64)
    trained = list(exact.weights.values())
    if not trained:
        return

    def loss(*_: torch.Tensor) -> torch.Tensor:
        found = exact(feeds)
        first = found[0] if isinstance(found, tuple) else found
        direction = torch.linspace(-1, 1, first.numel(), dtype=torch.float64).reshape(first.shape)
        return (first * direction).sum()

    assert torch.autograd.gradcheck(loss, trained, eps=1e-6, atol=1e-5, rtol=1e-4)
