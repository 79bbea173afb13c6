"""Reading ``.npz`` files that we do not trust.

Arrays are read without pickle. What an array declares is checked against what its archive member
holds before any memory is taken, so a small file cannot ask for more than it says openly.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any

from numpy.lib import format as npy

from onnxprune.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

MAX_BYTES = 16 * 2**30
"""The most that one file may expand to."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz`` file by name.

    Raises:
        DataError: when the file is missing, is no ``.npz``, is damaged, holds pickled objects, or
            expands to more than ``MAX_BYTES``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(info.file_size for info in archive.infolist())
            if total > MAX_BYTES:
                msg = (
                    f"'{path}' expands to {total} bytes; at most {MAX_BYTES} are read from one file"
                )
                raise DataError(msg)
            return {
                info.filename.removesuffix(".npy"): _read_member(archive, info, path)
                for info in archive.infolist()
            }
    except FileNotFoundError:
        msg = f"there is no file '{path}'; check the path to the data"
        raise DataError(msg) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        msg = f"'{path}' is not an .npz file or is damaged ({error}); write it with numpy.savez"
        raise DataError(msg) from error
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror}"
        raise DataError(msg) from error


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    with archive.open(info) as member:
        try:
            shape, dtype = _read_header(member)
        except ValueError as error:
            msg = f"'{path}': '{info.filename}' is not a numpy array ({error})"
            raise DataError(msg) from error
    name = info.filename.removesuffix(".npy")
    if dtype.hasobject:
        msg = (
            f"'{path}': '{name}' holds pickled objects, which are never loaded; save plain numbers"
        )
        raise DataError(msg)
    if math.prod(shape) * dtype.itemsize > info.file_size:
        msg = f"'{path}': '{name}' declares shape {shape}, more than the file holds"
        raise DataError(msg)
    with archive.open(info) as member:
        return npy.read_array(member, allow_pickle=False)


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(member)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
