"""What a controller can see of a layer: numbers between 0 and 1 for each variable."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxprune.search.space import Space
    from passes.weights import Consumer, Weight

FEATURES = (
    "convolution",
    "matrix_product",
    "outputs",
    "inputs",
    "kernel",
    "groups",
    "stride",
    "elements",
    "cost_share",
    "multiply_adds_share",
    "below_tenth",
    "below_half",
    "scale",
)
"""The columns of :func:`variable_features`, in order."""

SHARES = frozenset(
    (
        "convolution",
        "matrix_product",
        "cost_share",
        "multiply_adds_share",
        "below_tenth",
        "below_half",
    )
)
"""Columns that are shares already; the others are scaled from the least to the largest variable."""

MATRIX_PRODUCTS = frozenset(("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"))
SAMPLED = 2**16
"""So many elements of a weight, evenly spread, stand for all in its statistics."""


def variable_features(space: Space, weights: Sequence[Weight]) -> tuple[tuple[float, ...], ...]:
    """The features of each decision, ``(D, F)`` between 0 and 1; groups hold means over weights.

    Choices have none: zeros.

    After AMC (He et al. 2018), whose features are kind, channels, stride, kernel and FLOPs; what is
    spent and left is seen during a walk. To these come two shares of small weights (below a tenth and
    a half of the root mean square) and the logarithm of that root.

    Args:
        space: its variables name weights.
        weights: those of the model, at least all that the variables name.
    """
    known = {weight.name: _features(weight) for weight in weights}
    rows = [
        np.mean([known[name] for name in variable.keeps], axis=0) for variable in space.variables
    ]
    table = np.array(rows).reshape(len(space.variables), len(FEATURES))
    column = dict(zip(FEATURES, table.T, strict=True))
    column["cost_share"][:] = [variable.costs[0] for variable in space.variables]
    for name, values in column.items():
        values[:] = _shares(values) if name.endswith("_share") else values
        if name not in SHARES:
            values[:] = _spread(values)
    none = ((0.0,) * len(FEATURES),) * len(space.choices)
    return none + tuple(tuple(float(value) for value in row) for row in table)


def _features(weight: Weight) -> list[float]:
    consumer = weight.consumers[0]
    groups, outputs, inputs = weight.layout.matrix_shape
    kernel = math.prod(weight.layout.shape[2:]) if "Conv" in consumer.op_type else 1
    values: Mapping[str, float] = {
        "convolution": float("Conv" in consumer.op_type),
        "matrix_product": float(consumer.op_type in MATRIX_PRODUCTS),
        "outputs": math.log(groups * outputs),
        "inputs": math.log(max(1.0, inputs / kernel)),
        "kernel": math.log(kernel),
        "groups": math.log(groups),
        "stride": math.log(_stride(consumer)),
        "elements": math.log(weight.elements),
        "cost_share": 0.0,  # known of the variable, not of the weight
        "multiply_adds_share": float(weight.elements * _positions(consumer)),
        **_statistics(weight),
    }
    return [values[name] for name in FEATURES]


def _statistics(weight: Weight) -> dict[str, float]:
    flat = np.asarray(weight.values()).reshape(-1)
    sample = np.abs(flat[:: max(1, flat.size // SAMPLED)].astype(np.float64))
    sample = sample[np.isfinite(sample)]
    root = float(np.sqrt(np.mean(sample**2))) if sample.size else 0.0
    return {
        "below_tenth": float(np.mean(sample < root / 10)) if root else 1.0,
        "below_half": float(np.mean(sample < root / 2)) if root else 1.0,
        "scale": math.log(max(root, 1e-12)),
    }


def _stride(consumer: Consumer) -> int:
    strides = consumer.reader.attributes.get("strides") if consumer.reader else None
    return math.prod(strides.as_ints()) if strides is not None else 1


def _positions(consumer: Consumer) -> int:
    """At how many places of its output each weight is used, of one sample; 1 where unknown."""
    shape = consumer.reader.outputs[0].shape if consumer.reader else None
    if shape is None:
        return 1
    places = shape.dims[2:] if "Conv" in consumer.op_type else shape.dims[1:-1]
    return math.prod(place for place in places if isinstance(place, int) and place > 0)


def _shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / max(float(values.sum()), 1e-12)


def _spread(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.zeros_like(values)
