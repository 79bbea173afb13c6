"""Models in memory where a path is meant, and results in memory where no path is given.

Everything works on files, for that is where large models and their external data are. A model in
memory is written to a temporary folder first, and a result that nobody named a file for is read back.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError

from onnxprune.errors import ModelError
from onnxprune.model_io import load_model, save_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnxprune.report import Report

ModelSource = str | Path | onnx.ModelProto | ir.Model
"""A model: path of an ONNX file, or in memory as onnx's message or as onnx-ir's model."""

LABEL = "(in memory)"
"""What the report calls a model that has no path."""


@contextlib.contextmanager
def model_file(model: Any) -> Iterator[Path]:
    """The path of a model; of one in memory, that of a copy which is gone after the block.

    Args:
        model: a :data:`ModelSource`; anything else is refused.

    Raises:
        ModelError: when a message is too large for one file, or it is no model at all.
    """
    if isinstance(model, (str, Path)):
        yield Path(model)
        return
    if not isinstance(model, (ir.Model, onnx.ModelProto)):
        msg = f"a model is a path, an onnx.ModelProto or an onnx_ir.Model, found {type(model).__name__}"
        raise ModelError(msg)
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        path = Path(folder) / "model.onnx"
        if isinstance(model, ir.Model):
            save_model(model, path)
        else:
            path.write_bytes(_serialized(model))
        yield path


def run_on_file(model: ModelSource, job: Callable[[Path], Report]) -> Report:
    """The report of a job that reads a model file."""
    with model_file(model) as path:
        return _named(job(path), model)


def run_on_files(
    model: ModelSource, output: str | Path | None, job: Callable[[Path, Path], Report]
) -> Report:
    """The report of a job that reads one model file and writes another.

    Args:
        model: what to read.
        output: path to write; with None the model written is in the report's ``output``.
        job: takes the path to read and the path to write.
    """
    with model_file(model) as source:
        if output is not None:
            return _named(job(source, Path(output)), model)
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
            target = Path(folder) / "model.onnx"
            report = job(source, target)
            written = load_model(target)
            for graph in written.graphs():
                for value in graph.initializers.values():
                    tensor = value.const_value
                    if isinstance(tensor, ir.ExternalTensor):
                        array = tensor.numpy().copy()
                        value.const_value = ir.tensor(array, dtype=tensor.dtype, name=tensor.name)
        return replace(_named(report, model), output=written)


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except (ValueError, EncodeError) as error:
        msg = "a model in memory of 2 GB or more must be saved first, with external data; give its path"
        raise ModelError(msg) from error


def label_of(model: ModelSource) -> str:
    """What a report calls a model: its path as given."""
    return str(model) if isinstance(model, (str, Path)) else LABEL


def _named(report: Report, model: ModelSource) -> Report:
    return replace(report, model=replace(report.model, path=label_of(model)))
