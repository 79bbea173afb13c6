"""Checking models against each other in onnxruntime."""

from __future__ import annotations

import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxprune.data import load_data, random_data
from onnxprune.errors import ModelError
from onnxprune.evaluate import run_dataset
from onnxprune.model_io import load_model, save_model
from onnxprune.progress import silent
from onnxprune.report import Verification
from onnxprune.runtime import NAME, Session
from passes.pack import read_marks
from passes.pack.scopes import scopes
from passes.unpack import UnpackWeightsPass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from onnxprune.data import Dataset, DataSource
    from onnxprune.progress import Progress


def compare_models(
    reference: Session,
    candidate: Session,
    data: Dataset,
    *,
    rtol: float,
    atol: float,
    progress: Progress | None = None,
) -> Verification:
    """Run two models over the same data and compare all outputs.

    They agree when every element differs by at most ``atol + rtol * |reference|``; with both zero,
    when all are equal bit for bit (NaN equals NaN). The relative error reported is the largest
    difference over the largest magnitude of that output. ``progress`` is told of samples that each has run.
    """
    tell = progress or silent
    outputs = [
        run_dataset(session, data, partial(tell, step))
        for session, step in ((reference, "run reference"), (candidate, "run candidate"))
    ]
    pairs = list(zip(*outputs, strict=True))
    passed = [
        ours.shape == theirs.shape and _close(theirs, ours, rtol, atol) for theirs, ours in pairs
    ]
    errors = [_errors(theirs, ours) for theirs, ours in pairs if ours.shape == theirs.shape]
    return Verification(
        runtime=NAME,
        samples=len(data),
        max_abs_error=max((error for error, _ in errors), default=0.0),
        max_rel_error=max((error for _, error in errors), default=0.0),
        passed=all(passed),
    )


GUESSES: tuple[tuple[int, int | None], ...] = (
    (1, None),
    (2, None),
    (1, 3),
    (2, 3),
    (16, None),
    (64, None),
    (256, None),
    (512, None),
)
"""Sizes of open axes, and the one value of all integers, that random inputs are tried with."""


def random_samples(session: Session, samples: int, seed: int) -> Dataset:
    """Seeded random inputs that the model runs on: the first guess at open sizes that it takes.

    Raises:
        ModelError: when it runs on none of them.
    """
    first: ModelError | None = None
    for size, whole in GUESSES:
        data = random_data(session.inputs, samples, seed, size=size, whole=whole)
        try:
            session.run(next(data.batches(1)))
        except ModelError as error:
            first = first or error
        else:
            return data
    msg = f"{first}; no random input fits, so give real ones with --data"
    raise ModelError(msg)


def samples_for(session: Session, data: DataSource | None, samples: int, seed: int) -> Dataset:
    """What models are compared on: the data given, or so many :func:`random_samples`.

    Raises:
        DataError, ModelError: when the model does not take them.
    """
    return (
        random_samples(session, samples, seed) if data is None else load_data(data, session.inputs)
    )


def with_checks(verification: Verification, checks: Mapping[str, bool]) -> Verification:
    """The same verification with named checks; it passes when they all do."""
    return Verification(
        verification.runtime,
        verification.samples,
        verification.max_abs_error,
        verification.max_rel_error,
        verification.passed and all(checks.values()),
        dict(checks),
    )


def folds_wholly(packed: Path) -> bool:
    """Whether onnxruntime, when it loads a packed model, leaves no decoding step in the graph.

    What it saves after optimization may hold no node that reads constants alone, under whatever
    name, but for those that it leaves in the dense model too.
    """
    model = load_model(packed)
    if read_marks(model) is None:
        return True
    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        Session(packed, optimized_path=optimized)
        left = _unfolded(load_model(optimized))
        if not left:
            return True
        try:
            UnpackWeightsPass()(model)
        except ir.passes.PreconditionError:  # what is left is no chain of ours
            return False
        dense = Path(folder) / "dense.onnx"
        save_model(model, dense)
        Session(dense, optimized_path=optimized)
        return left <= _unfolded(load_model(optimized))


def _unfolded(model: ir.Model) -> Counter[str]:
    """How many nodes of each operator could be computed before the model runs."""
    known: set[ir.Value] = set()
    found: Counter[str] = Counter()
    for scope in scopes(model):
        known |= {v for v in scope.graph.initializers.values() if not v.is_graph_input()}
        for node in scope.graph:
            inputs = [value for value in node.inputs if value is not None]
            if node.op_type == "Constant":
                known.update(node.outputs)
            elif inputs and all(value in known for value in inputs):
                known.update(node.outputs)
                found[node.op_type] += 1
    return found


def _close(reference: NDArray[Any], candidate: NDArray[Any], rtol: float, atol: float) -> bool:
    if reference.dtype != candidate.dtype:
        return False
    if rtol == atol == 0 or reference.dtype.kind not in "fc":
        return reference.tobytes() == candidate.tobytes()
    return bool(np.allclose(candidate, reference, rtol=rtol, atol=atol, equal_nan=True))


def _errors(reference: NDArray[Any], candidate: NDArray[Any]) -> tuple[float, float]:
    if reference.size == 0 or reference.dtype.kind not in "biuf":
        return 0.0, 0.0
    left, right = reference.astype(np.float64), candidate.astype(np.float64)
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    difference = np.where(same, 0.0, np.abs(left - right))
    worst = float(np.nan_to_num(difference, nan=np.inf).max())
    largest = float(np.nan_to_num(np.abs(left), nan=0.0, posinf=0.0).max())
    return worst, worst / largest if largest else worst
