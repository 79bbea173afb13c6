"""Feeds for the real models: random values, at sizes that each model can take."""

from __future__ import annotations

import numpy as np

SIZES: dict[str, dict[str, tuple[int, ...]]] = {
    "aecmos_1663915512.onnx": {"input": (1, 3, 60, 160), "h0": (4, 1, 64)},
    "ppocr_cls.onnx": {"x": (1, 3, 48, 192)},
    "yunet_n_dynamic.onnx": {"input": (1, 3, 96, 128)},
    "silero_vad.onnx": {"input": (2, 512), "state": (2, 2, 128), "sr": ()},
    "silero_vad_half_fp16.onnx": {"input": (2, 512), "state": (2, 2, 128)},
    "plcmos_v1_nonintrusive.onnx": {"degraded_audio": (1, 1, 60, 257)},
    "tract_byte_sb_bidi_lstm.onnx": {"input": (2, 9)},
    "cms_particletransformer_AK4.onnx": {
        f"input_{i}": (2, n, width)
        for i, (n, width) in enumerate(((7, 16), (5, 8), (3, 14), (7, 4), (5, 4), (3, 4)), start=1)
    },
    "hf_tiny_random_gpt2_past.onnx": {
        "input_ids": (2, 3),
        "position_ids": (2, 3),
        "attention_mask": (2, 7),
        **{f"past_{i}": (2, 2, 4, 4, 8) for i in range(5)},
    },
}
SIZES["hf_tiny_random_gpt2_fp16_past.onnx"] = SIZES["hf_tiny_random_gpt2_past.onnx"]


def feeds(model, specs, seed=0):
    """Seeded values for the inputs of the model in file ``model``."""
    rng = np.random.default_rng(seed)
    made = {}
    for spec in specs:
        shape = SIZES.get(model, {}).get(spec.name, tuple(size or 2 for size in spec.shape))
        if spec.name == "sr":
            value = np.full(shape, 16000)
        elif spec.name == "attention_mask":
            value = np.ones(shape)
        elif spec.dtype.kind == "f":
            value = rng.standard_normal(shape)
        else:
            low, high = (
                (0, 256)
                if spec.dtype == np.uint8
                else (-128, 128)
                if spec.dtype == np.int8
                else (0, 2)
            )
            value = rng.integers(low, high, shape)
        made[spec.name] = np.asarray(value).astype(spec.dtype)
    return made
