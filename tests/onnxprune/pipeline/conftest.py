"""What tests of steps share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxprune.recipe import Recipe


@pytest.fixture
def start(mlp: Path, mlp_data: Path, tmp_path: Path) -> Callable[[Recipe, Path], subprocess.Popen]:
    """Starts ``compress`` on the small network in a process of its own, to be killed."""

    def started(recipe: Recipe, run: Path) -> subprocess.Popen:
        (tmp_path / "recipe.yaml").write_text(recipe.to_yaml())
        command = [
            sys.executable,
            "-m",
            "onnxprune",
            "compress",
            mlp,
            "--data",
            mlp_data,
            "-o",
            run,
        ]
        return subprocess.Popen(
            [*command, "--recipe", tmp_path / "recipe.yaml"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    return started
