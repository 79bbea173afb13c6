"""Reading models that we do not trust, and writing ours.

Models are read by onnx's own protobuf classes, checked, and handed to onnx-ir. External data stays
where it is (memory-mapped) and may only lie inside the model's folder. What is written is the
user's own file but for what passes have changed (:mod:`onnxprune.rewrite`), with its data in the
form in which they came.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import (
    ExternalDataInfo,
    _get_all_tensors,
    load_external_data_for_model,
    uses_external_data,
)

from onnxprune.errors import ModelError
from onnxprune.external import DataFiles, check_external_data, tensor_bytes
from onnxprune.files import replacing
from onnxprune.original import from_proto, original_of
from onnxprune.rewrite import to_proto
from onnxprune.sparse import densify, graphs_of, nodes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MAX_FILE_BYTES = 2**31 - 2**20
"""A model file may hold so much; protobuf reads no message of 2 GiB."""

MIN_EXTERNAL_BYTES = 1024
"""Smaller tensors stay in the model file, as onnx itself has it."""

DATA_FILES = "onnxprune.data_files"


def load_model(path: str | Path) -> ir.Model:
    """Read a model from a file; sparse initializers become dense ones.

    Raises:
        ModelError: when the file is missing, unreadable, empty, truncated or no ONNX model, when a
            tensor contradicts its shape, or when its external data is missing, too short, or
            outside the model's folder.
    """
    path = Path(path)
    proto, files = _read_checked(path)
    with _model_errors(path):
        return model_of(proto, path.parent, files)


def model_of(proto: onnx.ModelProto, folder: Path, files: tuple[Path, ...]) -> ir.Model:
    """The model of a message, which must not be changed any more.

    Args:
        proto: without sparse initializers.
        folder: in which its external data lies.
        files: that hold the data.
    """
    model = from_proto(proto)
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        ir.external_data.set_base_dir(graph, folder)
    model.meta[DATA_FILES] = files
    return model


def load_proto(path: str | Path) -> onnx.ModelProto:
    """Read a model as onnx's own message, external data included.

    Raises:
        ModelError: as :func:`load_model`.
    """
    path = Path(path)
    proto, _ = _read_checked(path)
    with _model_errors(path):
        load_external_data_for_model(proto, str(path.parent))
    return proto


def save_model(
    model: ir.Model, path: str | Path, progress: Callable[[int, int], None] | None = None
) -> int:
    """Write a model, tensor by tensor where its data is external; on any error nothing is left.

    A model that came with external data gets its data beside it again, one that came in one file
    stays in one file unless that would take more than 2 GB. ``progress`` is told of the bytes of
    tensors written and in all.

    Returns:
        The bytes of all files written.

    Raises:
        OutputError: when a file cannot be written.
    """
    path = Path(path)
    told = _Told(progress, _tensors_of(model)) if progress else None
    data = DataFiles(_tensors_by_location(model), progress=told)
    proto = _to_proto(model, data, told)
    with data.written(path), replacing(path) as temporary:
        temporary.write_bytes(proto.SerializeToString(deterministic=True))
    return path.stat().st_size + data.bytes_written


def model_bytes(model: ir.Model) -> bytes:
    """The model as the bytes of one ONNX file, external data taken in."""
    proto = to_proto(model, _write_inline)
    return bytes(proto.SerializeToString(deterministic=True))


def data_files(model: ir.Model) -> tuple[Path, ...]:
    """The data files that a model was read from, beside its own."""
    files: tuple[Path, ...] = model.meta.get(DATA_FILES, ())
    return files


def file_bytes(path: str | Path, model: ir.Model) -> int:
    """The bytes of the file that a model was read from, and of its data files."""
    return Path(path).stat().st_size + sum(file.stat().st_size for file in data_files(model))


def _to_proto(model: ir.Model, data: DataFiles, told: _Told | None) -> onnx.ModelProto:
    smallest = MIN_EXTERNAL_BYTES if data.before or _too_large(model) else math.inf

    def write(
        message: onnx.TensorProto, tensor: ir.TensorProtocol, before: onnx.TensorProto | None
    ) -> None:
        came_inside = before is not None and not uses_external_data(before) and bool(data.before)
        if tensor.dtype == ir.DataType.STRING or came_inside or tensor.nbytes < smallest:
            _write_inline(message, tensor, before)
            if told:
                told(tensor)
        else:
            _describe(message, tensor, before)
            data.add(message, tensor, before)

    return to_proto(model, write)


def _too_large(model: ir.Model) -> bool:
    """Whether the tensors of a model that came in one file take more than one file may hold."""
    return sum(tensor.nbytes for tensor in _tensors_of(model)) > MAX_FILE_BYTES


def _tensors_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is not None:
                yield value.const_value


class _Told:
    """Tells how many of the bytes of a model's tensors are written."""

    def __init__(
        self, progress: Callable[[int, int], None], tensors: Iterable[ir.TensorProtocol]
    ) -> None:
        self._progress, self._done = progress, 0
        self._total = sum(tensor.nbytes for tensor in tensors if tensor.dtype != ir.DataType.STRING)

    def __call__(self, tensor: ir.TensorProtocol) -> None:
        """One more tensor is written; those of Constant nodes add to the total."""
        if tensor.dtype != ir.DataType.STRING:
            self._done += tensor.nbytes
        self._total = max(self._total, self._done)
        self._progress(self._done, self._total)


