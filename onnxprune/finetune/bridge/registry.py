"""Which operators the bridge knows, and what an operator's implementation gets to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from onnxprune.errors import ModelError
from onnxprune.finetune.bridge.dtypes import torch_dtype

if TYPE_CHECKING:
    import torch

Function = Callable[..., Any]
"""From tensors (None for a missing input) to a tensor, a tuple of them, or a list (a sequence)."""

Refusal = Callable[["Node"], "str | None"]
"""Why a node with these attributes is not supported, in one clause, or None."""

F = TypeVar("F", bound=Function)


class UnsupportedError(ModelError):
    """A model uses an operator, or a form of one, that the bridge cannot run."""


@dataclass(frozen=True, eq=False)
class Live:
    """Which channels of a weight ``(O, I, kernel...)`` masks leave anything of; all others are zero.

    Attributes:
        outputs: indices along the first axis, int64, rising.
        inputs: along the second.
    """

    outputs: torch.Tensor
    inputs: torch.Tensor


@dataclass
class Mode:
    """How a module runs; one object shared by all its nodes.

    Attributes:
        dropout: Dropout drops, at its own ratio.
        batch_norm: BatchNormalization uses the batch's statistics and updates the running ones.
        compute: floats narrower than this are computed in it; None computes each as it is.
        straight_through: quantized values stay floats (whole numbers) that carry gradients.
        generator: of what Dropout drops; torch's own, which the whole process shares, when None.
        live: by weight name, what of a weight need be computed with; of others, all. The rest gets no
            gradient.
    """

    dropout: bool = False
    batch_norm: bool = False
    compute: torch.dtype | None = None
    straight_through: bool = False
    generator: torch.Generator | None = None
    live: Mapping[str, Live] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Node:
    """One node: names and attributes, graphs among them already compiled.

    Attributes:
        inputs: names of the values read; "" where an optional input is left out.
        outputs: names of the values written; "" where nobody wants one.
        attributes: decoded: numbers, strings, lists, tensors; compiled graphs.
        opset: version of the operator's domain.
        mode: of the module.
    """

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    opset: int
    mode: Mode = field(repr=False)

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or ``default`` where the node leaves it out."""
        return self.attributes.get(name, default)

    def dtype(self, code: int) -> torch.dtype:
        """The torch dtype of an ONNX element type, widened where the mode says so."""
        return torch_dtype(code, at_least=self.mode.compute)

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"{self.op_type} '{self.name or next(filter(None, self.outputs), '')}'"


@dataclass(frozen=True)
class Operator:
    """An operator's implementation.

    Attributes:
        function: takes the node first, unless ``plain``; then the inputs.
        plain: it needs no attributes.
        scoped: it runs graphs of its own, and takes ``scope``, the values in sight, by keyword.
        host: inputs that are read as numbers (shapes, axes), and stay in the computer's memory.
        wide: it wants uint16, uint32 and uint64 as they are, not in int64.
        refuses: for forms that are not supported.
    """

    function: Function
    plain: bool = False
    scoped: bool = False
    host: frozenset[int] = frozenset()
    wide: bool = False
    refuses: Refusal | None = None


_OPERATORS: dict[tuple[str, str], Operator] = {}

MICROSOFT = "com.microsoft"
INTERNAL = "onnxprune"
"""Domain of the operators that normalising puts in; no file holds it."""


def operator(
    *names: str,
    domain: str = "",
    host: tuple[int, ...] = (),
    scoped: bool = False,
    wide: bool = False,
    refuses: Refusal | None = None,
) -> Callable[[F], F]:
    """Register a function ``(node, *inputs)`` for operators of a domain."""

    def register(function: F) -> F:
        for name in names:
            _OPERATORS[domain, name] = Operator(
                function, scoped=scoped, host=frozenset(host), wide=wide, refuses=refuses
            )
        return function

    return register


def plain(*names: str, domain: str = "", host: tuple[int, ...] = ()) -> Callable[[F], F]:
    """Register a function ``(*inputs)`` for operators without attributes."""

    def register(function: F) -> F:
        for name in names:
            _OPERATORS[domain, name] = Operator(function, plain=True, host=frozenset(host))
        return function

    return register


def find(domain: str, op_type: str) -> Operator | None:
    """The implementation of an operator; None when there is none."""
    return _OPERATORS.get(("" if domain == "ai.onnx" else domain, op_type))


def supported() -> tuple[tuple[str, str], ...]:
    """All operators as ``(domain, name)``, sorted; those that only normalising uses left out."""
    return tuple(sorted(key for key in _OPERATORS if key[0] != INTERNAL))
