"""Watching values inside the bodies of Loop and Scan.

A body runs many times; what a value holds each time is collected by one more output of the node, which
stacks it along a new first axis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from passes.operators import NotPrunable
from passes.operators.constants import stored_tensor
from passes.unfold import Product, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.reader import Reader
    from passes.values import Values

LOOPS = frozenset(("Loop", "Scan"))


def body_of(node: ir.Node) -> ir.Graph | None:
    """The body of a Loop or Scan; None for other nodes."""
    if node.domain or node.op_type not in LOOPS or "body" not in node.attributes:
        return None
    return node.attributes["body"].as_graph()


def inner_names(node: ir.Node) -> Iterator[str]:
    """Names of the values in the body of a Loop or Scan; none for other nodes."""
    body = body_of(node)
    if body is not None:
        yield from (value.name for value in body.inputs if value.name)
        for inner in body:
            yield from (value.name for value in inner.outputs if value.name)


def outer_name(name: str) -> str:
    """The output that stacks a value of the body."""
    return f"{name}::each"


def expose(proto: onnx.NodeProto, names: Iterable[str]) -> None:
    """Add an output to a Loop or Scan for each of some values of its body, in place."""
    (body,) = (attribute.g for attribute in proto.attribute if attribute.name == "body")
    whole = len(body.output) - (proto.op_type == "Loop")  # the condition is no output of the node
    proto.output.extend([""] * (whole - len(proto.output)))
    for name in names:
        body.node.append(helper.make_node("Identity", [name], [outer_name(name)]))
        body.output.append(onnx.ValueInfoProto(name=outer_name(name)))
        proto.output.append(outer_name(name))
        for attribute in proto.attribute:
            if attribute.name in {"scan_output_axes", "scan_output_directions"}:
                attribute.ints.append(0)


def in_loop(reader: Reader, loop: ir.Node) -> Reader:
    """A reader in the body of a loop, over all its iterations.

    Raises:
        NotPrunable: when what it reads cannot be stacked.
    """
    unfold, body = reader.unfold, body_of(loop)
    inner = [
        value
        for value in reader.needs
        if stored_tensor(value) is None and value.name in set(inner_names(loop))
    ]
    if not inner:
        return replace(reader, anchor=loop)
    flat = isinstance(unfold, Product) and not unfold.transposed
    if body is None or len(inner) > 1 or not (flat or isinstance(unfold, Window)):
        msg = f"what {reader.node.op_type} multiplies it with in a loop is not watched"
        raise NotPrunable(msg)
    if flat:
        return replace(reader, anchor=loop)

    def prepare(values: Values) -> NDArray[Any]:
        stacked = reader.prepare(values)  # iterations and samples alike are positions
        return stacked.reshape(-1, *stacked.shape[2:])

    return replace(reader, anchor=loop, prepare=prepare)
