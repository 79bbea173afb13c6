"""Real models in the bridge: equal to onnxruntime, and their gradients true."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from real_feeds import feeds

from onnxprune.finetune.bridge import UnsupportedError, to_torch
from onnxprune.finetune.bridge.dtypes import from_array, to_array
from onnxprune.model_io import load_model
from onnxprune.runtime import Session
from passes.weights import collect_weights

REFUSED = {
    # The legacy beam search writes token numbers: nothing in it has a gradient.
    "ort_tiny_gpt2_beamsearch.onnx": "BeamSearch",
    # Experimental operators of 2017 that onnx itself no longer knows, so it cannot be converted.
    "style_fns_candy.onnx": "Affine, Crop, ImageScaler",
}
INTEGER_OUTPUTS = {
    # ArgMax is all that these give; no gradient passes it.
    "carvana_unet_upsample_small.onnx",
    "point_history_lstm.onnx",
}
BRANCH_NOT_TAKEN = {
    # Two nets in one, for two sampling rates; one feed has one of them.
    "silero_vad.onnx": "If_0_else_branch",
}
STEPS = {
    # Activations on a grid: one that lies at a rounding edge may go to the neighbouring step, as it
    # does between onnxruntime's own levels of optimization (0.16 % of the elements).
    "ort_qdq_multi_consumer_dq.onnx": 0.003,
}
HALF = {"hf_tiny_random_gpt2_fp16_past.onnx"}
SECONDS = {"dnsmos_sig_bak_ovr.onnx", "ort_simplified_ssd.onnx", "superres_espcn_pytorch.onnx"}
"""Models whose finite differences would take too long for what they add."""

FILES = sorted(
    path.relative_to(folder).as_posix()
    for folder in [Path(__file__).parents[4] / "shared" / "models"]
    for path in [*folder.glob("*.onnx"), *folder.glob("hate*/*.onnx")]
)


def test_there_are_real_models(shared_models: Path) -> None:
    assert len(FILES) >= 40


@pytest.mark.parametrize("name", FILES)
def test_forward_equals_onnxruntime_and_every_weight_is_reached(
    name: str, shared_models: Path
) -> None:
    torch.set_num_threads(1)
    path = shared_models / name
    if name in REFUSED:
        with pytest.raises(UnsupportedError, match=REFUSED[name]):
            to_torch(path)
        return
    module = to_torch(path)
    session = Session(path, threads=1)
    inputs = feeds(path.name, session.inputs)
    expected = session.run(inputs)
    tensors = {key: from_array(value) for key, value in inputs.items()}
    compare(name, expected, outputs_of(module, tensors), 2e-2 if name in HALF else 1e-4)
    found = collect_weights(load_model(path)).weights
    # A weight that ConstantOfShape fills with one number was never trained.
    prunable = [weight.name for weight in found if weight.place != "fill"]
    weights = module.weights
    assert set(prunable) <= set(weights)
    if name in INTEGER_OUTPUTS:
        return
    module.set_mode(straight_through=True)
    loss = loss_of(outputs_of(module, tensors))
    if not weights:
        return
    loss.backward()
    other_branch = BRANCH_NOT_TAKEN.get(name, "(none)")
    unreached = [key for key in prunable if weights[key].grad is None]
    assert [key for key in unreached if not key.startswith(other_branch)] == []
    assert any(p.grad is not None for p in weights.values())
    if name not in SECONDS | set(STEPS) and "qdq" not in name:
        check_gradient(path, inputs)


def outputs_of(module, tensors):
    results = module(tensors)
    return results if isinstance(results, tuple) else (results,)


def loss_of(outputs):
    """A smooth scalar: a fixed random projection of every float output."""
    total = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for value in outputs:
        if value.is_floating_point():
            direction = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            total = total + (value.double() * direction).sum()
    return total


def compare(name, expected, outputs, tolerance):
    assert len(expected) == len(outputs)
    for theirs, value in zip(expected, outputs, strict=True):
        ours = to_array(value)
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        error = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        limit = tolerance * np.abs(theirs.astype(np.float64)).max(initial=0) + 1e-6
        if name in STEPS:
            assert (error > limit).mean() <= STEPS[name]
        else:
            assert error.max(initial=0) <= limit


def check_gradient(path, inputs):
    """Autograd against central differences in float64, along one random direction in all weights."""
    module = to_torch(path, compute=torch.float64)
    tensors = {key: from_array(value) for key, value in inputs.items()}
    weights = [p for p in module.weights.values() if p.is_floating_point()]
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
    loss = loss_of(outputs_of(module, tensors))
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    slope = sum(
        float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None
    )
    measured = []
    for step in (1e-9, 1e-8, 1e-7, 1e-6):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(weights, directions, strict=True):
                    p.add_(d, alpha=sign * step)
                values.append(float(loss_of(outputs_of(module, tensors))))
                for p, d in zip(weights, directions, strict=True):
                    p.sub_(d, alpha=sign * step)
        measured.append((values[0] - values[1]) / (2 * step))
    # Relu and max have kinks: one of the steps must agree.
    assert min(abs(m - slope) for m in measured) <= 1e-3 * max(abs(slope), 1e-3), (measured, slope)
