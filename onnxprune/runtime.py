"""onnxruntime, and nothing else of it anywhere in onnxprune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import ml_dtypes
import numpy as np
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.kernels import register

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

NAME = f"onnxruntime {ort.__version__}"

_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(bfloat16)": np.dtype(ml_dtypes.bfloat16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(bool)": np.dtype(np.bool_),
    **{
        f"tensor({kind}{bits})": np.dtype(f"{kind}{bits}")
        for kind in ("int", "uint")
        for bits in (8, 16, 32, 64)
    },
}


@dataclass(frozen=True)
class InputSpec:
    """What a model takes at one input; sizes that the model leaves open are None."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]


@final
class Session:
    """A model loaded in onnxruntime on the CPU.

    Args:
        model: path of an ONNX file, or its bytes.
        threads: threads inside an operator; None leaves the choice to onnxruntime.
        optimized_path: where onnxruntime saves the graph that it really runs, with a data file
            beside it.
        constants: values of initializers of the main graph that the model declares as external data.
            onnxruntime takes them before it optimizes the graph, so nothing of them is parsed and
            everything that depends on them is folded as usual.
        kernels: whether the library of :mod:`onnxprune.kernels` serves the operators that it has.

    Raises:
        ModelError: when onnxruntime cannot load the model.
        KernelError: when the kernels are wanted, but were not built.
    """

    def __init__(
        self,
        model: str | Path | bytes,
        *,
        threads: int | None = None,
        optimized_path: Path | None = None,
        constants: Mapping[str, NDArray[Any]] | None = None,
        kernels: bool = False,
    ) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = threads or 0
        if kernels:
            register(options)
        if optimized_path is not None:
            # Level "extended" leaves out layout changes for one processor: the graph stays readable.
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            options.optimized_model_filepath = str(optimized_path)
            # Data that came from files beside the model would be looked for beside the saved graph.
            prefix = "session.optimized_model_external_initializers_"
            options.add_session_config_entry(f"{prefix}file_name", f"{optimized_path.name}.data")
            options.add_session_config_entry(f"{prefix}min_size_in_bytes", "1024")
        # The session reads these for as long as it lives.
        self._constants = [
            ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
            for array in (constants or {}).values()
        ]
        if constants:
            options.add_external_initializers(list(constants), self._constants)
        label = "the model" if isinstance(model, bytes) else f"'{model}'"
        try:
            source = model if isinstance(model, bytes) else str(model)
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime raises its own classes without a common root
            msg = f"onnxruntime cannot load {label}: {_first_line(error)}"
            raise ModelError(msg) from error
        self._label = label
        self.outputs: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    @property
    def inputs(self) -> tuple[InputSpec, ...]:
        """What must be fed, in the model's order.

        Raises:
            ModelError: when an input is no tensor of numbers.
        """
        specs = []
        for node in self._session.get_inputs():
            if node.type not in _DTYPES:
                msg = f"{self._label} takes {node.type} at '{node.name}'; only numbers can be fed"
                raise ModelError(msg)
            shape = tuple(size if isinstance(size, int) else None for size in node.shape)
            specs.append(InputSpec(node.name, _DTYPES[node.type], shape))
        return tuple(specs)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """All outputs for one feed.

        Raises:
            ModelError: when onnxruntime fails on it.
        """
        try:
            outputs: list[NDArray[Any]] = self._session.run(
                None, {name: np.asarray(array) for name, array in feeds.items()}
            )
        except Exception as error:
            msg = f"onnxruntime cannot run {self._label}: {_first_line(error)}"
            raise ModelError(msg) from error
        return outputs


def quantize_dynamic(source: Path, output: Path) -> None:
    """Write a model with int8 weights whose activations are quantized as they come: onnxruntime's own recipe.

    Raises:
        ModelError: where onnxruntime cannot.
    """
    from onnxruntime.quantization import quantize_dynamic as quantize

    try:
        quantize(source, output)
    except Exception as error:
        msg = f"onnxruntime cannot quantize '{source}' dynamically: {_first_line(error)}"
        raise ModelError(msg) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
