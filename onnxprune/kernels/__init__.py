"""Kernels that make sparse models faster in the onnxruntime that is installed: a library of custom operators.

``onnxprune accelerate`` writes a model whose sparse products are operators of the domain ``onnxprune``. Each is a
function of standard operators in the model itself, so that the file runs everywhere; where this library is
registered, its kernels run in the functions' place:

    options = onnxruntime.SessionOptions()
    onnxprune.kernels.register(options)
    session = onnxruntime.InferenceSession("fast.onnx", options)

Users of C, C++, C#, Java or Node register the file of :func:`library` by their own API. The sources are C under
``src``, compiled when onnxprune is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from onnxprune.errors import KernelError

if TYPE_CHECKING:
    from pathlib import Path


def library_path() -> Path:
    """Where the library is, or would be."""
    # It is a program, too, which must not have been loaded when it is run.
    from onnxprune.kernels import compile as compiling

    return compiling.library_path()


def library() -> Path:
    """The library's file.

    Raises:
        KernelError: where none was built; models run all the same, at dense speed.
    """
    path = library_path()
    if not path.is_file():
        msg = (
            "there is no kernel library for this machine; install a C compiler and run "
            "`python -m onnxprune.kernels.compile`, or go without: accelerated models then run at dense speed"
        )
        raise KernelError(msg)
    return path


def register(options: Any) -> None:
    """Let sessions that are made with these options use the kernels.

    Args:
        options: ``onnxruntime.SessionOptions``.

    Raises:
        KernelError: where there is no library.
    """
    options.register_custom_ops_library(str(library()))


def available() -> bool:
    """Whether the library was built."""
    return library_path().is_file()
