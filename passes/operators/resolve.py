"""Nodes with the attributes that the callers of their function give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import onnx_ir as ir

from passes.operators.answers import NotPrunable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnx_ir._graph_containers import Attributes


class NodeLike(Protocol):
    """What rules read of a node: :class:`Seen` or ``ir.Node``."""

    @property
    def domain(self) -> str:
        """Domain of the operator."""

    @property
    def op_type(self) -> str:
        """Name of the operator."""

    @property
    def inputs(self) -> Sequence[ir.Value | None]:
        """Values it reads, None where one is left out."""

    @property
    def outputs(self) -> Sequence[ir.Value]:
        """Values it makes."""

    @property
    def attributes(self) -> Attributes:
        """Attributes by name."""


Call = tuple[ir.Node, ir.Function]
"""A node that calls a model-local function, and that function."""


@dataclass(frozen=True, eq=False)
class Seen:
    """A node as rules see it: every attribute has a value, whoever set it."""

    domain: str
    op_type: str
    inputs: Sequence[ir.Value | None]
    outputs: Sequence[ir.Value]
    attributes: Attributes


def resolve(node: ir.Node, calls: tuple[Call, ...]) -> Seen:
    """The node with attributes that refer to a function's parameters replaced by their values.

    Args:
        node: any node.
        calls: the calls through which it was reached, outermost first.

    Raises:
        NotPrunable: when a value is not known, for the node was not reached through a call.
    """
    attributes = node.attributes
    if any(attribute.is_ref() for attribute in attributes.values()):
        known = ir.Node("", "Attributes", [], attributes=_resolved(node, calls), num_outputs=0)
        attributes = known.attributes
    return Seen(node.domain, node.op_type, node.inputs, node.outputs, attributes)


def _resolved(node: ir.Node, calls: tuple[Call, ...]) -> list[ir.Attr]:
    result = []
    for name, attribute in node.attributes.items():
        given: ir.Attr | None = attribute
        depth = len(calls)
        while given is not None and given.is_ref():
            parameter = given.ref_attr_name
            if depth == 0 or parameter is None:
                msg = f"'{name}' of {node.op_type} is set by the callers of its function"
                raise NotPrunable(msg)
            depth -= 1
            call, function = calls[depth]
            default = function.attributes.get(parameter)
            given = call.attributes.get(parameter, default)
        if given is not None and given.value is not None:
            result.append(ir.Attr(name, given.type, given.value))
    return result
