"""The model as the user's file has it, and the way back to it.

onnx-ir is what passes work on, but a round trip through it is not faithful: it drops training
information, leftover ``value_info`` and empty fields, adds ``value_info`` for every initializer, and
refuses sparse attributes. So the protobuf message that was read is kept beside the onnx-ir model,
and when the model is written every part that no pass has touched is taken from that message as it
was; only what has changed is written anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from onnxprune.sparse import nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Tensor = ir.TensorProtocol

KEY = "onnxprune.original"
SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)

Kind = tuple[Any, tuple[Any, ...] | None]


@dataclass(eq=False)
class Original:
    """What was read, and which part of the onnx-ir model came from which part of it.

    Attributes:
        proto: the message; never written to.
        graphs: message of each graph.
        nodes: message of each node, and its attributes as they were read.
        tensors: message of each tensor.
        kinds: type and shape of each value as they were read.
    """

    proto: onnx.ModelProto
    graphs: dict[ir.Graph, onnx.GraphProto] = field(default_factory=dict)
    nodes: dict[ir.Node, tuple[onnx.NodeProto, dict[str, ir.Attr]]] = field(default_factory=dict)
    tensors: dict[int, tuple[Tensor, onnx.TensorProto]] = field(default_factory=dict)
    kinds: dict[ir.Value, Kind] = field(default_factory=dict)

    def source(self, tensor: Tensor) -> onnx.TensorProto | None:
        """The message from which a tensor was read, or None for a new tensor."""
        found = self.tensors.get(id(tensor))
        return found[1] if found is not None else None


def from_proto(proto: onnx.ModelProto) -> ir.Model:
    """The model of a message, which is kept with it.

    Args:
        proto: without sparse initializers; it must not be changed any more.
    """
    hidden = _hide_sparse_attributes(proto)
    model = ir.from_proto(proto)
    for node, attribute in hidden:
        node.attribute.append(attribute)
    original = Original(proto)
    _remember_graph(original, model.graph, proto.graph)
    for function, message in zip(model.functions.values(), proto.functions, strict=False):
        _remember_nodes(original, function, message.node)
        _remember_values(original, function)
    model.meta[KEY] = original
    return model


def original_of(model: ir.Model) -> Original | None:
    """What was remembered when the model was read; None for a model that was made otherwise."""
    found = model.meta.get(KEY)
    return found if isinstance(found, Original) else None


def _hide_sparse_attributes(
    proto: onnx.ModelProto,
) -> list[tuple[onnx.NodeProto, onnx.AttributeProto]]:
    hidden = []
    for node in nodes_of(proto):
        for attribute in [a for a in node.attribute if a.type in SPARSE]:
            kept = onnx.AttributeProto()
            kept.CopyFrom(attribute)
            node.attribute.remove(attribute)
            hidden.append((node, kept))
    return hidden


def _remember_graph(original: Original, graph: ir.Graph, message: onnx.GraphProto) -> None:
    original.graphs[graph] = message
    by_name = {tensor.name: tensor for tensor in message.initializer}
    for name, value in graph.initializers.items():
        if value.const_value is not None and name in by_name:
            original.tensors[id(value.const_value)] = (value.const_value, by_name[name])
    _remember_nodes(original, graph, message.node)
    _remember_values(original, graph)


def _remember_nodes(
    original: Original, nodes: Iterable[ir.Node], messages: Iterable[onnx.NodeProto]
) -> None:
    for node, message in zip(nodes, messages, strict=True):
        original.nodes[node] = (message, dict(node.attributes))
        by_name = {attribute.name: attribute for attribute in message.attribute}
        for name, attribute in node.attributes.items():
            _remember_attribute(original, attribute, by_name[name])


def _remember_attribute(
    original: Original, attribute: ir.Attr, message: onnx.AttributeProto
) -> None:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.TENSOR:
        original.tensors[id(attribute.value)] = (attribute.as_tensor(), message.t)
    elif attribute.type == ir.AttributeType.GRAPH:
        _remember_graph(original, attribute.as_graph(), message.g)
    elif attribute.type == ir.AttributeType.GRAPHS:
        for graph, body in zip(attribute.as_graphs(), message.graphs, strict=True):
            _remember_graph(original, graph, body)


def _remember_values(original: Original, graph: ir.Graph | ir.Function) -> None:
    for value in _values_of(graph):
        original.kinds[value] = kind_of(value)


def _values_of(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def kind_of(value: ir.Value) -> Kind:
    """Type and shape of a value, to tell whether a pass has changed them."""
    return value.type, None if value.shape is None else tuple(value.shape)
