"""What recurrent operators multiply: input sequences with W, true hidden states with R.

The states are those that the operator itself gives (its output Y), moved on by one step in the direction
of each pass, with the initial state first. Steps past the end of a sequence do not count. The
candidate of a GRU with ``linear_before_reset = 0`` multiplies states that its reset gate has scaled;
the gate is computed here from the weights as they are at that moment.

Notations: T steps, B sequences, D directions, H hidden size, P positions (steps of sequences).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from passes.bias import Bias, own_constant
from passes.operators import NotPrunable
from passes.operators.constants import stored_tensor
from passes.reader import Reader, required_input
from passes.unfold import Listed

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.values import Values

    Array = NDArray[Any]

GATES = {"LSTM": 4, "DynamicQuantizeLSTM": 4, "GRU": 3, "RNN": 1}

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "hardsigmoid": lambda x: np.clip(0.2 * x + 0.5, 0, 1),
}
"""Of reset gates, as ONNX defines them with their default parameters."""


def input_reader(node: ir.Node, index: int, shape: tuple[int, ...]) -> Reader:
    """W: all gates of all directions multiply the same input sequence."""
    del index
    sequence, lengths = required_input(node, 0), _optional(node, 4)
    last = bool(node.attributes.get_int("layout", 0))

    def prepare(values: Values) -> Array:
        steps = _steps_first(values[sequence], last=last)
        return steps[_valid(values.get(lengths), steps.shape[:2])][None]

    needs = (sequence, *([lengths] if lengths is not None else []))
    gates = GATES[node.op_type] * shape[0]
    return Reader(node, Listed(), needs, prepare, (0,) * gates)


def hidden_reader(node: ir.Node, index: int, shape: tuple[int, ...]) -> Reader:
    """R: the states of each direction one step earlier."""
    del index
    gates, directions = GATES[node.op_type], shape[0]
    lengths = _optional(node, 4)
    states = _States(node, node.outputs[0] if node.outputs else None)
    scaled = node.op_type == "GRU" and not node.attributes.get_int("linear_before_reset", 0)
    if not scaled:

        def prepare(values: Values) -> Array:
            previous = states.previous(values)
            return previous[:, _valid(values.get(lengths), previous.shape[1:3])]

        groups = tuple(direction for direction in range(directions) for _ in range(gates))
        return Reader(node, Listed(), states.needs, prepare, groups)

    reset = _ResetGate(node)

    def prepare_scaled(values: Values) -> Array:
        previous = states.previous(values)
        both = np.stack([previous, previous * reset(values, previous)], axis=1)
        both = both.reshape(-1, *previous.shape[1:])
        return both[:, _valid(values.get(lengths), previous.shape[1:3])]

    groups = tuple(
        2 * direction + (gate == 2) for direction in range(directions) for gate in (0, 1, 2)
    )
    return Reader(node, Listed(), (*states.needs, *reset.needs), prepare_scaled, groups)


class _States:
    """The hidden states that the recurrent weights of a node multiply."""

    def __init__(self, node: ir.Node, output: ir.Value | None) -> None:
        if output is None:
            msg = f"{node.op_type} has no output from which its hidden states could be read"
            raise NotPrunable(msg)
        self._output = output
        self._lengths, self._initial = _optional(node, 4), _optional(node, 5)
        self._direction = node.attributes.get_string("direction", "forward")
        self._last = bool(node.attributes.get_int("layout", 0))
        optional = (self._lengths, self._initial)
        self.needs = (output, *(value for value in optional if value is not None))

    def previous(self, values: Values) -> Array:
        """``(D, T, B, H)``: what each step started from, in the order of the input's steps."""
        states = _steps_first(values[self._output], last=self._last)
        if self._last:  # (T, B, D, H)
            states = states.transpose(0, 2, 1, 3)
        states = states.transpose(1, 0, 2, 3)
        initial = values.get(self._initial)
        if initial is None:
            initial = np.zeros((states.shape[0], *states.shape[2:]), states.dtype)
        elif self._last:
            initial = initial.transpose(1, 0, 2)
        lengths = values.get(self._lengths)
        result = np.empty_like(states)
        for direction in range(len(states)):
            backwards = self._direction == "reverse" or direction == 1
            move = _before_backwards if backwards else _before
            result[direction] = move(states[direction], initial[direction], lengths)
        return result


