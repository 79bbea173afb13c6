"""Operators that run graphs of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from onnxprune.finetune.bridge.ops.common import axis_of, integer
from onnxprune.finetune.bridge.registry import Node, operator

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.finetune.bridge.program import Scope


@operator("If", scoped=True)
def _if(node: Node, condition: Tensor, *, scope: Scope) -> list[Any]:
    return scope.run(node.get("then_branch" if bool(condition) else "else_branch"))


@operator("Loop", scoped=True)
def _loop(
    node: Node,
    trips: Tensor | None = None,
    condition: Tensor | None = None,
    *carried: Any,
    scope: Scope,
) -> list[Any]:
    body = node.get("body")
    limit = None if trips is None else integer(trips)
    state = list(carried)
    rows: list[list[Tensor]] = [[] for _ in range(len(body.outputs) - 1 - len(state))]
    alive = torch.tensor(True) if condition is None else condition
    step = 0
    while bool(alive) and (limit is None or step < limit):
        alive, *results = scope.run(body, [torch.tensor(step, dtype=torch.int64), alive, *state])
        state = results[: len(state)]
        for row, value in zip(rows, results[len(state) :], strict=True):
            row.append(value)
        step += 1
    return [*state, *(torch.stack(row) if row else torch.zeros(0) for row in rows)]


@operator("Scan", scoped=True)
def _scan(node: Node, *inputs: Tensor, scope: Scope) -> list[Any]:
    body = node.get("body")
    count = node.get("num_scan_inputs")
    states, scanned = list(inputs[:-count]), list(inputs[-count:])
    outputs = len(body.outputs) - len(states)
    in_axes = node.get("scan_input_axes") or [0] * count
    in_directions = node.get("scan_input_directions") or [0] * count
    out_axes = node.get("scan_output_axes") or [0] * outputs
    out_directions = node.get("scan_output_directions") or [0] * outputs
    series = [
        list(x.unbind(axis_of(axis, x.ndim)))[:: -1 if backwards else 1]
        for x, axis, backwards in zip(scanned, in_axes, in_directions, strict=True)
    ]
    rows: list[list[Tensor]] = [[] for _ in range(outputs)]
    for parts in zip(*series, strict=True):
        results = scope.run(body, [*states, *parts])
        states = results[: len(states)]
        for row, value in zip(rows, results[len(states) :], strict=True):
            row.append(value)
    stacked = [
        torch.stack(row[:: -1 if backwards else 1], axis)
        for row, axis, backwards in zip(rows, out_axes, out_directions, strict=True)
    ]
    return [*states, *stacked]


@operator("SequenceMap", scoped=True)
def _sequence_map(node: Node, *inputs: Any, scope: Scope) -> list[Any]:
    body = node.get("body")
    results = [
        scope.run(body, [value[i] if isinstance(value, list) else value for value in inputs])
        for i in range(len(inputs[0]))
    ]
    return [list(column) for column in zip(*results, strict=True)]
