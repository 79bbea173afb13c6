"""Reading models that we do not trust, and writing ours.

Models are read by onnx's own protobuf classes, checked, and handed to onnx-ir. External data stays
where it is (memory-mapped) and may only lie inside the model's folder.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from onnxprune.errors import ModelError
from onnxprune.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator


def load_model(path: str | Path) -> ir.Model:
    """Read a model from a file.

    Raises:
        ModelError: when the file is missing, unreadable, empty, truncated or no ONNX model, or when
            its external data is missing, too short, or outside the model's folder.
    """
    path = Path(path)
    proto = _read_proto(path)
    _check_external_data(proto, path)
    with _model_errors(path):
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def load_proto(path: str | Path) -> onnx.ModelProto:
    """Read a model as onnx's own message, external data included.

    Raises:
        ModelError: as :func:`load_model`.
    """
    path = Path(path)
    proto = _read_proto(path)
    _check_external_data(proto, path)
    with _model_errors(path):
        external_data_helper.load_external_data_for_model(proto, str(path.parent))
    return proto


def save_model(model: ir.Model, path: str | Path) -> None:
    """Write a model; on any error nothing is left behind.

    Raises:
        OutputError: when the file cannot be written.
    """
    path = Path(path)
    proto = ir.to_proto(model)
    with replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))


def model_bytes(model: ir.Model) -> bytes:
    """The model as the bytes of an ONNX file."""
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def _read_proto(path: Path) -> onnx.ModelProto:
    try:
        content = path.read_bytes()
    except IsADirectoryError:
        msg = f"'{path}' is a folder; name the .onnx file in it"
        raise ModelError(msg) from None
    except FileNotFoundError:
        msg = f"there is no file '{path}'; check the path to the model"
        raise ModelError(msg) from None
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror}"
        raise ModelError(msg) from error
    if not content:
        msg = f"'{path}' is empty; export the model again"
        raise ModelError(msg)
    with _model_errors(path):
        proto: onnx.ModelProto = onnx.ModelProto.FromString(content)
    if not proto.ir_version or not proto.HasField("graph"):
        msg = f"'{path}' is not an ONNX model: it holds no graph; name another file"
        raise ModelError(msg)
    return proto


@contextlib.contextmanager
def _model_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DecodeError:
        msg = f"'{path}' is not an ONNX model or is truncated; copy or export it again"
        raise ModelError(msg) from None
    except (ValueError, TypeError, KeyError, ir.passes.InvariantError) as error:
        reason = str(error).strip().splitlines()[0]
        msg = f"'{path}' is damaged: {reason}; check it with onnx.checker"
        raise ModelError(msg) from error


def _check_external_data(proto: onnx.ModelProto, path: Path) -> None:
    folder = path.parent.resolve()
    for tensor in external_data_helper._get_all_tensors(proto):  # noqa: SLF001 - onnx has no public form
        if not external_data_helper.uses_external_data(tensor):
            continue
        info = external_data_helper.ExternalDataInfo(tensor)
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
        end = (info.offset or 0) + (info.length or 0)
        if end > target.stat().st_size:
            msg = (
                f"'{path}' stores tensor '{tensor.name}' up to byte {end} of '{info.location}', "
                f"which has {target.stat().st_size} bytes; copy that file again"
            )
            raise ModelError(msg)
