"""Writing files so that nothing is ever half-written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from typing import TYPE_CHECKING

from onnxprune.errors import OutputError

BLOCK = 2**20

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path in the folder of ``path``, renamed to ``path`` when the block ends well.

    On any error the temporary file is removed, and ``path`` stays as it was.

    Raises:
        OutputError: when the folder is missing, is no folder, cannot be written, or is full.
    """
    check_parent(path)
    if path.is_dir():
        msg = f"cannot write '{path}': it is a folder; name a file"
        raise OutputError(msg)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise output_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or nothing.

    Raises:
        OutputError: as :func:`replacing`.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole text file in UTF-8, or nothing.

    Raises:
        OutputError: as :func:`replacing`.
    """
    write_bytes(path, content.encode())


def append_line(path: Path, line: str) -> None:
    """Append a line and see it to the disk.

    Raises:
        OutputError: when it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise output_error(path, error) from error


def whole_lines(content: bytes) -> bytes:
    """What was appended by :func:`append_line`, without a last line that a kill tore."""
    return content[: content.rfind(b"\n") + 1]


def sha256_of(*files: Path) -> str:
    """SHA-256 over the bytes of files, one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


def check_parent(path: Path) -> None:
    """Check before any work is done that ``path`` can be written.

    Raises:
        OutputError: when its folder is missing or cannot be written.
    """
    parent = path.parent
    if not parent.is_dir():
        msg = f"cannot write '{path}': the folder '{parent}' does not exist; create it first"
        raise OutputError(msg)
    if not os.access(parent, os.W_OK | os.X_OK):
        msg = f"cannot write '{path}': no permission to write into '{parent}'"
        raise OutputError(msg)


def output_error(path: Path, error: OSError) -> OutputError:
    """The error of the operating system as one sentence about ``path``."""
    return OutputError(f"cannot write '{path}': {error.strerror or error}")


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
