"""Writing a model as the user's file has it: what no pass has touched is taken from that file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnx_ir as ir

from onnxprune.original import SPARSE, Original, kind_of, original_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Tensor = ir.TensorProtocol
    WriteTensor = Callable[[onnx.TensorProto, Tensor, onnx.TensorProto | None], None]


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
            if message is not None and self._original.kinds.get(value, kind_of(value)) == kind_of(
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
            if message.name in gone or _outgrown(graph.initializers.get(message.name), message):
                continue
            written.add(message.name)
            if value is None or self._original.kinds.get(value) == kind_of(value):
                proto.value_info.add().CopyFrom(message)
            else:
                ir.serde.serialize_value_into(proto.value_info.add(), value)
        for name, value in made.items():
            known = self._original.kinds.get(value, (None, None))
            if name not in written and value.shape is not None and known != kind_of(value):
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


def _outgrown(initializer: ir.Value | None, message: onnx.ValueInfoProto) -> bool:
    """Whether a model says another shape of an initializer than the one that it has now."""
    if initializer is None or initializer.const_value is None:
        return False
    said = message.type.tensor_type
    sizes = [size.dim_value for size in said.shape.dim]
    return said.HasField("shape") and sizes != list(initializer.const_value.shape.numpy())


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
