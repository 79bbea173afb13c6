"""The ``accelerate`` command: sparse products for the kernels, proof that they compute the same, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune import kernels
from onnxprune.errors import ModelError
from onnxprune.files import check_parent
from onnxprune.latency import FIRST, inferences, latencies
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.packing import run_pass
from onnxprune.progress import silent
from onnxprune.report import AcceleratedReport, ProductReport, Report, describe_model
from onnxprune.runtime import Session
from onnxprune.verify import compare_models, samples_for
from passes.accelerate import AcceleratePass
from passes.pack import read_marks

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.packing import Check

TOLERANCE = 1e-4
"""Outputs may differ by this, and by this share of themselves: sums of floats in another order."""

STAGES = 3


def accelerate_model(source: Path, output: Path, check: Check, rows: int = 64) -> Report:
    """Accelerate a file.

    Args:
        source: of a float32 model that was pruned.
        output: to write.
        check: what both are compared on.
        rows: of activations to expect where the model leaves them open.

    Raises:
        OnnxPruneError: when an argument cannot be used, or the result cannot be written.
    """
    check_parent(output)
    tell = check.progress or silent
    model = load_model(source)
    if read_marks(model) is not None:
        msg = f"'{source}' is packed; accelerate the pruned model, then pack what comes of it"
        raise ModelError(msg)
    described, original = describe_model(source, model), model_bytes(model)
    dense = Session(original, threads=check.threads)
    data = samples_for(dense, check.data, check.samples, check.seed)
    step = AcceleratePass(rows)
    tell("accelerate", 0, STAGES)
    run_pass(step, model)
    written = save_model(model, output)
    tell("accelerate", 1, STAGES)
    done = tuple(
        ProductReport(one.node, one.weight, one.sparsity, one.rows, one.reason or None)
        for one in step.decisions
    )
    there = kernels.available()
    fast = Session(output, threads=check.threads, kernels=there)
    verification = compare_models(
        dense, fast, data, rtol=TOLERANCE, atol=TOLERANCE, progress=check.progress
    )
    tell("accelerate", 2, STAGES)
    taken = latencies(inferences((dense, fast), data.take(FIRST)))
    tell("accelerate", STAGES, STAGES)
    report = AcceleratedReport(
        done,
        there,
        (taken[0].median_ms, taken[1].median_ms),
        (len(original), written),
    )
    return Report(
        "accelerate",
        described,
        seed=check.seed,
        accelerated=report,
        verification=verification,
        warnings=_warnings(report),
    )


def _warnings(report: AcceleratedReport) -> tuple[str, ...]:
    warnings = []
    if not any(product.reason is None for product in report.products):
        reasons = "; ".join(dict.fromkeys(p.reason for p in report.products if p.reason))
        warnings.append(f"no product pays: {reasons or 'none has a constant float32 matrix'}")
    if not report.kernels:
        warnings.append(
            "there is no kernel library on this machine, so nothing is faster here; it needs a C compiler: "
            "`python -m onnxprune.kernels.compile`"
        )
    elif report.latency_ms[1] > report.latency_ms[0]:
        warnings.append(
            "it is slower on this machine for the first sample; compare with `onnxprune bench` at your batch, and "
            "keep the dense one where that wins"
        )
    return tuple(warnings)
