"""RNN, GRU and LSTM, with weights as ONNX stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

Activation = Callable[["Tensor"], "Tensor"]
Cell = Callable[["Tensor", tuple["Tensor", ...]], tuple["Tensor", ...]]
"""From the input at one step and the state to the new state; the hidden state comes first."""


def _activation(name: str, alpha: float | None, beta: float | None) -> Activation:
    def of(value: float | None, default: float) -> float:
        return default if value is None else value

    table: dict[str, Activation] = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "softsign": functional.softsign,
        "softplus": functional.softplus,
        "affine": lambda x: of(alpha, 1.0) * x + of(beta, 0.0),
        "leakyrelu": lambda x: functional.leaky_relu(x, of(alpha, 0.01)),
        "thresholdedrelu": lambda x: torch.where(x > of(alpha, 1.0), x, torch.zeros_like(x)),
        "scaledtanh": lambda x: of(alpha, 1.0) * torch.tanh(of(beta, 1.0) * x),
        "hardsigmoid": lambda x: torch.clamp(of(alpha, 0.2) * x + of(beta, 0.5), 0, 1),
        "elu": lambda x: functional.elu(x, of(alpha, 1.0)),
    }
    return table[name.lower()]


_DEFAULTS = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@dataclass(frozen=True)
class _Direction:
    """The weights of one direction: ``(gates * hidden, ...)`` in ONNX's order of gates."""

    w: Tensor
    r: Tensor
    input_bias: Tensor
    recurrent_bias: Tensor
    peepholes: Tensor | None
    activations: list[Activation]
    clip: float | None

    def clipped(self, x: Tensor) -> Tensor:
        return x if self.clip is None else x.clamp(-self.clip, self.clip)


