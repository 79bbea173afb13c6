"""Builds the kernel library into the wheel; without a C compiler the wheel has none, and says so once."""

from __future__ import annotations

import re
import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MANYLINUX2014 = (2, 17)
"""Its release of glibc."""


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg, misc]
    """Compiles ``onnxprune/kernels/src`` before files are collected."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile; the wheel then is one of this platform, for every Python."""
        del version
        if self.target_name != "wheel":
            return
        compiling = runpy.run_path(str(Path(self.root) / "onnxprune" / "kernels" / "compile.py"))
        target = compiling["library_path"]()
        try:
            compiling["compile_library"](target)
        except compiling["CompileError"] as error:
            self.app.display_warning(
                f"onnxprune is built without kernels, so sparse models run at dense speed: {error}"
            )
            return
        build_data["artifacts"].append(str(target.relative_to(self.root)))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform(target.read_bytes())}"


def _platform(library: bytes) -> str:
    """The platform of the wheel: manylinux2014 where the library asks for no newer symbols of the C library."""
    plain = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    asked = [
        (int(major), int(minor)) for major, minor in re.findall(rb"GLIBC_(\d+)\.(\d+)", library)
    ]
    if plain.startswith("linux_") and asked and max(asked) <= MANYLINUX2014:
        return plain.replace("linux_", "manylinux_2_17_")
    return plain