class _ResetGate:
    """The reset gate of a GRU, computed as the operator does."""

    def __init__(self, node: ir.Node) -> None:
        self._sequence, self._bias = required_input(node, 0), _optional(node, 3)
        self._weights = required_input(node, 1), required_input(node, 2)
        self._last = bool(node.attributes.get_int("layout", 0))
        given = node.attributes.get_strings("activations", ())
        names = [name.lower() for name in given] or ["sigmoid", "tanh"] * 2
        unknown = sorted({name for name in names[::2] if name not in ACTIVATIONS})
        if unknown:
            msg = f"the reset gate of {node.op_type} has the activation '{unknown[0]}'"
            raise NotPrunable(msg)
        self._functions = [ACTIVATIONS[name] for name in names[::2]]
        optional = [self._bias] if self._bias is not None else []
        self.needs = (self._sequence, *self._weights, *optional)

    def __call__(self, values: Values, previous: Array) -> Array:
        """``(D, T, B, H)`` from the states that each step started from."""
        steps = _steps_first(values[self._sequence], last=self._last)
        size = previous.shape[-1]
        place = slice(size, 2 * size)  # gates stand in the order update, reset, candidate
        bias = values.get(self._bias)
        inputs, recurrent = (values[weight] for weight in self._weights)
        result = np.empty_like(previous)
        for direction in range(len(previous)):
            total = steps @ inputs[direction, place].T
            total = total + previous[direction] @ recurrent[direction, place].T
            if bias is not None:
                total += bias[direction, place] + bias[direction, 4 * size : 5 * size]
            result[direction] = self._functions[direction](total)
        return result


def _before(states: Array, initial: Array, lengths: Array | None) -> Array:
    """One step earlier: ``(T, B, H)``."""
    del lengths
    return np.concatenate([initial[None], states[:-1]])


def _before_backwards(states: Array, initial: Array, lengths: Array | None) -> Array:
    """One step later, which a pass that runs backwards has seen before."""
    moved = np.concatenate([states[1:], initial[None]])
    if lengths is not None:
        inside = np.flatnonzero(lengths > 0)
        moved[lengths[inside] - 1, inside] = initial[inside]
    return moved


def _steps_first(array: Array, *, last: bool) -> Array:
    """``(T, B, ...)`` from that, or from ``(B, T, ...)``."""
    return np.swapaxes(array, 0, 1) if last else array


def _valid(lengths: Array | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which steps of which sequences are there, ``(T, B)``."""
    if lengths is None:
        return np.ones(shape, np.bool_)
    valid: NDArray[np.bool_] = np.arange(shape[0])[:, None] < lengths[None, :]
    return valid


def _optional(node: ir.Node, place: int) -> ir.Value | None:
    """An optional input; the quantised LSTM has its inputs in the same places."""
    return node.inputs[place] if place < len(node.inputs) else None


def bias_places(value: ir.Value, shape: tuple[int, int, int], *, recurrent: bool) -> Bias | None:
    """The half of B that belongs to W, or to R, in a layer's view; None where it cannot be written.

    Args:
        value: B, ``(directions, 2 * gates * hidden)``.
        shape: groups, rows and columns of the layer.
        recurrent: whether it is that of R.
    """
    total = shape[0] * shape[1]
    own = own_constant(value)
    tensor = stored_tensor(own)
    if own is None or tensor is None or tensor.size != 2 * total:
        return None
    directions = int(tensor.shape.numpy()[0])
    numbers = np.arange(2 * total).reshape(directions, 2, -1)[:, int(recurrent)]
    return Bias(own, shape[:2], places=numbers.reshape(shape[:2]))


def additive(node: ir.Node, rows: int) -> NDArray[np.bool_]:
    """For each row of all gates and directions whether what R gives is added to what W gives.

    The candidate of a GRU with ``linear_before_reset`` scales what R gives first.
    """
    added = np.ones(rows, np.bool_)
    scaled = bool(node.attributes.get_int("linear_before_reset", 0))
    if node.op_type == "GRU" and scaled:
        directions = 1 + (node.attributes.get_string("direction", "forward") == "bidirectional")
        added.reshape(directions, 3, -1)[:, 2] = False
    return added
