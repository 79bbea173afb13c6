"""A copy of a model without function calls and without decided conditionals.

Calibration data take the same course through a model batch after batch. In the copy, model-local
functions stand where they are called and the branch that an If takes stands in its place, so that
what is in there can be watched like everything else. Tensors are shared with the model, names are
unique, and a constant that the model holds once is there once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from passes.operators.resolve import Call, resolve

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

BRANCHES = {True: "then_branch", False: "else_branch"}


@dataclass(frozen=True, eq=False)
class Flat:
    """A flattened model.

    Attributes:
        model: the copy.
        origin: for each value of the copy that of the model from which it was made.
    """

    model: ir.Model
    origin: Mapping[ir.Value, ir.Value]


def flatten(
    model: ir.Model,
    taken: Mapping[ir.Node, bool] | None = None,
    *,
    known: Mapping[ir.Value, NDArray[Any]] | None = None,
    names: Mapping[ir.Value, str] | None = None,
) -> Flat:
    """Copy a model, functions written out and the given If nodes replaced by the branch they take.

    Args:
        model: it is not changed.
        taken: for If nodes of the main graph whether their condition holds.
        known: arrays of values of the main graph, which take the place of the nodes that compute them.
        names: for constants, where they are to have other names than in their graph.
    """
    copier = _Copier(model, taken or {}, known or {}, names or {})
    return Flat(copier.made(), copier.origin)


class _Copier:
    def __init__(
        self,
        model: ir.Model,
        taken: Mapping[ir.Node, bool],
        known: Mapping[ir.Value, NDArray[Any]],
        named: Mapping[ir.Value, str],
    ) -> None:
        self._model, self._taken, self._known, self._named = model, taken, known, named
        self._values: dict[ir.Value, ir.Value] = {}
        self._constants: dict[ir.Value, ir.Value] = {}
        self._names: set[str] = set(named.values())
        self._initializers: list[ir.Value] = []
        self.origin: dict[ir.Value, ir.Value] = {}

    def made(self) -> ir.Model:
        graph = self._model.graph
        inputs = [self._new(value) for value in graph.inputs]
        for value in graph.initializers.values():
            self._initializer(value)
        nodes: list[ir.Node] = []
        self._body(graph, nodes, ())
        copy = ir.Graph(
            inputs,
            [self._values[value] for value in graph.outputs],
            nodes=nodes,
            initializers=self._initializers,
            opset_imports=dict(graph.opset_imports),
            name=graph.name,
        )
        return ir.Model(copy, ir_version=self._model.ir_version)

    def _new(self, value: ir.Value) -> ir.Value:
        """A copy of a value under a name of its own."""
        copy = ir.Value(
            name=self._named.get(value) or self._unique(value.name),
            type=value.type,
            shape=value.shape,
            const_value=value.const_value,
        )
        self._values[value] = copy
        self.origin[copy] = value
        return copy

    def _unique(self, name: str | None) -> str | None:
        if not name:
            return name
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}__{number}"
        self._names.add(found)
        return found

    def _initializer(self, value: ir.Value) -> None:
        if value.is_graph_input() and value in self._values:
            self._initializers.append(self._values[value])
        elif value in self._constants:
            self._values[value] = self._constants[value]
        else:
            self._constants[value] = self._new(value)
            self._initializers.append(self._constants[value])

    def _body(
        self, graph: ir.Graph | ir.Function, nodes: list[ir.Node], calls: tuple[Call, ...]
    ) -> None:
        """Copy the nodes of a graph to the end of ``nodes``."""
        for node in graph:
            function = self._model.functions.get(node.op_identifier())
            if function is not None:
                given = [*node.inputs, *[None] * (len(function.inputs) - len(node.inputs))]
                for inner, value in zip(function.inputs, given, strict=False):
                    self._bind(inner, value)
                self._body(function, nodes, (*calls, (node, function)))
                self._leave(node, function)
            elif node in self._taken:
                branch = node.attributes[BRANCHES[self._taken[node]]].as_graph()
                for value in branch.initializers.values():
                    self._initializer(value)
                self._body(branch, nodes, calls)
                self._leave(node, branch)
            elif len(node.outputs) == 1 and node.outputs[0] in self._known:
                value = self._new(node.outputs[0])
                value.const_value = ir.tensor(self._known[node.outputs[0]], name=value.name)
                self._initializers.append(value)
            else:
                self._node(node, nodes, calls)

    def _bind(self, inner: ir.Value, value: ir.Value | None) -> None:
        if value is None:
            self._values.pop(inner, None)  # an input that the caller leaves out
        else:
            self._values[inner] = self._values[value]

    def _leave(self, node: ir.Node, graph: ir.Graph | ir.Function) -> None:
        for output, value in zip(node.outputs, graph.outputs, strict=False):
            self._values[output] = self._values[value]

    def _node(self, node: ir.Node, nodes: list[ir.Node], calls: tuple[Call, ...]) -> None:
        single = node.op_type == "Constant" and not any(
            a.is_ref() for a in node.attributes.values()
        )
        if single and node.outputs[0] in self._constants:
            self._values[node.outputs[0]] = self._constants[node.outputs[0]]
            return
        attributes = [
            self._attribute(attribute, calls)
            for attribute in resolve(node, calls).attributes.values()
        ]
        inputs = [None if value is None else self._values.get(value) for value in node.inputs]
        outputs = [self._new(value) for value in node.outputs]
        if single:
            self._constants[node.outputs[0]] = outputs[0]
        nodes.append(
            ir.Node(node.domain, node.op_type, inputs, attributes, outputs=outputs, name=node.name)
        )

    def _attribute(self, attribute: ir.Attr, calls: tuple[Call, ...]) -> ir.Attr:
        if attribute.type == ir.AttributeType.GRAPH:
            return ir.AttrGraph(attribute.name, self._graph(attribute.as_graph(), calls))
        if attribute.type == ir.AttributeType.GRAPHS:
            copies = [self._graph(graph, calls) for graph in attribute.as_graphs()]
            return ir.AttrGraphs(attribute.name, copies)
        return attribute

    def _graph(self, graph: ir.Graph, calls: tuple[Call, ...]) -> ir.Graph:
        """A copy of the body of a node that stays one."""
        inputs = [self._new(value) for value in graph.inputs]
        initializers = [self._new(v) for v in graph.initializers.values() if not v.is_graph_input()]
        nodes: list[ir.Node] = []
        self._body(graph, nodes, calls)
        outputs = [self._values[value] for value in graph.outputs]
        return ir.Graph(inputs, outputs, nodes=nodes, initializers=initializers, name=graph.name)
