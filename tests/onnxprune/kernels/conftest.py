"""What tests of the kernels share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxprune import kernels
from tests.onnxprune.kernels.layers import write_layer


@pytest.fixture(scope="session")
def library() -> Path:
    """The kernel library; tests skip where this machine has none, and fail where gcc is required."""
    if not kernels.available():
        if "gcc" in os.environ.get("ONNXPRUNE_REQUIRE", "").split():
            pytest.fail("the kernel library was not built, though a compiler is required here")
        pytest.skip("the kernel library was not built: there was no C compiler")
    return kernels.library()


@pytest.fixture
def layer_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes models of one product."""
    return lambda layer, **how: write_layer(tmp_path / "layer.onnx", layer, **how)
