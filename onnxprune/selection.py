"""Which of the weights that could be pruned the user wants pruned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.errors import RecipeError
from onnxprune.plan import unknown_name
from passes.weights import Collection, Skipped, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence


def select(
    collection: Collection,
    nodes_to_exclude: Sequence[str] = (),
    op_types_to_prune: Sequence[str] | None = None,
) -> Collection:
    """Leave out nodes by name and all but some operators; what is left out says so in ``skipped``.

    A weight that any excluded node reads is left out.

    Raises:
        RecipeError: for a node or operator that reads no prunable weight.
    """
    nodes = {c.node for weight in collection.weights for c in weight.consumers}
    names = {weight.name for weight in collection.weights}
    for node in nodes_to_exclude:
        if node not in nodes | names:
            raise unknown_name("nodes_to_exclude", node, sorted(nodes | names))
    op_types = {c.op_type for weight in collection.weights for c in weight.consumers}
    for op_type in op_types_to_prune or ():
        if op_type not in op_types:
            msg = f"op_types_to_prune names '{op_type}', but prunable weights are read by {sorted(op_types)}"
            raise RecipeError(msg)
    kept: list[Weight] = []
    skipped = list(collection.skipped)
    for weight in collection.weights:
        reason = _reason(weight, set(nodes_to_exclude), op_types_to_prune)
        if reason is None:
            kept.append(weight)
        else:
            skipped.append(Skipped(weight.name, tuple(c.node for c in weight.consumers), reason))
    return Collection(tuple(kept), tuple(skipped))


def _reason(weight: Weight, excluded: set[str], op_types: Sequence[str] | None) -> str | None:
    if excluded & {weight.name, *(c.node for c in weight.consumers)}:
        return "excluded on request (nodes_to_exclude)"
    if op_types is not None and not all(c.op_type in op_types for c in weight.consumers):
        return "left out on request (op_types_to_prune)"
    return None