def _rnn_cell(d: _Direction, node: Node) -> Cell:
    del node
    [f] = d.activations

    def cell(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (f(d.clipped(x + functional.linear(state[0], d.r, d.recurrent_bias))),)

    return cell


def _gru_cell(d: _Direction, node: Node) -> Cell:
    f, g = d.activations
    after = bool(node.get("linear_before_reset", 0))
    hidden = d.r.shape[-1]
    r_zr, r_h = d.r[: 2 * hidden], d.r[2 * hidden :]
    b_zr, b_h = d.recurrent_bias[: 2 * hidden], d.recurrent_bias[2 * hidden :]

    def cell(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        [h] = state
        x_zr, x_h = x[:, : 2 * hidden], x[:, 2 * hidden :]
        z, r = f(d.clipped(x_zr + functional.linear(h, r_zr, b_zr))).chunk(2, dim=-1)
        inner = r * functional.linear(h, r_h, b_h) if after else functional.linear(r * h, r_h, b_h)
        candidate = g(d.clipped(x_h + inner))
        return ((1 - z) * candidate + z * h,)

    return cell


def _lstm_cell(d: _Direction, node: Node) -> Cell:
    f, g, h_ = d.activations
    coupled = bool(node.get("input_forget", 0))
    p_i, p_o, p_f = d.peepholes.chunk(3) if d.peepholes is not None else (None, None, None)

    def peep(gate: Tensor, weight: Tensor | None, cell_state: Tensor) -> Tensor:
        return gate if weight is None else gate + weight * cell_state

    def cell(x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, c = state
        i, o, forget, candidate = (x + functional.linear(h, d.r, d.recurrent_bias)).chunk(4, dim=-1)
        i = f(d.clipped(peep(i, p_i, c)))
        forget = 1 - i if coupled else f(d.clipped(peep(forget, p_f, c)))
        c = forget * c + i * g(d.clipped(candidate))
        o = f(d.clipped(peep(o, p_o, c)))
        return o * h_(c), c

    return cell


_CELLS: dict[str, Any] = {"RNN": _rnn_cell, "GRU": _gru_cell, "LSTM": _lstm_cell}


@operator("RNN", "GRU", "LSTM")
def _recurrent(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, ...]:
    batch_first = bool(node.get("layout", 0))
    if batch_first:
        x = x.transpose(0, 1)
        h, c = (None if s is None else s.transpose(0, 1) for s in (h, c))
    directions, hidden = r.shape[0], r.shape[-1]
    steps, batch = x.shape[0], x.shape[1]
    count = 2 if node.op_type == "LSTM" else 1
    zero = x.new_zeros(directions, batch, hidden)
    initial = [zero if s is None else s for s in (h, c)[:count]]
    if lengths is not None and bool((lengths == steps).all()):
        lengths = None
    fast = (
        _torch_recurrent(node, x, w, r, bias, initial)
        if lengths is None and peepholes is None
        else None
    )
    if fast is None:
        names = node.get("activations") or _DEFAULTS[node.op_type] * directions
        outputs, finals = [], []
        for index in range(directions):
            d = _direction(node, index, names, w, r, bias, peepholes)
            cell = _CELLS[node.op_type](d, node)
            backwards = node.get("direction", "forward") == "reverse" or index == 1
            out, final = _run(
                cell, functional.linear(x, d.w, d.input_bias), tuple(s[index] for s in initial),
                lengths, backwards=backwards,
            )  # fmt: skip
            outputs.append(out)
            finals.append(final)
        sequence = torch.stack(outputs, dim=1)
        states = [torch.stack(parts) for parts in zip(*finals, strict=True)]
    else:
        sequence, states = fast
    if batch_first:
        sequence = sequence.permute(2, 0, 1, 3)
        states = [state.transpose(0, 1) for state in states]
    return (sequence, *states)


def _direction(
    node: Node,
    index: int,
    names: list[str],
    w: Tensor,
    r: Tensor,
    bias: Tensor | None,
    peepholes: Tensor | None,
) -> _Direction:
    each = len(_DEFAULTS[node.op_type])
    alphas, betas = (
        list(node.get("activation_alpha") or []),
        list(node.get("activation_beta") or []),
    )

    def place(values: list[float], at: int) -> float | None:
        return values[at] if at < len(values) else None

    chosen = [
        _activation(names[at], place(alphas, at), place(betas, at))
        for at in range(index * each, (index + 1) * each)
    ]
    zeros = r.new_zeros(2 * r.shape[1])
    input_bias, recurrent_bias = (zeros if bias is None else bias[index]).chunk(2)
    peephole = None if peepholes is None else peepholes[index]
    return _Direction(
        w[index], r[index], input_bias, recurrent_bias, peephole, chosen, node.get("clip")
    )


def _run(
    cell: Cell,
    inputs: Tensor,
    state: tuple[Tensor, ...],
    lengths: Tensor | None,
    *,
    backwards: bool,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """All hidden states ``(steps, batch, hidden)``, zero after a sample's end, and the last state."""
    steps = inputs.shape[0]
    outputs: list[Any] = [None] * steps
    for step in reversed(range(steps)) if backwards else range(steps):
        new = cell(inputs[step], state)
        if lengths is None:
            state, outputs[step] = new, new[0]
        else:
            inside = (step < lengths)[:, None]
            state = tuple(torch.where(inside, n, s) for n, s in zip(new, state, strict=True))
            outputs[step] = torch.where(inside, new[0], torch.zeros_like(new[0]))
    sequence = torch.stack(outputs) if outputs else inputs.new_zeros(0, *state[0].shape)
    return sequence, state


def _torch_recurrent(
    node: Node, x: Tensor, w: Tensor, r: Tensor, bias: Tensor | None, initial: list[Tensor]
) -> tuple[Tensor, list[Tensor]] | None:
    """By torch's own kernels, where they compute the same; None where they do not."""
    kind, directions = node.op_type, r.shape[0]
    default = [name.lower() for name in _DEFAULTS[kind] * directions]
    names = [name.lower() for name in node.get("activations") or default]
    same = (
        names == default
        and node.get("clip") is None
        and not node.get("input_forget", 0)
        and node.get("direction", "forward") != "reverse"
        and (kind != "GRU" or node.get("linear_before_reset", 0))
        and x.shape[0] > 0
        and x.dtype in {torch.float32, torch.float64}
    )
    if not same:
        return None
    hidden = r.shape[-1]
    order = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}[kind]

    def permuted(t: Tensor) -> Tensor:
        return torch.cat([t[gate * hidden : (gate + 1) * hidden] for gate in order])

    weights: list[Tensor] = []
    for index in range(directions):
        weights += [permuted(w[index]), permuted(r[index])]
        if bias is not None:
            weights += [permuted(part) for part in bias[index].chunk(2)]
    state: Any = tuple(initial) if kind == "LSTM" else initial[0]
    function: Any = {"RNN": torch.rnn_tanh, "GRU": torch.gru, "LSTM": torch.lstm}[kind]
    out, *states = function(
        x,
        state,
        weights,
        bias is not None,
        1,
        0.0,
        False,
        directions == 2,
        False,
    )
    sequence = out.reshape(*out.shape[:2], directions, hidden).transpose(1, 2)
    return sequence, list(states)
