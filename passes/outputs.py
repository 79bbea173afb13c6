"""How far a model's outputs move when some of its constants change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np

from passes.schedule import reads
from passes.stream import Stretch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.stream import Feeds, Runner

WEIGHTED = frozenset(
    ("Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
)
"""Operators that begin what weights have a part in."""

DECIDING = frozenset(
    (
        *("ArgMax", "ArgMin", "Equal", "Greater", "GreaterOrEqual", "Hardmax", "Less"),
        *("LessOrEqual", "NonMaxSuppression", "OneHot", "Round", "Sign", "TopK"),
    )
)
"""Operators whose outputs jump."""

SIZES = frozenset(("Shape", "Size"))

SQUASHING = frozenset(("Softmax", "LogSoftmax", "Sigmoid", "Tanh"))


@final
class OutputError:
    """Mean squared error of a model's outputs against its dense ones, as a share of their variance.

    Outputs are taken where errors still add up (:func:`last_values`). The error is averaged over them;
    those that are no floats, or do not vary, say nothing.

    Args:
        model: dense.
        feeds: what to run.
        runner: runs models.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Feeds], runner: Runner) -> None:
        self._names = last_values(model.graph)
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


def last_values(graph: ir.Graph) -> list[str]:
    """Names of the values that a model's outputs are made from, where its last numbers still vary.

    An output that ends in a Softmax or the like is taken before it. One to which only decisions lead
    (the class of an ArgMax, a comparison, boxes that were picked) is taken before the first of them on
    each way.

    Args:
        graph: the main graph.
    """
    smooth: set[ir.Value] = set()  # a way leads there from some weight without a decision
    before: dict[ir.Value, dict[ir.Value, None]] = {}
    for node in graph:
        inputs = reads(node)
        ways = [value for value in inputs if value in smooth]
        last = {value: None for known in inputs for value in before.get(known, ())}
        if node.op_type in DECIDING:
            last |= dict.fromkeys(ways)
        elif node.op_type in WEIGHTED or (ways and node.op_type not in SIZES):
            smooth.update(node.outputs)
            continue
        if last:
            before.update((output, last) for output in node.outputs)
    found: dict[str, None] = {}
    for value in graph.outputs:
        for source in before.get(value, (value,)):
            if name := _before_squashing(source):
                found[name] = None
    return sorted(found)


def _before_squashing(value: ir.Value) -> str | None:
    node = value.producer()
    if node is None:
        return None
    if node.op_type in SQUASHING and node.inputs[0] is not None and node.inputs[0].producer():
        return node.inputs[0].name
    return value.name
