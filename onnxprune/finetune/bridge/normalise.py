"""Bringing a copy of a model into the one form that the bridge implements.

Local functions are inlined, operators without an implementation of ours are replaced by the body
that their schema gives, and the default domain is converted up to one opset, so that one revision
of each operator is enough. Upward conversion keeps the names and values of all float constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
from onnx import defs, inliner, version_converter

from onnxprune.errors import ModelError
from onnxprune.finetune.bridge import registry
from onnxprune.finetune.bridge.graphs import (
    all_graphs,
    make_constants_unique,
    make_dense,
    named_constants,
)
from onnxprune.finetune.bridge.registry import UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable

OPSET = 23
"""Older models are converted to this opset. What came later only adds inputs and types."""

DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Normalised:
    """A model in the bridge's form.

    Attributes:
        model: the normalised copy.
        names: of all constants of the user's own model; others came with normalising.
        opsets: by domain.
    """

    model: onnx.ModelProto
    names: frozenset[str]
    opsets: dict[str, int]


def normalise(original: onnx.ModelProto) -> Normalised:
    """A copy of a model in the bridge's form; the model itself stays as it is.

    Raises:
        UnsupportedError: naming all operators that the bridge cannot run.
        ModelError: when onnx cannot convert the model.
    """
    model = onnx.ModelProto()
    model.CopyFrom(original)
    make_dense(model.graph)
    make_constants_unique(model.graph)
    names = frozenset(name for name, _ in named_constants(model.graph))
    if model.functions:
        model = _attempt(
            "inline functions",
            ModelError,
            inliner.inline_local_functions,
            model,
            convert_version=True,
        )
    if _opset(model) < 9 and ("", "Scan") in {(n.domain, n.op_type) for n in model.graph.node}:
        msg = "the torch bridge cannot run the operator Scan of opset 8; export with a newer opset"
        raise UnsupportedError(msg)
    model = _inline_unknown(model)
    if _needs_conversion(model):
        model = _attempt(
            f"convert opset {_opset(model)} to {OPSET}",
            ModelError,
            version_converter.convert_version,
            model,
            OPSET,
        )
        model = _inline_unknown(model)
    opsets = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in model.opset_import}
    return Normalised(model, names, opsets)


def _attempt(
    what: str,
    kind: type[ModelError],
    step: Callable[..., onnx.ModelProto],
    *arguments: Any,
    **more: Any,
) -> onnx.ModelProto:
    """Run a step of onnx; its failure becomes our own error."""
    try:
        return step(*arguments, **more)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        msg = f"onnx cannot {what}: {reason}; export the model again with a newer opset"
        raise kind(msg) from error


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in DEFAULT_DOMAINS), 1)


def _unknown(model: onnx.ModelProto) -> set[tuple[str, str]]:
    return {
        (node.domain, node.op_type)
        for graph in all_graphs(model.graph)
        for node in graph.node
        if node.op_type != "Constant" and registry.find(node.domain, node.op_type) is None
    }


def _inline_unknown(model: onnx.ModelProto) -> onnx.ModelProto:
    """Replace operators that we lack by their schema's body, until only ones we know are left."""
    tried: set[tuple[str, str]] = set()
    while unknown := _unknown(model):
        bodies = {key for key in unknown if _has_body(*key, _opset(model))} - tried
        if not bodies:
            names = ", ".join(sorted(f"{d}.{n}" if d else n for d, n in unknown))
            msg = f"the torch bridge cannot run the operators {names}; see docs/bridge.md for those it can"
            raise UnsupportedError(msg)
        tried |= bodies
        _fill_defaults(model, bodies)
        names = ", ".join(sorted(name for _, name in bodies))
        model = _attempt(
            f"expand {names}",
            UnsupportedError,
            inliner.inline_selected_functions,
            model,
            sorted(bodies),
            inline_schema_functions=True,
        )
    return model


def _has_body(domain: str, op_type: str, opset: int) -> bool:
    if domain not in DEFAULT_DOMAINS:
        return False
    try:
        schema: Any = defs.get_schema(op_type, opset, "")  # the stubs lack the two fields below
    except defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _fill_defaults(model: onnx.ModelProto, operators: set[tuple[str, str]]) -> None:
    """Write out the attributes that nodes leave to their defaults: a body refers to them by name."""
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if (node.domain, node.op_type) in operators:
                schema = defs.get_schema(node.op_type, _opset(model), "")
                given = {attribute.name for attribute in node.attribute}
                node.attribute.extend(
                    attribute.default_value
                    for name, attribute in schema.attributes.items()
                    if name not in given and attribute.default_value.type
                )


def _needs_conversion(model: onnx.ModelProto) -> bool:
    """Whether any operator has another revision at the model's opset than at ours."""
    opset = _opset(model)
    if opset >= OPSET:
        return False
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.domain not in DEFAULT_DOMAINS:
                continue
            try:
                ours = defs.get_schema(node.op_type, OPSET, "").since_version
                theirs = defs.get_schema(node.op_type, opset, "").since_version
            except defs.SchemaError:
                return True
            if ours != theirs:
                return True
    return False
