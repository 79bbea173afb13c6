"""Walking the graphs of a model proto: nodes, constants, and the names that graphs share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from onnx import AttributeProto, helper, numpy_helper

from onnxprune.finetune.bridge.dtypes import dense

if TYPE_CHECKING:
    from collections.abc import Iterator

Constant = onnx.TensorProto | onnx.SparseTensorProto | onnx.AttributeProto
"""Where the model stores a constant: an initializer, or the attribute of a Constant node."""


def subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """The graphs of a node, by the names of their attributes."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.name, attribute.g
        for graph in attribute.graphs:
            yield attribute.name, graph


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it, outer ones first, in the order of the nodes."""
    yield graph
    for node in graph.node:
        for _, inner in subgraphs(node):
            yield from all_graphs(inner)


def constants(graph: onnx.GraphProto) -> Iterator[tuple[str, Constant]]:
    """The constants of one graph by name: initializers first, then Constant nodes."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for sparse in graph.sparse_initializer:
        yield sparse.values.name, sparse
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in {"", "ai.onnx"} and node.attribute:
            yield node.output[0], node.attribute[0]


def named_constants(graph: onnx.GraphProto) -> Iterator[tuple[str, Constant]]:
    """All constants of a graph and the graphs in it, by names that are unique.

    Branches that do not see each other may use one name twice; from the second on it becomes
    ``name#2`` and so on, in the order of :func:`all_graphs`.
    """
    seen: dict[str, int] = {}
    for inner in all_graphs(graph):
        for name, constant in constants(inner):
            seen[name] = seen.get(name, 0) + 1
            yield (name if seen[name] == 1 else f"{name}#{seen[name]}"), constant


def constant_tensor(constant: Constant) -> onnx.TensorProto | None:
    """A constant as a tensor; None for strings."""
    if isinstance(constant, onnx.TensorProto):
        return constant
    if isinstance(constant, onnx.SparseTensorProto):
        return dense(constant)
    value = helper.get_attribute_value(constant)
    if constant.name == "value":
        return value
    if constant.name == "sparse_value":
        return dense(value)
    if constant.name in {"value_string", "value_strings"}:
        return None
    dtype = "float32" if constant.name.startswith("value_float") else "int64"
    import numpy as np

    return numpy_helper.from_array(np.asarray(value, dtype=dtype))


def captured(graph: onnx.GraphProto) -> set[str]:
    """Names that a graph, or one inside it, reads from outside."""
    inside = {value.name for value in graph.input} | {name for name, _ in constants(graph)}
    outside: set[str] = set()
    for node in graph.node:
        read = {name for name in node.input if name}
        for _, inner in subgraphs(node):
            read |= captured(inner)
        outside |= read - inside
        inside.update(node.output)
    return outside | ({value.name for value in graph.output} - inside)


def make_constants_unique(graph: onnx.GraphProto) -> None:
    """Rename constants of inner graphs as :func:`named_constants` calls them, uses included."""
    seen: dict[str, int] = {}
    for inner in all_graphs(graph):
        renamed: dict[str, str] = {}
        for name, _ in list(constants(inner)):
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                renamed[name] = f"{name}#{seen[name]}"
        if renamed:
            _rename(inner, renamed)


def make_dense(graph: onnx.GraphProto) -> None:
    """Turn sparse initializers into ordinary ones, in all graphs."""
    for inner in all_graphs(graph):
        inner.initializer.extend(dense(sparse) for sparse in inner.sparse_initializer)
        del inner.sparse_initializer[:]


def _rename(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    for tensor in graph.initializer:
        tensor.name = renamed.get(tensor.name, tensor.name)
    for value in [*graph.input, *graph.output]:
        value.name = renamed.get(value.name, value.name)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
        for _, inner in subgraphs(node):
            own = {name for name, _ in constants(inner)}
            _rename(inner, {old: new for old, new in renamed.items() if old not in own})
