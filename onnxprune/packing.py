"""The ``pack`` command: a packed file, what stayed dense and why, and what a loss amounts to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import onnx_ir as ir
from onnx import version_converter

from onnxprune.errors import ModelError, RecipeError
from onnxprune.files import check_parent
from onnxprune.inventory import totals_of, weight_reports, zero_point_warnings
from onnxprune.model_io import data_files, load_model, model_bytes, model_of, save_model
from onnxprune.report import Report, SkippedReport, describe_model
from onnxprune.runtime import Session
from onnxprune.verify import compare_models, folds_wholly, samples_for, with_checks
from passes.pack import (
    FOLD_LIMIT_BYTES,
    FOLD_LIMIT_OPTION,
    POSITIONS,
    PackWeightsPass,
    exceeds,
    packed_names,
    parse_values,
    read_marks,
)
from passes.pack.scopes import scopes
from passes.prepare import View
from passes.store import constants_of
from passes.unpack import UnpackWeightsPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.data import Dataset, DataSource
    from onnxprune.progress import Progress
    from onnxprune.report import Verification

RUNTIMES = ("onnxruntime", "openvino", "reference")


@dataclass(frozen=True)
class PackOptions:
    """How to pack; see :func:`onnxprune.api.pack`."""

    values: str = "keep"
    positions: str = "auto"
    runtime: str = "onnxruntime"
    opset: int | None = None
    freeze_inputs: bool = False
    large: bool = False

    def to_pass(self) -> PackWeightsPass:
        """The pass with these options.

        Raises:
            RecipeError: when one has a value that is not allowed.
        """
        try:
            parse_values(self.values)
        except ValueError as error:
            raise RecipeError(str(error)) from error
        for name, value, allowed in (
            ("positions", self.positions, POSITIONS),
            ("runtime", self.runtime, RUNTIMES),
        ):
            if value not in allowed:
                msg = f"there is no '{value}' for {name}; allowed are {', '.join(allowed)}"
                raise RecipeError(msg)
        return PackWeightsPass(
            positions=self.positions,
            values=self.values,
            cumsum=self.runtime == "onnxruntime",
            freeze_inputs=self.freeze_inputs,
            fold_limit_bytes=1 << 62 if self.large else FOLD_LIMIT_BYTES,
        )


@dataclass(frozen=True)
class Check:
    """What a lossy or shrunk model is compared with the original on, and who is told how far it has come."""

    data: DataSource | None = None
    samples: int = 8
    seed: int = 0
    threads: int | None = None
    progress: Progress | None = None


def pack_model(source: Path, output: Path, options: PackOptions, check: Check) -> Report:
    """Pack a file.

    Raises:
        OnnxPruneError: when an argument cannot be used, or the result cannot be written.
    """
    check_parent(output)
    step = options.to_pass()
    if check.progress:
        step = replace(step, progress=partial(check.progress, "pack"))
    model = load_model(source)
    described = describe_model(source, model)
    if read_marks(model) is not None:
        msg = f"'{source}' is packed already; unpack it first to pack it in another way"
        raise ModelError(msg)
    if options.opset is not None:
        model = convert_opset(model, options.opset, source)
    lossy = parse_values(options.values).lossy
    original = model_bytes(model) if lossy else b""  # a model to compare with, where values change
    collected = collect_weights(model).weights
    weights, shifted = weight_reports(collected), zero_point_warnings(collected)
    over = [w.name for w in collected if exceeds(w.tensor, FOLD_LIMIT_BYTES)]
    reasons = _run(step, model)
    over = [name for name in over if name not in reasons]
    packed = bool(packed_names(model))
    lossy = lossy and packed
    if lossy:
        dense = Session(original, threads=check.threads)
        data = samples_for(dense, check.data, check.samples, check.seed)
    written = save_model(model, output)
    report = Report(
        "pack",
        described,
        weights=weights,
        skipped=tuple(SkippedReport(name, reason) for name, reason in reasons.items()),
        totals=totals_of(weights, packed_bytes=written),
        methods={"values": options.values, "positions": options.positions},
        warnings=(
            *_warnings(options, reasons, packed, check, lossy=lossy),
            *_beyond_folding(over),
            *shifted,
        ),
    )
    if not lossy:
        return report
    return replace(report, seed=check.seed, verification=_measure_loss(dense, output, data, check))


def convert_opset(model: ir.Model, opset: int, source: Path) -> ir.Model:
    """The model at another opset, by onnx's own converter; its external data stays where it is.

    Raises:
        ModelError: when it cannot be converted.
    """
    try:
        proto = version_converter.convert_version(ir.to_proto(model), opset)
    except Exception as error:  # it raises RuntimeError and its own, without a common root
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        msg = f"'{source}' cannot be converted to opset {opset}: {reason}; export it again at that opset"
        raise ModelError(msg) from error
    return model_of(proto, source.parent, data_files(model))


def run_pass(step: ir.passes.InPlacePass, model: ir.Model) -> None:
    """Run a pass; its refusal becomes our own error.

    Raises:
        ModelError: with the pass's sentence.
    """
    try:
        step(model)
    except ir.passes.PreconditionError as error:
        raise ModelError(str(error)) from error


def _run(step: PackWeightsPass, model: ir.Model) -> dict[str, str]:
    """Run the pass; by name, why each constant that stays dense does."""
    constants = View(model).constants()
    reasons = {constant.name: step.why_dense(model, constant.value) for constant in constants}
    run_pass(step, model)
    dense = {value for scope in scopes(model) for value, _ in constants_of(scope.graph)}
    return {
        constant.name: reasons[constant.name] or "it would not get smaller"
        for constant in constants
        if constant.value in dense
    }


def _measure_loss(before: Session, output: Path, data: Dataset, check: Check) -> Verification:
    """Against the model before packing; passed when the file computes what it stands for."""
    after = Session(output, threads=check.threads)
    dense = load_model(output)
    run_pass(UnpackWeightsPass(), dense)
    unpacked = Session(model_bytes(dense), threads=check.threads)
    same = compare_models(unpacked, after, data, rtol=0.0, atol=0.0, progress=check.progress)
    loss = compare_models(before, after, data, rtol=0.0, atol=0.0, progress=check.progress)
    checks = {
        "packed_outputs_equal_unpacked": same.passed,
        "packed_folds_wholly": folds_wholly(output),
    }
    return with_checks(replace(loss, passed=True), checks)


def _beyond_folding(names: list[str]) -> tuple[str, ...]:
    """What sessions need for weights that onnxruntime does not fold by itself."""
    if not names:
        return ()
    shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
    warning = (
        f"{shown} has more than {FOLD_LIMIT_BYTES} bytes: without the session option "
        f"'{FOLD_LIMIT_OPTION}' set to '0' onnxruntime rebuilds it at every inference"
    )
    return (warning,)


def _warnings(
    options: PackOptions,
    reasons: dict[str, str],
    packed: bool,
    check: Check,
    *,
    lossy: bool,
) -> tuple[str, ...]:
    warnings: list[str] = []
    if not packed and not any("--" in reason for reason in reasons.values()):
        warnings.append("no weight gets smaller by packing; is the model pruned?")
    if packed and options.runtime == "onnxruntime":
        warnings.append(
            "onnxruntime expands the weights once, when it loads the model; with graph optimizations "
            "disabled it would do so at every inference"
        )
    if lossy:
        where = "random inputs, give --data for real ones" if check.data is None else "the data"
        warnings.append(
            f"values are stored as {options.values}, so outputs change: the largest difference was "
            f"measured on {where}"
        )
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        if "--" in reason:
            grouped.setdefault(reason, []).append(name)
    for reason, names in grouped.items():
        shown = ", ".join(f"'{name}'" for name in names[:3]) + (", ..." if len(names) > 3 else "")
        warnings.append(f"{len(names)} stay dense ({shown}): {reason}")
    return tuple(warnings)
