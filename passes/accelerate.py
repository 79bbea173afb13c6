"""The pass that hands sparse products to kernels of their own, where these win.

A product with a constant sparse matrix becomes one operator of the domain ``onnxprune``, together with the bias
and the Relu that follow it. The operator is a function of the very operators that it replaces, written into the
model: a runtime that knows no such kernel computes what it did before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from passes.pack.outline import FUNCTION_IR_VERSION
from passes.pack.scopes import DOMAIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST = 1 << 14
"""Weights of a matrix; where it has fewer, calling an operator takes longer than what is saved."""

IN_CACHE = 4 << 20
"""Weights of a matrix that stays in a processor's cache: there a dense product of few rows is fast."""

MANY = 16
"""Rows of activations that fill vectors."""


@dataclass(frozen=True)
class CostModel:
    """From which sparsity on a product is faster sparse.

    Measured by ``benchmarks/kernels.py`` on one core of Zen 4 class against onnxruntime's dense float32, rounded up
    so that nothing becomes slower: sparse products take a fixed time for a row of outputs beside that for each
    weight, which weighs most where few inputs share it.

    Attributes:
        many: sparsity for products of 16 rows of activations and more (batch times sequence, say).
        few: for fewer, and a matrix that is larger than caches.
        few_in_cache: for fewer, and a matrix that is not.
    """

    many: float = 0.6
    few: float = 0.7
    few_in_cache: float = 0.9

    def least_sparsity(self, rows: int, elements: int) -> float:
        """The sparsity that a matrix of so many elements needs at so many rows of activations."""
        if rows >= MANY:
            return self.many
        return self.few if elements > IN_CACHE else self.few_in_cache


@dataclass(frozen=True)
class Decision:
    """What became of one product.

    Attributes:
        node: its name, or that of its output.
        weight: the name of its matrix.
        sparsity: of the matrix.
        rows: of activations that were expected.
        reason: why it stays as it is; empty where it was rewritten.
    """

    node: str
    weight: str
    sparsity: float
    rows: int
    reason: str = ""


