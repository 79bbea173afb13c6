"""Compile a loop that numpy cannot express.

With numba the decorated functions run as machine code, kept on disk from one process to the next;
without it they run as the Python that they are, with the same results, some fifty times slower.
Importing numba takes a third of a second, so import the modules that use this late.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

numba: Any = None
with contextlib.suppress(ImportError):  # numba is a dependency; this is for platforms without it
    numba = importlib.import_module("numba")


def inner(function: F) -> F:
    """Let a function be called by compiled ones; on its own it stays the Python that it is."""
    if numba is None:  # pragma: no cover
        return function
    jitable: F = importlib.import_module("numba.extending").register_jitable(function)
    return jitable


def compiled(function: F) -> F:
    """The function, compiled when it is first called; its own code stays under ``py_func``."""
    if numba is None:  # pragma: no cover
        return function
    machine: F
    try:
        machine = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # pragma: no cover - no folder to keep machine code in
        machine = numba.njit(nogil=True)(function)
    else:
        _watch_sources(machine, Path(function.__code__.co_filename))
    return machine


def _watch_sources(machine: Any, path: Path) -> None:
    """Compile anew when a source with inner functions has changed, not only the function's own."""
    here = Path(__file__).parent
    sources = [path, *sorted((here / "dram").glob("*.py")), *sorted(here.glob("*kernels.py"))]
    stamps = tuple((str(source), source.stat().st_mtime_ns) for source in sources)
    with contextlib.suppress(AttributeError, OSError):  # numba offers no public way to say so
        machine._cache._cache_file._source_stamp = stamps  # noqa: SLF001
