"""The ``shrink`` command: the smaller model, proof that it computes the same, and what it saves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.files import check_parent
from onnxprune.inventory import totals_of, weight_reports
from onnxprune.latency import FIRST, inferences, latencies
from onnxprune.model_io import load_model, model_bytes, save_model
from onnxprune.packing import run_pass
from onnxprune.progress import silent
from onnxprune.report import Report, ShrinkReport, describe_model
from onnxprune.runtime import Session
from onnxprune.verify import compare_models, samples_for
from passes.pack import read_marks
from passes.shrink import ShrinkPass, size_of
from passes.weights import collect_weights

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.data import Dataset
    from onnxprune.packing import Check
    from onnxprune.progress import Progress
    from onnxprune.report import Verification

RELATIVE = 1e-4
"""Outputs may differ by this share of the largest magnitude of an output: sums of floats in another
order."""

STAGES = 3
"""Removed, written, compared."""


def shrink_model(source: Path, output: Path, check: Check, multiple: int = 4) -> Report:
    """Shrink a file; images keep a multiple of that many channels.

    Raises:
        OnnxPruneError: when an argument cannot be used, or the result cannot be written.
    """
    check_parent(output)
    tell = check.progress or silent
    model = load_model(source)
    if read_marks(model) is not None:
        msg = f"'{source}' is packed; unpack it first, shrink it, and pack it again"
        raise ModelError(msg)
    described = describe_model(source, model)
    before, original = size_of(model), model_bytes(model)
    dense = Session(original, threads=1)
    data = samples_for(dense, check.data, check.samples, check.seed)
    tell("shrink", 0, STAGES)
    run_pass(ShrinkPass(multiple), model)
    tell("shrink", 1, STAGES)
    after = size_of(model)
    written = save_model(model, output)
    tell("shrink", 2, STAGES)
    sessions = dense, Session(output, threads=1)
    weights = weight_reports(collect_weights(model).weights)
    before_ms, after_ms = (
        one.median_ms for one in latencies(inferences(sessions, data.take(FIRST)))
    )
    shrunk = ShrinkReport(
        (before.parameters, after.parameters),
        (before.multiply_adds, after.multiply_adds),
        (len(original), written),
        (before_ms, after_ms),
    )
    verification = _verify(sessions, data, tell)
    tell("shrink", STAGES, STAGES)
    return Report(
        "shrink",
        described,
        seed=check.seed,
        weights=weights,
        totals=totals_of(weights, model_bytes=written),
        verification=verification,
        shrunk=shrunk,
        warnings=_warnings(shrunk),
    )


def _verify(sessions: tuple[Session, Session], data: Dataset, tell: Progress) -> Verification:
    largest = float(np.finfo(np.float32).max)
    loose = compare_models(*sessions, data, rtol=0.0, atol=largest, progress=tell)
    scale = loose.max_abs_error / loose.max_rel_error if loose.max_rel_error else 0.0
    return compare_models(*sessions, data, rtol=RELATIVE, atol=RELATIVE * scale)


def _warnings(shrunk: ShrinkReport) -> tuple[str, ...]:
    if shrunk.parameters[0] != shrunk.parameters[1]:
        return ()
    reason = "no channel is without weights or without readers; prune whole channels to make some"
    return (f"nothing is dead: {reason}",)
