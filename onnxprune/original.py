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
    from collections.abc import Callable, Iterable, Iterator

    Tensor = ir.TensorProtocol
    WriteTensor = Callable[[onnx.TensorProto, Tensor, onnx.TensorProto | None], None]

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


def to_proto(model: ir.Model, write_tensor: WriteTensor) -> onnx.ModelProto:
    """The message of a model, unchanged parts as they were read.

    Args:
        model: the model.
        write_tensor: called with an empty message, the tensor that goes there, and the message
            that stood there before (None for a new place); it fills the message.
    """
    original = original_of(model)
    if original is None:
        return ir.to_proto(model)
    return _Writer(model, original, write_tensor).model()


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
        original.kinds[value] = _kind(value)


def _values_of(graph: ir.Graph | ir.Function) -> Iterator[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _kind(value: ir.Value) -> Kind:
    return value.type, None if value.shape is None else tuple(value.shape)


class _Writer:
    """Writes one model; see :func:`to_proto`."""

    def __init__(self, model: ir.Model, original: Original, write_tensor: WriteTensor) -> None:
        self._model = model
        self._original = original
        self._write_tensor = write_tensor

    def model(self) -> onnx.ModelProto:
        model, source = self._model, self._original.proto
        proto = onnx.ModelProto()
        _copy_into(proto, source, "graph", "functions", "metadata_props", "opset_import")
        proto.ir_version = model.ir_version
        for name in ("producer_name", "producer_version", "domain", "doc_string"):
            _set_text(proto, name, getattr(model, name))
        if (model.model_version or 0) != source.model_version:
            proto.model_version = model.model_version or 0
        _set_metadata(proto, source, model.metadata_props)
        self._set_opsets(proto, source, model.opset_imports)
        self._fill_graph(proto.graph, model.graph)
        known = {(f.domain, f.name, f.overload): f for f in source.functions}
        for identifier, function in model.functions.items():
            self._fill_function(proto.functions.add(), function, known.get(identifier))
        return proto

    def _set_opsets(
        self,
        proto: onnx.ModelProto | onnx.FunctionProto,
        source: onnx.ModelProto | onnx.FunctionProto,
        opsets: dict[str, int],
    ) -> None:
        if {entry.domain: entry.version for entry in source.opset_import} == opsets:
            proto.opset_import.extend(source.opset_import)
            return
        for domain, version in opsets.items():
            proto.opset_import.add(domain=domain, version=version)

    def _fill_graph(self, proto: onnx.GraphProto, graph: ir.Graph) -> None:
        source = self._original.graphs.get(graph)
        if source is None:
            ir.serde.serialize_graph_into(proto, graph)
            return
        _copy_into(
            proto,
            source,
            "node",
            "initializer",
            "input",
            "output",
            "value_info",
            "quantization_annotation",
            "metadata_props",
        )
        _set_text(proto, "name", graph.name)
        _set_text(proto, "doc_string", graph.doc_string)
        _set_metadata(proto, source, graph.metadata_props)
        for node in graph:
            self._fill_node(proto.node.add(), node)
        for value in graph.initializers.values():
            if value.const_value is not None:
                self._fill_initializer(proto.initializer.add(), value, source)
        self._fill_values(proto.input, graph.inputs, source.input)
        self._fill_values(proto.output, graph.outputs, source.output)
        self._fill_value_info(proto, graph, source)

    def _fill_initializer(
        self, proto: onnx.TensorProto, value: ir.Value, source: onnx.GraphProto
    ) -> None:
        tensor = value.const_value
        assert tensor is not None
        before = self._original.source(tensor)
        if before is None:
            before = next((t for t in source.initializer if t.name == value.name), None)
        self._write_tensor(proto, tensor, before)
        proto.name = value.name or ""

    def _fill_values(
        self, target: Any, values: Iterable[ir.Value], source: Iterable[onnx.ValueInfoProto]
    ) -> None:
        known = {message.name: message for message in source}
        for value in values:
            message = known.get(value.name or "")
            if message is not None and self._original.kinds.get(value, _kind(value)) == _kind(
                value
            ):
                target.add().CopyFrom(message)
            else:
                ir.serde.serialize_value_into(target.add(), value)

    def _fill_value_info(
        self, proto: onnx.GraphProto, graph: ir.Graph, source: onnx.GraphProto
    ) -> None:
        """Take over what was there; say something new only where a pass has learnt or changed it."""
        made = {value.name: value for node in graph for value in node.outputs if value.name}
        gone = {name for node in source.node for name in node.output}
        gone |= {tensor.name for tensor in source.initializer}
        gone -= made.keys() | graph.initializers.keys()
        written = {message.name for message in proto.output}
        for message in source.value_info:
            value = made.get(message.name)
            if message.name in gone:
                continue
            written.add(message.name)
            if value is None or self._original.kinds.get(value) == _kind(value):
                proto.value_info.add().CopyFrom(message)
            else:
                ir.serde.serialize_value_into(proto.value_info.add(), value)
        for name, value in made.items():
            known = self._original.kinds.get(value, (None, None))
            if name not in written and value.shape is not None and known != _kind(value):
                ir.serde.serialize_value_into(proto.value_info.add(), value)
        for annotation in source.quantization_annotation:
            if annotation.tensor_name not in gone:
                proto.quantization_annotation.add().CopyFrom(annotation)

    def _fill_node(self, proto: onnx.NodeProto, node: ir.Node) -> None:
        source, attributes = self._original.nodes.get(node, (None, {}))
        if source is None:
            ir.serde.serialize_node_into(proto, node, model_ir_version=self._model.ir_version)
            return
        _copy_into(proto, source, "attribute", "input", "output", "metadata_props")
        for name in ("op_type", "domain", "name", "overload", "doc_string"):
            _set_text(proto, name, getattr(node, name))
        _set_metadata(proto, source, node.metadata_props)
        inputs = ["" if value is None else value.name or "" for value in node.inputs]
        outputs = [value.name or "" for value in node.outputs]
        proto.input.extend(inputs if _differ(inputs, source.input) else source.input)
        proto.output.extend(outputs if _differ(outputs, source.output) else source.output)
        messages = {message.name: message for message in source.attribute}
        for name, attribute in node.attributes.items():
            before = messages.get(name)
            same = before is not None and attributes.get(name) is attribute
            self._fill_attribute(proto.attribute.add(), attribute, before, same=same)
        for message in source.attribute:
            if message.type in SPARSE and message.name not in node.attributes:
                proto.attribute.add().CopyFrom(message)

    def _fill_attribute(
        self,
        proto: onnx.AttributeProto,
        attribute: ir.Attr,
        before: onnx.AttributeProto | None,
        *,
        same: bool,
    ) -> None:
        kind = attribute.type
        if attribute.is_ref():
            ir.serde.serialize_reference_attribute_into(proto, attribute)
        elif kind == ir.AttributeType.GRAPH:
            proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPH
            self._fill_graph(proto.g, attribute.as_graph())
        elif kind == ir.AttributeType.GRAPHS:
            proto.name, proto.type = attribute.name, onnx.AttributeProto.GRAPHS
            for graph in attribute.as_graphs():
                self._fill_graph(proto.graphs.add(), graph)
        elif kind == ir.AttributeType.TENSOR:
            proto.name, proto.type = attribute.name, onnx.AttributeProto.TENSOR
            source = before.t if before is not None and before.HasField("t") else None
            self._write_tensor(proto.t, attribute.as_tensor(), source)
        elif same:
            assert before is not None
            proto.CopyFrom(before)
            return
        else:
            ir.serde.serialize_attribute_into(proto, attribute)
        if before is not None and before.HasField("doc_string"):
            proto.doc_string = before.doc_string

    def _fill_function(
        self, proto: onnx.FunctionProto, function: ir.Function, source: onnx.FunctionProto | None
    ) -> None:
        if source is None:
            ir.serde.serialize_function_into(
                proto, function, model_ir_version=self._model.ir_version
            )
            return
        _copy_into(proto, source, "node", "input", "output", "opset_import")
        proto.input.extend(value.name or "" for value in function.inputs)
        proto.output.extend(value.name or "" for value in function.outputs)
        self._set_opsets(proto, source, function.opset_imports)
        for node in function:
            self._fill_node(proto.node.add(), node)


def _copy_into(copy: Any, message: Any, *names: str) -> None:
    """Copy a message but for some of its fields, which are not touched, however large."""
    for descriptor, value in message.ListFields():
        if descriptor.name in names:
            continue
        if hasattr(value, "extend"):
            getattr(copy, descriptor.name).extend(value)
        elif descriptor.message_type is not None:
            getattr(copy, descriptor.name).CopyFrom(value)
        else:
            _set(copy, message, descriptor.name, value)


def _set(copy: Any, message: Any, name: str, value: Any) -> None:
    """Copy one plain field, even a text that is no UTF-8, which can be copied but not set."""
    if not isinstance(value, bytes) or isinstance(getattr(copy, name), bytes):
        setattr(copy, name, value)
        return
    alone = type(message)()
    alone.CopyFrom(message)
    for descriptor, _ in message.ListFields():
        if descriptor.name != name:
            alone.ClearField(descriptor.name)
    copy.MergeFrom(alone)


def _set_text(message: Any, name: str, text: str | None) -> None:
    """Set a text unless it says the same already; an empty text that was there stays there."""
    if (text or "") != getattr(message, name):
        setattr(message, name, text or "")


def _set_metadata(message: Any, source: Any, metadata: dict[str, str]) -> None:
    if {entry.key: entry.value for entry in source.metadata_props} == metadata:
        message.metadata_props.extend(source.metadata_props)
        return
    for key, text in metadata.items():
        message.metadata_props.add(key=key, value=text)


def _differ(names: list[str], source: Iterable[str]) -> bool:
    """Whether names differ from those that were read, trailing empty ones left out."""
    return "\n".join(names).rstrip() != "\n".join(source).rstrip()
