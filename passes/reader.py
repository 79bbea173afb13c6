"""A node that multiplies an activation with a weight, and what must be watched for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from passes.operators import NotPrunable

if TYPE_CHECKING:
    from collections.abc import Callable

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.unfold import Unfold
    from passes.values import Values


@dataclass(frozen=True)
class Reader:
    """A node that multiplies an activation with a weight.

    Attributes:
        node: the operator.
        unfold: how the activation becomes reductions.
        needs: the values of which the activation is made.
        prepare: makes it.
        groups: for each group of the operator's view of its weight, the group of reductions.
        anchor: the Loop or Scan of the main graph in whose body the operator is.
    """

    node: ir.Node
    unfold: Unfold
    needs: tuple[ir.Value, ...]
    prepare: Callable[[Values], NDArray[Any]] = field(repr=False, compare=False)
    groups: tuple[int, ...] = (0,)
    anchor: ir.Node | None = None

    @property
    def place(self) -> ir.Node:
        """The node of the main graph that is, or holds, the operator."""
        return self.anchor or self.node

    @property
    def inside(self) -> bool:
        """Whether that node itself must run for what the operator multiplies to be known."""
        return self.anchor is not None or any(v.producer() is self.node for v in self.needs)


def required_input(node: ir.Node, place: int) -> ir.Value:
    """The value at an input that must be there.

    Raises:
        NotPrunable: when the node leaves it out.
    """
    value = node.inputs[place] if place < len(node.inputs) else None
    if value is None:
        msg = f"{node.op_type} has nothing at input {place} to multiply it with"
        raise NotPrunable(msg)
    return value
