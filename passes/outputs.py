"""How far a model's outputs move when some of its constants change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np

from passes.stream import Stretch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.stream import Feeds, Runner

SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Tanh"))


@final
class OutputError:
    """Mean squared error of a model's outputs against its dense ones, as a share of their variance.

    Outputs that end in a Softmax or the like are taken before it, where errors add up. It is averaged
    over outputs; those that are no floats, or do not vary, say nothing.

    Args:
        model: dense.
        feeds: what to run.
        runner: runs models.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Feeds], runner: Runner) -> None:
        self._names = sorted(
            {name for value in model.graph.outputs if (name := before_squashing(value))}
        )
        self._stretch = Stretch(model, list(model.graph), set(self._names))
        self._feeds, self._runner = list(feeds), runner
        self._dense = self._run({})
        self._variance = {
            name: array.var(dtype=np.float64)
            for name, array in self._dense.items()
            if array.dtype.kind == "f"
        }

    def replaces(self, constants: Mapping[str, NDArray[Any]]) -> bool:
        """Whether the model has any of these constants."""
        return any(self._stretch.replaces(name) for name in constants)

    def __call__(self, constants: Mapping[str, NDArray[Any]]) -> float:
        """The error when ``constants`` take the place of the model's own."""
        errors = []
        for name, array in self._run(constants).items():
            variance = self._variance.get(name, 0.0)
            if variance > 0 and array.shape == self._dense[name].shape:
                difference = array.astype(np.float64) - self._dense[name]
                errors.append(float((difference**2).mean() / variance))
        return float(np.mean(errors)) if errors else 1.0

    def _run(self, constants: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        made = self._stretch.run(self._runner, self._feeds, constants)
        return {name: np.concatenate([m[name].ravel() for m in made]) for name in self._names}


def before_squashing(value: ir.Value) -> str | None:
    """The name of a model's output, or of what its last Softmax or the like reads; None for an input."""
    node = value.producer()
    if node is None:
        return None
    if node.op_type in SQUASHING and node.inputs[0] is not None and node.inputs[0].producer():
        return node.inputs[0].name
    return value.name
