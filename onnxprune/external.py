"""External data: checked before it is trusted, and written tensor by tensor.

A model that comes with its data beside it leaves in the same form: as many data files, the same
tensors in each, at the same offsets where their sizes allow it. Data files take the name of the
model file that is written, so that two models in one folder never share one.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import onnx
import onnx_ir as ir
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnxprune.errors import ModelError
from onnxprune.files import output_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

ALIGNMENT = 64
PAGE = 4096
"""Tensors of a page or more begin at one, so that a runtime can map them."""


def check_external_data(tensors: Iterable[onnx.TensorProto], path: Path) -> tuple[Path, ...]:
    """Check that all external data of a model lies in its folder and is long enough.

    Returns:
        The data files.

    Raises:
        ModelError: naming the tensor and the file.
    """
    folder = path.parent.resolve()
    files = {}
    for tensor in tensors:
        if not uses_external_data(tensor):
            continue
        info = ExternalDataInfo(tensor)
        target = (folder / info.location).resolve()
        if not target.is_relative_to(folder):
            msg = (
                f"'{path}' stores tensor '{tensor.name}' at '{info.location}', outside the model's "
                "folder; move the data beside the model"
            )
            raise ModelError(msg)
        if not target.is_file():
            msg = f"'{path}' needs its external data file '{info.location}', which is not there"
            raise ModelError(msg)
        if target not in files:
            files[target] = target.stat().st_size
        if target.stat().st_nlink > 1:
            msg = (
                f"'{path}' needs '{info.location}', which has several hard links and may be another's "
                "file; copy it, so that the model has its own"
            )
            raise ModelError(msg)
        end = (info.offset or 0) + (info.length or tensor_bytes(tensor))
        if end > files[target]:
            msg = (
                f"'{path}' stores tensor '{tensor.name}' up to byte {end} of '{info.location}', "
                f"which has {files[target]} bytes; copy that file again"
            )
            raise ModelError(msg)
    return tuple(files)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """The bytes that a tensor of its shape and dtype takes."""
    size = ir.DataType(tensor.data_type).itemsize * math.prod(tensor.dims)
    return math.ceil(size)


@dataclass(eq=False)
class Region:
    """A tensor that is to be written into a data file.

    Attributes:
        message: its message, whose ``external_data`` is filled in.
        tensor: its content.
        location: of the data file that it was read from; empty for a new tensor.
        offset: at which it was read there.
        length: that it had there, in bytes.
        checksum: whether the message carried one.
    """

    message: onnx.TensorProto
    tensor: ir.TensorProtocol
    location: str = ""
    offset: int | None = None
    length: int | None = None
    checksum: bool = False


@dataclass(eq=False)
class DataFiles:
    """The data files of a model that is being written.

    Attributes:
        before: how many tensors each data file held when the model was read, by location.
        regions: what is to be written.
        bytes_written: of all data files, once they are written.
        progress: told of each tensor when it is written.
    """

    before: Mapping[str, int] = field(default_factory=dict)
    regions: list[Region] = field(default_factory=list)
    bytes_written: int = 0
    progress: Callable[[ir.TensorProtocol], None] | None = None

    def add(
        self, message: onnx.TensorProto, tensor: ir.TensorProtocol, before: onnx.TensorProto | None
    ) -> None:
        """Have a tensor written; ``before`` is its message as it was read, if it was."""
        message.data_location = onnx.TensorProto.EXTERNAL
        region = Region(message, tensor)
        if before is not None and uses_external_data(before):
            info = ExternalDataInfo(before)
            region.location, region.offset = info.location, info.offset or 0
            region.length = info.length or tensor_bytes(before)
            region.checksum = bool(info.checksum)
        self.regions.append(region)

    @contextlib.contextmanager
    def written(self, path: Path) -> Iterator[None]:
        """Write all data under temporary names; give them their own when the block ends well.

        Args:
            path: of the model file; its data lie beside it.

        Raises:
            OutputError: when they cannot be written.
        """
        if not self.regions:
            yield
            return
        locations = list(dict.fromkeys(r.location for r in self.regions if r.location)) or [""]
        name = f"{path.name}.data"
        target = path.with_name(name)
        temporary = path.with_name(f".{name}.{secrets.token_hex(4)}.part")
        names = _file_names(locations)
        try:
            if len(locations) > 1:
                temporary.mkdir()
            for location, inner in zip(locations, names, strict=True):
                mine = [r for r in self.regions if (r.location or locations[0]) == location]
                file = temporary / inner if inner else temporary
                with file.open("wb") as stream:
                    whole = len(mine) == self.before.get(location)
                    inside = f"{name}/{inner}" if inner else name
                    for tensor in _write(stream, mine, inside, whole=whole):
                        if self.progress:
                            self.progress(tensor)
                    self.bytes_written += stream.tell()
            yield
            _replace(temporary, target)
        except OSError as error:
            raise output_error(target, error) from error
        finally:
            _remove(temporary)


def _file_names(locations: list[str]) -> list[str]:
    """Names inside the folder of data files; one file needs none."""
    if len(locations) == 1:
        return [""]
    names = [PurePosixPath(location.replace("\\", "/")).name for location in locations]
    if len(set(names)) == len(names) and all(names):
        return names
    return [f"{number:05}" for number in range(len(locations))]


def _write(
    stream: BinaryIO, regions: list[Region], location: str, *, whole: bool
) -> Iterator[ir.TensorProtocol]:
    """Write the regions of one file, at the offsets they had where none has gone or changed size.

    Each tensor comes back when it is written.
    """
    keep = whole and all(region.tensor.nbytes == region.length for region in regions)
    order = sorted(regions, key=lambda region: (region.offset is None, region.offset or 0))
    taken: dict[int, Region] = {}
    position = 0
    for region in order:
        size = region.tensor.nbytes
        shared = taken.get(region.offset) if region.offset is not None else None
        if shared is not None and _same_content(shared.tensor, region.tensor):
            _describe(region, location, _offset_of(shared), size, _checksum_of(shared))
            yield region.tensor
            continue
        offset = region.offset if keep and shared is None else None
        if offset is None or offset < position:
            offset = _aligned(position, PAGE if size >= PAGE else ALIGNMENT)
        stream.write(bytes(offset - position))
        digest = hashlib.sha1(usedforsecurity=False) if region.checksum else None
        writer = _Hashing(stream, digest) if digest is not None else stream
        _copy(region.tensor, writer)
        position = offset + size
        _describe(region, location, offset, size, digest.hexdigest() if digest else None)
        if region.offset is not None:
            taken.setdefault(region.offset, region)
        yield region.tensor


def _copy(tensor: ir.TensorProtocol, stream: Any) -> None:
    to_file = getattr(tensor, "tofile", None)  # onnx-ir's own tensors copy file to file
    if to_file is not None:
        to_file(stream)
    else:
        stream.write(tensor.tobytes())


class _Hashing:
    """A stream that is hashed as it is written."""

    def __init__(self, stream: BinaryIO, digest: hashlib._Hash) -> None:
        self._stream = stream
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return self._stream.write(data)


def _describe(
    region: Region, location: str, offset: int, length: int, checksum: str | None
) -> None:
    entries = {"location": location, "offset": str(offset), "length": str(length)}
    if checksum is not None:
        entries["checksum"] = checksum
    for key, text in entries.items():
        region.message.external_data.add(key=key, value=text)


def _offset_of(region: Region) -> int:
    return int(ExternalDataInfo(region.message).offset or 0)


def _checksum_of(region: Region) -> str | None:
    return ExternalDataInfo(region.message).checksum


def _same_content(left: ir.TensorProtocol, right: ir.TensorProtocol) -> bool:
    if isinstance(left, ir.ExternalTensor) and isinstance(right, ir.ExternalTensor):
        return (left.path, left.offset) == (right.path, right.offset)
    return left is right or left.tobytes() == right.tobytes()


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _replace(temporary: Path, target: Path) -> None:
    """Put files or a folder in the place of what was there."""
    if target.is_dir() or (target.exists() and temporary.is_dir()):
        old = target.with_name(f".{target.name}.{secrets.token_hex(4)}.old")
        target.rename(old)
        temporary.rename(target)
        _remove(old)
    else:
        os.replace(temporary, target)  # noqa: PTH105 - Path.replace, but for folders too


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