@dataclass(frozen=True, eq=False)
class AcceleratePass(ir.passes.InPlacePass):
    """Rewrites MatMul and Gemm with constant float32 matrices that are sparse enough.

    Results differ from the dense ones by rounding; where an activation is infinite or not a number, a zero weight
    makes NaN of it in a dense product and nothing in a sparse one. In bodies of control flow products are rewritten
    whose matrix stands there too; bodies of functions stay.

    Attributes:
        rows: of activations to expect where the model leaves them open.
        cost: says where it pays.
        decisions: filled: one for each product with a constant matrix.
    """

    rows: int = 64
    cost: CostModel = field(default_factory=CostModel)
    decisions: list[Decision] = field(default_factory=list)

    def requires(self, model: ir.Model) -> None:
        """No function of the model has a name that ours need."""
        taken = sorted(
            name
            for domain, name, _ in model.functions
            if domain == DOMAIN and name.startswith("Sparse")
        )
        if taken:
            msg = f"the model has products of ours already ({taken[0]}); accelerate the model that it was made from"
            raise ir.passes.PreconditionError(msg)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite what pays."""
        used: dict[str, ir.Function] = {}
        opset = model.graph.opset_imports.get("", 1)
        for node in list(ir.traversal.RecursiveGraphIterator(model.graph)):
            product = _Product.of(node)
            if product is None:
                continue
            decision = self._decide(product)
            self.decisions.append(decision)
            if not decision.reason:
                product.rewrite(used, opset)
        if used:
            model.ir_version = max(model.ir_version or 0, FUNCTION_IR_VERSION)
            model.graph.opset_imports[DOMAIN] = 1
            for function in used.values():
                model.functions[function.identifier()] = function
        return ir.passes.PassResult(model, modified=bool(used))

    def _decide(self, product: _Product) -> Decision:
        matrix = product.matrix
        sparsity = 1 - np.count_nonzero(matrix) / matrix.size
        rows = product.rows(self.rows)
        needed = self.cost.least_sparsity(rows, matrix.size)
        reason = ""
        if matrix.size < SMALLEST:
            reason = f"it has {matrix.size} weights; below {SMALLEST} nothing is won"
        elif sparsity < needed:
            reason = f"{sparsity:.0%} of it are zero; at {rows} rows of activations it pays from {needed:.0%} on"
        return Decision(product.label, product.weight, float(sparsity), rows, reason)


@dataclass(frozen=True, eq=False)
class _Product:
    """A product with a constant matrix, and what follows it.

    Attributes:
        nodes: the product, then an Add of a bias, then a Relu, as far as they are there.
        inputs: activations, matrix, and bias where there is one.
        output: of the last node.
        matrix: the constant.
    """

    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    output: ir.Value
    matrix: NDArray[np.float32]

    @classmethod
    def of(cls, node: ir.Node) -> _Product | None:
        """What a node begins; None where it is no product that the kernels know."""
        if node.domain or node.op_type not in {"MatMul", "Gemm"} or len(node.outputs) != 1:
            return None
        activations, weight = node.inputs[0], node.inputs[1]
        matrix = _constant(weight, node)
        if activations is None or weight is None or matrix is None or matrix.ndim != 2:
            return None
        inputs, nodes = [activations, weight], [node]
        outputs = matrix.shape[1]
        if node.op_type == "Gemm":
            if not _plain_gemm(node):
                return None
            outputs = matrix.shape[0] if _number(node, "transB", 0) else outputs
            bias = node.inputs[2] if len(node.inputs) > 2 else None
            if bias is not None:
                if not _is_bias(bias, outputs, node):
                    return None
                inputs.append(bias)
        elif (add := _only_user(node.outputs[0], "Add")) is not None:
            other = [value for value in add.inputs if value is not node.outputs[0]]
            bias = other[0] if len(other) == 1 else None
            if bias is not None and _is_bias(bias, outputs, node):
                inputs.append(bias)
                nodes.append(add)
        relu = _only_user(nodes[-1].outputs[0], "Relu")
        if relu is not None and len(inputs) == 3:
            nodes.append(relu)
        return cls(tuple(nodes), tuple(inputs), nodes[-1].outputs[0], matrix)

    @property
    def label(self) -> str:
        """The product's name, or that of its output."""
        return self.nodes[0].name or self.nodes[0].outputs[0].name or ""

    @property
    def weight(self) -> str:
        """The matrix's name."""
        return self.inputs[1].name or ""

    def rows(self, least: int) -> int:
        """Rows of activations: what the model says, and where it leaves sizes open no fewer than ``least``."""
        shape = self.inputs[0].shape
        sizes = [size for size in shape[:-1] if isinstance(size, int)] if shape is not None else []
        known = math.prod(sizes)
        return known if shape is not None and len(sizes) == len(shape) - 1 else max(known, least)

    @property
    def name(self) -> str:
        """Of the operator that does all of it."""
        relu = "Relu" if self.nodes[-1].op_type == "Relu" else ""
        bias = "Bias" if len(self.inputs) == 3 else ""
        return f"Sparse{self.nodes[0].op_type}{bias}{relu}"

    def rewrite(self, used: dict[str, ir.Function], opset: int) -> None:
        """Put the operator in the nodes' place."""
        graph = self.nodes[0].graph
        assert graph is not None
        if self.name not in used:
            used[self.name] = self._function(opset)
        gemm = self.nodes[0].op_type == "Gemm"
        attributes = {"transB": _number(self.nodes[0], "transB", 0)} if gemm else {}
        made = ir.node(
            self.name,
            list(self.inputs),
            attributes,
            domain=DOMAIN,
            name=self.nodes[0].name,
        )
        made.outputs[0].type, made.outputs[0].shape = self.output.type, self.output.shape
        ir.convenience.replace_nodes_and_values(
            graph, self.nodes[-1], self.nodes, [made], [self.output], made.outputs
        )

    def _function(self, opset: int) -> ir.Function:
        """The same by standard operators."""
        inputs = [ir.Value(name=name) for name in ("X", "W", "B")[: len(self.inputs)]]
        attributes = []
        if self.nodes[0].op_type == "Gemm":
            transposed = ir.RefAttr("transB", "transB", ir.AttributeType.INT)
            body = [ir.Node("", "Gemm", inputs, [transposed])]
            attributes = [ir.Attr("transB", ir.AttributeType.INT, None)]
        else:
            body = [ir.node("MatMul", inputs[:2])]
            if len(inputs) == 3:
                body.append(ir.node("Add", [body[0].outputs[0], inputs[2]]))
        if self.nodes[-1].op_type == "Relu":
            body.append(ir.node("Relu", [body[-1].outputs[0]]))
        for number, node in enumerate(body):
            node.outputs[0].name = f"y{number}"
        graph = ir.Graph(inputs, [body[-1].outputs[0]], nodes=body, opset_imports={"": opset})
        return ir.Function(DOMAIN, self.name, "", graph=graph, attributes=attributes)


def _constant(value: ir.Value | None, reader: ir.Node) -> NDArray[np.float32] | None:
    """A float32 constant that no caller can replace, of the reader's own graph: kernels are told of no others."""
    if value is None or value.const_value is None or value.is_graph_input():
        return None
    if value.graph is not reader.graph or value.const_value.dtype != ir.DataType.FLOAT:
        return None
    return value.const_value.numpy()


def _is_bias(value: ir.Value, outputs: int, reader: ir.Node) -> bool:
    """Whether a value is a constant of one number for each output."""
    array = _constant(value, reader)
    return array is not None and array.shape == (outputs,)


def _plain_gemm(node: ir.Node) -> bool:
    """Whether a Gemm is a product and a sum, and nothing more."""
    plain = _number(node, "transA", 0) == 0
    factors = [
        node.attributes[name].as_float() for name in ("alpha", "beta") if name in node.attributes
    ]
    return plain and all(factor == 1 for factor in factors)


def _number(node: ir.Node, name: str, default: int) -> int:
    return node.attributes[name].as_int() if name in node.attributes else default


def _only_user(value: ir.Value, op_type: str) -> ir.Node | None:
    """The node that reads a value, where none but it does and it is of that kind."""
    users = list(value.uses())
    if value.is_graph_output() or len(users) != 1:
        return None
    [use] = users
    return use.node if use.node.op_type == op_type and not use.node.domain else None
