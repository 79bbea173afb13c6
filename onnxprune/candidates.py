"""Models that differ from one model in some constants only, loaded without writing them anew.

Three ways were measured (``benchmarks/trial_cost.py``): a new session whose weights are handed over
beside a model without them; weights as inputs of one session that is kept, which costs onnxruntime
its rearranged convolutions (1.7 x the inference of ResNet-20); and a whole model written and parsed for
each candidate. The first is what this does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data

from onnxprune.model_io import load_model, model_bytes
from onnxprune.runtime import Session
from passes.assign import AssignConstantsPass

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import onnx_ir as ir
    from numpy.typing import NDArray

HANDED_OVER = (np.float32, np.float16, np.float64, np.int8, np.uint8)
"""Dtypes that onnxruntime takes from numpy arrays."""

ELSEWHERE = "given"
"""The data file that the template names; onnxruntime never opens it."""


@final
class Candidates:
    """Sessions of one model with other values for some of its constants.

    It can be pickled; a process that gets it reads the model again when it needs to.

    Args:
        path: of the model.
        names: of the weights and initializers whose values will change.
    """

    def __init__(self, path: Path, names: Collection[str]) -> None:
        self._path = path
        self._names = frozenset(names)
        self._model: ir.Model | None = None
        self._template: bytes = b""
        self._base: dict[str, NDArray[Any]] = {}

    def session(
        self, constants: Mapping[str, NDArray[Any]], *, threads: int | None = None
    ) -> Session:
        """The model with ``constants`` in place of its own values, loaded.

        Args:
            constants: arrays in stored form by name of a weight or initializer; each of the names
                given at first, or fewer.
            threads: of onnxruntime.
        """
        if not self._template:
            self._make_template()
        inside = {name: array for name, array in constants.items() if name not in self._base}
        template = self._with(inside) if inside else self._template
        return Session(
            template,
            threads=threads,
            constants={name: constants.get(name, array) for name, array in self._base.items()},
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self._path, "names": self._names}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__init__(state["path"], state["names"])

    def _make_template(self) -> None:
        self._model = load_model(self._path)
        self._base = _movable(self._model, self._names)
        self._template = _without(model_bytes(self._model), self._base)

    def _with(self, constants: Mapping[str, NDArray[Any]]) -> bytes:
        """The template with constants that cannot be handed over written into it."""
        assert self._model is not None
        model = self._model.clone()
        AssignConstantsPass(constants)(model)
        return _without(model_bytes(model), self._base)


def _movable(model: ir.Model, names: Collection[str]) -> dict[str, NDArray[Any]]:
    """The constants of the main graph that can be handed over, with the model's own values."""
    movable = {}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if name in names and tensor is not None and not value.is_graph_input():
            array = tensor.numpy()
            if array.dtype.type in HANDED_OVER and tensor.dtype.numpy() == array.dtype:
                movable[name] = array
    return movable


def _without(model: bytes, taken: Mapping[str, NDArray[Any]]) -> bytes:
    """The model with data of some initializers said to be elsewhere."""
    proto = onnx.ModelProto.FromString(model)
    for tensor in proto.graph.initializer:
        if tensor.name in taken and not uses_external_data(tensor):
            for data in ("raw_data", "float_data", "int32_data", "double_data"):
                tensor.ClearField(data)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", ELSEWHERE
    return proto.SerializeToString()
