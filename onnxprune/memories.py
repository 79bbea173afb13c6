"""Memories as users name them: shipped ones, and their own YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hwmodel.errors import MemoryFileError
from hwmodel.memory import load_memory, make_memory, memory_names
from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from hwmodel.memory import Memory

DEFAULT_MEMORY = "ddr4-2400"
SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 1 << 20
"""A specification is a few kilobytes; a larger file is something else."""


def find_memory(text: str) -> Memory:
    """One memory: a name, a YAML file that holds one, or ``file.yaml:name``.

    Raises:
        RecipeError: when there is none, or more than one.
    """
    found = find_memories(text)
    if len(found) != 1:
        names = ", ".join(memory.name for memory in found)
        msg = f"'{text}' holds {len(found)} memories ({names}); choose one as FILE:NAME"
        raise RecipeError(msg)
    return found[0]


def find_memories(text: str) -> list[Memory]:
    """Memories separated by commas: names, YAML files (all memories in them), or ``file.yaml:name``.

    Raises:
        RecipeError: naming what is not there or wrong, and what there is.
    """
    result: list[Memory] = []
    for part in (part.strip() for part in text.split(",")):
        path, name = _split(part)
        if path is None:
            if part not in memory_names():
                msg = (
                    f"there is no memory '{part}'; known are {', '.join(memory_names())}, "
                    "or give a YAML file with one of your own"
                )
                raise RecipeError(msg)
            result.append(load_memory(part))
            continue
        memories = _read(path)
        if name is not None and name not in memories:
            msg = f"'{path}' holds no memory '{name}'; it holds {', '.join(memories)}"
            raise RecipeError(msg)
        chosen = memories if name is None else {name: memories[name]}
        for label, values in chosen.items():
            try:
                result.append(make_memory(label, values))
            except MemoryFileError as error:
                msg = f"'{path}': {error}"
                raise RecipeError(msg) from error
    return result


def _split(part: str) -> tuple[Path | None, str | None]:
    """File and name of a memory in it; no file for a name alone."""
    if part.endswith(SUFFIXES):
        return Path(part), None
    path, colon, name = part.rpartition(":")
    return (Path(path), name) if colon and path.endswith(SUFFIXES) else (None, None)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        if path.stat().st_size > MOST_BYTES:
            msg = f"'{path}' has {path.stat().st_size} bytes; a file of memories has at most {MOST_BYTES}"
            raise RecipeError(msg)
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"there is no file '{path}'; check the path to the memories"
        raise RecipeError(msg) from None
    except (OSError, UnicodeDecodeError) as error:
        msg = f"cannot read memories from '{path}': {error}"
        raise RecipeError(msg) from error
    except (yaml.YAMLError, RecursionError) as error:
        msg = f"'{path}' is not valid YAML: {str(error).splitlines()[0]}"
        raise RecipeError(msg) from error
    good = isinstance(content, dict) and content
    if not good or not all(isinstance(values, dict) for values in content.values()):
        msg = f"'{path}' must hold memories by name, each a mapping of keys such as tRCD: 17"
        raise RecipeError(msg)
    return {str(name): values for name, values in content.items()}
