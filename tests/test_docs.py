"""The documentation covers every command and option, and is free of dead ends."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import onnxprune
from onnxprune import api
from onnxprune.cli import command_names

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def commands_page() -> str:
    code = (
        "import sys; sys.path.insert(0, 'docs'); import generate; print(generate.commands_page())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_options_without_a_command_are_documented(commands_page: str) -> None:
    command = [sys.executable, "-m", "onnxprune", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", done.stdout)) - {"--help"}
    assert options == {"--version", "--install-completion", "--show-completion"}
    section = commands_page.partition("## Without a command")[2].partition("\n## ")[0]
    assert all(option in section for option in options)


@pytest.mark.parametrize("name", command_names())
def test_every_command_and_option_of_the_help_is_documented(name: str, commands_page: str) -> None:
    command = [sys.executable, "-m", "onnxprune", name, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    sections = re.split(r"^## ", commands_page, flags=re.MULTILINE)
    [section] = [part for part in sections if part.startswith(f"{name}\n")]
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", done.stdout)) - {"--help"}
    assert options
    for option in options:
        assert option in section, option


def test_every_public_function_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    members = re.search(r":members: (.+)", page)
    assert members is not None
    assert set(members[1].split(", ")) == set(api.__all__)
    functions = set(api.__all__)
    errors = {name for name in onnxprune.__all__ if name.endswith("Error")}
    assert ".. automodule:: onnxprune.errors" in page
    assert errors == {name for name in vars(onnxprune.errors) if name.endswith("Error")}
    others = set(re.findall(r"\.\. auto(?:class|function):: onnxprune\.(\w+)", page))
    assert functions | errors | others | {"__version__"} == set(onnxprune.__all__)


def test_the_tree_of_exceptions_is_drawn_as_it_is() -> None:
    for text in (onnxprune.__doc__, onnxprune.errors.__doc__):
        drawn = re.findall(r"^ +[├└]── (\w+)", text or "", re.MULTILINE)
        assert drawn[0] == "OnnxPruneError"
        assert set(drawn[1:]) == {e.__name__ for e in onnxprune.OnnxPruneError.__subclasses__()}
        assert len(drawn) == len(set(drawn))
    assert onnxprune.OnnxPruneError.__base__ is ValueError


def test_public_names_are_functions_and_classes_whatever_was_imported_before() -> None:
    probe = """
import onnxprune.search.space, onnxprune.compress, onnxprune.report
import onnxprune, types
from onnxprune.search.space import ladder
assert ladder(4)
for name in onnxprune.__all__:
    value = getattr(onnxprune, name)
    assert not isinstance(value, types.ModuleType), name
    assert name == "__version__" or value.__doc__, name
assert dir(onnxprune) == sorted(onnxprune.__all__)
assert not hasattr(onnxprune, "nonsense")
"""
    subprocess.run([sys.executable, "-c", probe], check=True, cwd=ROOT)


def test_commands_in_the_documentation_exist() -> None:
    known = set(command_names())
    for path in [*DOCS.rglob("*.md"), *ROOT.glob("*.md"), *ROOT.glob("models/*.md")]:
        text = path.read_text(encoding="utf-8")
        shown = re.findall(r"^[ $]*(?:\.venv/bin/)?onnxprune ([a-z][a-z-]*)", text, re.MULTILINE)
        quoted = re.findall(r"`onnxprune ([a-z][a-z-]*)", text)
        prose = {"makes"}  # a sentence may begin with the name, too
        assert {*shown, *quoted} - prose <= known, path
