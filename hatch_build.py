"""Builds the kernel library into the wheel; without a C compiler the wheel has none, and says so once."""

from __future__ import annotations

import runpy
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


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
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"
