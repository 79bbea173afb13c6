"""Heavy libraries are loaded only where they are needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "onnxruntime", "sklearn", "skopt", "numba")


def loaded_by(code: str) -> set[str]:
    """Which heavy libraries are loaded after ``code`` ran in a fresh interpreter."""
    probe = f"{code}\nimport sys\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_onnxprune_loads_nothing_heavy() -> None:
    assert loaded_by("import onnxprune") == set()


def test_importing_passes_and_hwmodel_loads_nothing_heavy() -> None:
    assert loaded_by("import passes.pack, passes.apply, hwmodel.blob, hwmodel.fetch") == set()


def test_help_loads_nothing_heavy() -> None:
    code = "from onnxprune.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_by(code) == set()


@pytest.mark.parametrize("name", ["onnxruntime", "sklearn"])
def test_the_check_can_fail(name: str) -> None:
    assert name in loaded_by(f"import {name}")
