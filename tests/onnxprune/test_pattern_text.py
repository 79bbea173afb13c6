"""Patterns that name a memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune import api
from onnxprune.errors import RecipeError
from onnxprune.one_shot import OneShot
from onnxprune.pattern_text import read_pattern
from onnxprune.recipe import load_recipe
from passes.patterns import Burst, Segments

MODEL = Path(__file__).parents[2] / "models" / "lenet5.onnx"


def test_a_burst_is_that_of_the_memory() -> None:
    assert read_pattern("burst:ddr4-2400") == Burst(burst=64, chunk=1024)
    assert read_pattern("burst:32x256") == Burst(burst=32, chunk=256)
    assert read_pattern("segments:16x64") == Segments(lanes=16, chunk=64)


def test_recipes_hold_the_bytes(tmp_path: Path) -> None:
    """So that what a run did can be read without the memory's file."""
    (tmp_path / "own.yaml").write_text(
        "mine:\n  kind: sram\n  bus_bits: 256\n  tCK_ns: 1\n  read_latency: 2\n"
    )
    recipe = load_recipe(None, {"prune": {"pattern": f"burst:{tmp_path / 'own.yaml'}"}})
    assert recipe.prune.pattern == "burst:32x1024"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("burst:dram", "there is no memory 'dram'; known are"),
        ("burst:", "wants a memory, or bytes and weights as 64x1024"),
        ("burst:64x", "there is no memory '64x'"),
        ("segment:16x64", "is not understood"),
    ],
)
def test_others_are_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        read_pattern(text)
    with pytest.raises(RecipeError, match=words):
        load_recipe(None, {"prune": {"pattern": text}})
    out, options = tmp_path / "o.onnx", OneShot(pattern=text)
    with pytest.raises(RecipeError, match=words):
        api.prune(MODEL, out, sparsity=0.5, options=options)


def test_a_memory_that_lacks_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("mine:\n  kind: sram\n  tCK_ns: 1\n")
    with pytest.raises(ValueError, match="bus_bits"):
        read_pattern(f"burst:{tmp_path / 'own.yaml'}")
