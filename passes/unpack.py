"""From a packed model back to the dense model with zeros, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from passes.pack.evaluate import ChainError, evaluate
from passes.pack.marks import chain_nodes_of, read_marks
from passes.pack.scopes import CHAIN, DOMAIN, scopes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from passes.pack.marks import Marks

    Functions = Mapping[tuple[str, str, str], ir.Function]


@dataclass(frozen=True)
class UnpackWeightsPass(ir.passes.InPlacePass):
    """Replaces every chain of a packed model by the initializer that it rebuilds."""

    def requires(self, model: ir.Model) -> None:
        """The model is packed, and what marks it as such is whole."""
        if read_marks(model) is None:
            msg = "the model is not packed: there is nothing to unpack"
            raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Unpack all graphs.

        Raises:
            ir.passes.PreconditionError: when a chain is damaged.
        """
        marks = read_marks(model)
        assert marks is not None
        try:
            for number, scope in enumerate(scopes(model)):
                _unpack_graph(scope.graph, marks, number, model.functions)
        except ChainError as error:
            msg = f"a packed weight is damaged: {error}"
            raise ir.passes.PreconditionError(msg) from error
        marks.remove(model)
        for key in [k for k in model.functions if k[0] == DOMAIN and k[1].startswith(CHAIN)]:
            del model.functions[key]
        if not any(domain == DOMAIN for domain, _, _ in model.functions):
            model.graph.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, modified=True)


def _unpack_graph(graph: ir.Graph, marks: Marks, number: int, functions: Functions) -> None:
    nodes = chain_nodes_of(graph, marks.prefix)
    helpers = [name for name in graph.initializers if name.startswith(marks.prefix)]
    known: dict[str, NDArray[Any]] = {}
    for name in helpers:
        tensor = graph.initializers[name].const_value
        assert tensor is not None
        known[name] = tensor.numpy()
    restored = []
    last_use = _last_uses(nodes)
    for at, node in enumerate(nodes):
        names = [value.name or "" for value in node.inputs if value is not None]
        if missing := [name for name in names if name not in known]:
            msg = f"step '{node.outputs[0].name}' reads '{missing[0]}', which nothing makes"
            raise ChainError(msg)
        arrays = _evaluate(node, [known[name] for name in names], functions)
        for name in names:
            if last_use[name] == at:
                known.pop(name, None)
        for value, array in zip(node.outputs, arrays, strict=True):
            name = value.name or ""
            if name.startswith(marks.prefix):
                known[name] = array
            else:
                restored.append((value, array))
    new = []
    for value, array in restored:
        made = _constant(graph, value, array) or _initializer(value, array)
        if made.producer() is None:
            new.append(made)
    graph.remove(nodes, safe=True)
    _place(graph, helpers, new, marks.places(number))


def _evaluate(
    node: ir.Node, inputs: list[NDArray[Any]], functions: Functions
) -> Sequence[NDArray[Any]]:
    """A step, or a call of a function of steps."""
    function = functions.get(node.op_identifier()) if node.domain == DOMAIN else None
    if function is None:
        return evaluate(node, inputs)
    if len(inputs) != len(function.inputs):
        msg = f"'{node.op_type}' is called with {len(inputs)} inputs of {len(function.inputs)}"
        raise ChainError(msg)
    known = dict(zip(function.inputs, inputs, strict=True))
    for inner in function:
        missing = [value for value in inner.inputs if value not in known]
        if missing:
            msg = f"function '{node.op_type}' reads what nothing makes"
            raise ChainError(msg)
        arrays = evaluate(inner, [known[value] for value in inner.inputs if value is not None])
        known |= zip(inner.outputs, arrays, strict=True)
    return [known[value] for value in function.outputs]


def _last_uses(nodes: tuple[ir.Node, ...]) -> dict[str, int]:
    return {
        value.name or "": at
        for at, node in enumerate(nodes)
        for value in node.inputs
        if value is not None
    }


def _initializer(value: ir.Value, array: NDArray[Any]) -> ir.Value:
    """A constant in place of what a chain rebuilt."""
    name = value.name
    tensor = ir.tensor(np.ascontiguousarray(array), name=name)
    new = ir.Value(
        name=name,
        shape=ir.Shape(tensor.shape.numpy()),
        type=ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    value.replace_all_uses_with(new)
    return new


def _constant(graph: ir.Graph, value: ir.Value, array: NDArray[Any]) -> ir.Value | None:
    """A Constant node in the place that an Identity node kept for it; None where none does."""
    place = value.producer()
    if place is None or place.op_type != "Identity":
        return None
    tensor = ir.tensor(np.ascontiguousarray(array))
    node = ir.node("Constant", [], {"value": tensor}, name=place.name)
    (new,) = node.outputs
    new.name, new.type, new.shape = value.name, value.type, value.shape
    value.replace_all_uses_with(new)
    graph.insert_before(place, node)
    return new


def _place(
    graph: ir.Graph, helpers: list[str], new: list[ir.Value], places: tuple[int, ...]
) -> None:
    """Drop the helpers and put the restored initializers where they were, as far as it is known."""
    for name in helpers:
        graph.initializers.pop(name)
    order = list(graph.initializers.values())
    graph.initializers.clear()
    for value, place in zip(new, (*places, *[len(order) + len(new)] * len(new)), strict=False):
        order.insert(place, value)
    for value in order:
        graph.register_initializer(value)