def _tensors_by_location(model: ir.Model) -> Counter[str]:
    """How many tensors each data file held when the model was read."""
    original = original_of(model)
    messages = () if original is None else _get_all_tensors(original.proto)
    return Counter(ExternalDataInfo(m).location for m in messages if uses_external_data(m))


def _write_inline(
    message: onnx.TensorProto, tensor: ir.TensorProtocol, before: onnx.TensorProto | None
) -> None:
    if isinstance(tensor, ir.serde.TensorProtoTensor):
        message.CopyFrom(tensor.raw)
        return
    if tensor.dtype == ir.DataType.STRING:
        ir.serde.serialize_tensor_into(message, tensor)
        return
    _describe(message, tensor, before)
    message.raw_data = tensor.tobytes()


def _describe(
    message: onnx.TensorProto, tensor: ir.TensorProtocol, before: onnx.TensorProto | None
) -> None:
    """Everything of a tensor but its data; what was said about it before is said again."""
    if before is not None:
        message.name = before.name
        if before.HasField("doc_string"):
            message.doc_string = before.doc_string
        message.metadata_props.extend(before.metadata_props)
    elif tensor.name:
        message.name = tensor.name
    message.data_type = tensor.dtype.value
    message.dims.extend(tensor.shape.numpy())


def _read_checked(path: Path) -> tuple[onnx.ModelProto, tuple[Path, ...]]:
    """A model whose tensors are dense and plausible, and the files of its external data."""
    proto = _read_proto(path)
    with _model_errors(path):
        densify(proto)
        for tensor in _get_all_tensors(proto):
            _check_tensor(tensor)
        _check_names(proto)
        return proto, check_external_data(_get_all_tensors(proto), path)


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
    except (
        ValueError, TypeError, KeyError, NotImplementedError,
        ir.serde.SerdeError, ir.passes.InvariantError,
    ) as error:  # fmt: skip
        cause: BaseException = error
        while isinstance(cause, ir.serde.SerdeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        msg = f"'{path}' is damaged: {reason}; check it with onnx.checker"
        raise ModelError(msg) from error


_TYPED_FIELDS = {
    **dict.fromkeys((1,), "float_data"),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10, 16), "int32_data"),
    **dict.fromkeys((7,), "int64_data"),
    **dict.fromkeys((11,), "double_data"),
    **dict.fromkeys((12, 13), "uint64_data"),
}
"""Where each dtype's elements stand in a message that has no ``raw_data``, one to a number."""


_KNOWN_DTYPES = frozenset(int(dtype) for dtype in ir.DataType)


def _check_names(proto: onnx.ModelProto) -> None:
    """Check that all names are texts: protobuf gives bytes for what is no UTF-8.

    Raises:
        ValueError: with the name.
    """
    names: list[str | bytes] = [
        name for node in nodes_of(proto) for name in (node.name, node.op_type, node.domain)
    ]
    names += [name for node in nodes_of(proto) for name in (*node.input, *node.output)]
    names += [a.name for node in nodes_of(proto) for a in node.attribute]
    for graph in graphs_of(proto):
        names += [tensor.name for tensor in graph.initializer]
        names += [value.name for value in (*graph.input, *graph.output, *graph.value_info)]
    for function in proto.functions:
        names += [function.domain, function.name, *function.input, *function.output]
    for name in names:
        if isinstance(name, bytes):
            msg = f"the name {name!r} is no UTF-8"
            raise ValueError(msg)


def _check_tensor(tensor: onnx.TensorProto) -> None:
    """Check that a tensor holds as many elements as its shape says.

    Raises:
        ValueError: naming the tensor.
    """
    if tensor.data_type not in _KNOWN_DTYPES:
        msg = f"tensor '{tensor.name}' has dtype {tensor.data_type}, which ONNX does not know"
        raise ValueError(msg)
    if any(size < 0 for size in tensor.dims):
        msg = f"tensor '{tensor.name}' has shape {list(tensor.dims)}"
        raise ValueError(msg)
    if uses_external_data(tensor) or tensor.data_type == onnx.TensorProto.STRING:
        return
    if tensor.HasField("raw_data"):
        expected, found, unit = tensor_bytes(tensor), len(tensor.raw_data), "bytes"
    elif tensor.data_type in _TYPED_FIELDS:
        expected, unit = math.prod(tensor.dims), "numbers"
        found = len(getattr(tensor, _TYPED_FIELDS[tensor.data_type]))
    else:
        return
    if expected != found:
        msg = f"tensor '{tensor.name}' of shape {list(tensor.dims)} wants {expected} {unit} and has {found}"
        raise ValueError(msg)
