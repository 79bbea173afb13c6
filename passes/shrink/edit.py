"""Changing what a node reads, without touching what other nodes read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from numpy.typing import NDArray


def set_constant(node: ir.Node, index: int, array: NDArray[Any]) -> None:
    """Let input ``index`` of a node be this array; other readers of the old one keep it."""
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and len(list(old.uses())) == 1 and old.is_initializer():
        tensor = old.const_value
        assert tensor is not None
        old.const_value = ir.tensor(
            np.asarray(array, order="C"),
            dtype=tensor.dtype,
            name=tensor.name,
            doc_string=tensor.doc_string,
        )
        old.shape = ir.Shape(array.shape)
        return
    graph = node.graph
    assert graph is not None
    name = fresh_name(graph, (old.name if old is not None else None) or f"{node.name}.{index}")
    new = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(np.asarray(array, order="C"), name=name),
    )
    graph.register_initializer(new)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, new)


def add_after(node: ir.Node, array: NDArray[Any]) -> None:
    """Add a constant to the only output of a node."""
    graph = node.graph
    assert graph is not None
    out = node.outputs[0]
    name = fresh_name(graph, f"{out.name}.constant")
    constant = ir.Value(
        name=name,
        shape=ir.Shape(array.shape),
        type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
        const_value=ir.tensor(np.asarray(array, order="C"), name=name),
    )
    graph.register_initializer(constant)
    add = ir.node(
        "Add", [out, constant], name=fresh_name(graph, f"{node.name or out.name}.constant")
    )
    total = add.outputs[0]
    total.name = fresh_name(graph, f"{out.name}.shifted")
    total.type = out.type
    for user, index in [(usage.node, usage.idx) for usage in out.uses()]:
        if user is not add:
            user.replace_input_with(index, total)
    graph.insert_after(node, add)


def fresh_name(graph: ir.Graph, base: str) -> str:
    """A name that no value or node of the graph has."""
    taken = set(graph.initializers) | {value.name for value in graph.inputs}
    for node in graph.all_nodes():
        taken.add(node.name)
        taken.update(value.name for value in node.outputs)
    number, name = 0, base
    while name in taken:
        number += 1
        name = f"{base}.{number}"
    return name


def set_int(node: ir.Node, name: str, number: int) -> None:
    """Set an attribute of one whole number."""
    node.attributes[name] = ir.AttrInt64(name, number)
