"""The weights of a model as the report lists them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.entropy import entropy_bound_bits
from onnxprune.report import Report, SkippedReport, Totals, WeightReport, describe_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    import onnx_ir as ir

    from passes.patterns import Pattern
    from passes.weights import Collection, Weight


def weight_reports(
    weights: Iterable[Weight], patterns: Mapping[str, Pattern] | None = None
) -> tuple[WeightReport, ...]:
    """What each weight holds now, and the pattern that it was pruned in, where one is given."""
    shapes = patterns or {}
    return tuple(
        replace(_weight_report(w), pattern=shapes[w.name].name)
        if w.name in shapes
        else _weight_report(w)
        for w in weights
    )


def zero_point_warnings(weights: Sequence[Weight]) -> tuple[str, ...]:
    """What to know of integer weights whose zero is another number than 0."""
    shifted = [w for w in weights if w.quantization is not None and np.any(w.zero_point != 0)]
    if not shifted:
        return ()
    elements = sum(weight.elements for weight in shifted)
    zeros = sum(weight.elements - weight.nonzeros() for weight in shifted) / elements
    plain = sum(int(np.count_nonzero(weight.array() == 0)) for weight in shifted) / elements
    sentence = (
        f"{len(shifted)} integer weights have their zero at another number than 0, as QUInt8 has it: {zeros:.2%} "
        f"of them stand for zero, but {plain:.2%} are zero bytes, which is all that other tools look for; "
        "quantize weights with QInt8, which is symmetric"
    )
    return (sentence,)


def skipped_reports(collection: Collection) -> tuple[SkippedReport, ...]:
    """What is left as it is, and why."""
    return tuple(SkippedReport(skipped.name, skipped.reason) for skipped in collection.skipped)


def totals_of(weights: Sequence[WeightReport], **sizes: int | None) -> Totals:
    """Sums over weights; ``sizes`` are the file sizes of :class:`Totals`."""
    elements = sum(weight.elements for weight in weights)
    nonzeros = sum(weight.nonzeros for weight in weights)
    fetches = [weight.fetch_cycles for weight in weights if weight.fetch_cycles is not None]
    dense = [
        weight.dense_fetch_cycles for weight in weights if weight.dense_fetch_cycles is not None
    ]
    return Totals(
        elements=elements,
        nonzeros=nonzeros,
        sparsity=1 - nonzeros / elements if elements else 0.0,
        compression_rate=elements / max(1, nonzeros),
        dense_bytes=sum(weight.dense_bytes for weight in weights),
        entropy_bound_bytes=sum(weight.entropy_bound_bytes for weight in weights),
        fetch_cycles=sum(fetches) if fetches else None,
        dense_fetch_cycles=sum(dense) if dense else None,
        **sizes,
    )


def _weight_report(weight: Weight) -> WeightReport:
    elements, dtype = weight.elements, weight.dtype
    nonzeros = weight.nonzeros()
    value_bits = dtype.itemsize * 8
    return WeightReport(
        name=weight.name,
        nodes=tuple(consumer.node for consumer in weight.consumers),
        op_types=tuple(dict.fromkeys(consumer.op_type for consumer in weight.consumers)),
        shape=weight.layout.shape,
        dtype=dtype.name,
        elements=elements,
        nonzeros=nonzeros,
        sparsity=1 - nonzeros / elements,
        dense_bytes=elements * dtype.itemsize,
        entropy_bound_bytes=round(entropy_bound_bits(elements, nonzeros, value_bits) / 8),
    )


def report_of(
    command: str, path: Path, model: ir.Model, collection: Collection, **parts: Any
) -> Report:
    """The report of a command on one model.

    Args:
        command: its name.
        path: of the model.
        model: as it was read.
        collection: what was found in it.
        **parts: other fields of the report; weights and totals are those of the model unless given.
    """
    weights = parts.pop("weights", None) or weight_reports(collection.weights)
    totals = parts.pop("totals", None) or totals_of(weights)
    return Report(
        command,
        describe_model(path, model),
        weights=weights,
        skipped=skipped_reports(collection),
        totals=totals,
        **parts,
    )
