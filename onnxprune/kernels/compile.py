"""Compiles the kernel library; the wheel's build calls it, and ``python -m onnxprune.kernels.compile`` does by hand.

Nothing of onnxprune is imported here: a build has only this file and a C compiler.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
NAME = "onnxprune_kernels"
SUFFIXES = {"linux": ".so", "darwin": ".dylib"}
COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-std=gnu11",  # vector extensions
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-ffp-contract=fast",
    "-Wall",
    "-Wextra",
    "-Wno-psabi",  # vectors are passed to nothing outside
)
X86 = {
    "multiply_avx2.c": ("-mavx2", "-mfma"),
    "multiply_avx512.c": (
        *("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq", "-mfma"),
        "-mprefer-vector-width=512",
    ),
}
"""Files that only x86-64 has, each for processors with certain instructions; which are there is found out at run time."""


class CompileError(Exception):
    """Why there is no library: no compiler, a platform that is not supported, or what the compiler said."""


def library_path() -> Path:
    """Where the library is, or would be."""
    return Path(__file__).with_name(f"lib{NAME}{SUFFIXES.get(sys.platform, '.so')}")


def compile_library(target: Path, *, options: tuple[str, ...] = ()) -> None:
    """Compile and link all sources.

    Args:
        target: the library to write.
        options: more of them for the compiler and the linker: sanitizers, say.

    Raises:
        CompileError: where that cannot be done.
    """
    if sys.platform not in SUFFIXES:
        msg = f"kernels are built on Linux and macOS, not on {sys.platform}"
        raise CompileError(msg)
    asked = os.environ.get("CC")
    compiler = next(
        (found for name in ([asked] if asked else COMPILERS) if (found := shutil.which(name))), None
    )
    if compiler is None:
        msg = f"there is no C compiler ({asked or ', '.join(COMPILERS)})"
        raise CompileError(msg)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        objects = []
        for source in sorted(SOURCES.glob("*.c")):
            if source.name in X86 and platform.machine() not in {"x86_64", "AMD64"}:
                continue
            objects.append(str(Path(folder) / f"{source.stem}.o"))
            extra = (*X86.get(source.name, ()), *options)
            _run([compiler, *FLAGS, *extra, "-c", str(source), "-o", objects[-1]])
        linked = Path(folder) / target.name
        _run([compiler, "-shared", *options, *objects, "-o", str(linked)])
        linked.replace(target)


def _run(command: list[str]) -> None:
    made = subprocess.run(  # noqa: S603 - the compiler that the user has, on our own files
        command, capture_output=True, text=True, check=False
    )
    if made.returncode:
        msg = f"`{' '.join(command)}` failed:\n{made.stderr.strip()}"
        raise CompileError(msg)


if __name__ == "__main__":
    try:
        compile_library(library_path())
    except CompileError as error:
        sys.exit(f"no kernels: {error}")
    sys.stdout.write(f"{library_path()}\n")
