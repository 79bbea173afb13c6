"""The main job: from a model and data to a run folder with everything in it, verified."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune import hardware
from onnxprune.deliverables import (
    Written,
    target_report,
    too_old_to_pack,
    verify_written,
    write_packed,
)
from onnxprune.errors import RunError
from onnxprune.files import write_text
from onnxprune.held_out import HeldOut
from onnxprune.html import render
from onnxprune.in_memory import label_of, run_on_file
from onnxprune.inventory import skipped_reports, totals_of, weight_reports
from onnxprune.model_io import data_files, save_model
from onnxprune.pipeline.forecast import forecast
from onnxprune.pipeline.run import check_fit, check_steps, run_steps
from onnxprune.progress import Progress, silent
from onnxprune.recipe import Recipe, refuse_steps
from onnxprune.report import Report
from onnxprune.run_folder import RunFolder, open_run
from onnxprune.runtime import Session
from onnxprune.search.find import find_plan, open_journal
from onnxprune.search.opening import open_search
from onnxprune.study import open_study
from onnxprune.target_hardware import target_hardware
from passes.assign import AssignConstantsPass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from onnxprune.data import DataSource
    from onnxprune.in_memory import ModelSource
    from onnxprune.report import Quality
    from onnxprune.search.find import Found
    from onnxprune.study import Study

FEW_SAMPLES = 500
"""Below this many held-out samples the interval of the drop is too wide to trust a small limit."""


def compress(
    model: ModelSource,
    data: DataSource,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    dry_run: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Search, prune, pack, encode, estimate, verify and report, into one run folder; or do the recipe's steps.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        data: samples, with labels where the metric needs them; see :mod:`onnxprune.data`.
        output: the run folder; made when missing.
        recipe: all settings; the defaults when None.
        resume: continue a run that was interrupted, from its journal or its steps; of a recipe's steps
            only those are done again that were made from something else.
        dry_run: write nothing; say in ``expected`` what would be done, and about how long it would take.
        threads: of onnxruntime.
        progress: called with a step's name, how much of it is done, and how much there is.

    Returns:
        The report; ``succeeded`` is False when a target or check was not met.

    Raises:
        OnnxPruneError: when an argument cannot be used or a file cannot be written.
    """
    job = _Job(
        data, Path(output), recipe or Recipe(), resume, threads, _Clock(progress), label_of(model)
    )
    return run_on_file(model, lambda path: _expect(path, job) if dry_run else _compress(path, job))


def _expect(path: Path, job: _Job) -> Report:
    recipe = job.recipe
    check_steps(recipe)
    target_hardware(recipe)
    study = open_study(path, job.data, recipe, threads=job.threads, label=job.label)
    check_fit(study, recipe)
    expected = forecast(study, RunFolder(job.output), recipe)
    return Report("compress", study.described, seed=recipe.seed, expected=expected)


def _compress(path: Path, job: _Job) -> Report:
    recipe, clock = job.recipe, job.clock
    if recipe.steps:
        check_steps(recipe)
    target = target_hardware(recipe)
    study, folder = job.open(path)
    if not study.collection.weights:
        return _nothing_to_prune(study, folder, recipe, "compress")
    if recipe.steps:
        return run_steps(study, folder, recipe, clock.progress, resume=job.resume)
    found, quality = _search_and_prune(study, folder, recipe, clock, resume=job.resume)
    weights = weight_reports(study.collection.weights, found.ruled.patterns)
    with clock.step("encode"):
        hardware.write_weights(
            study.collection.weights, folder.blob, target.storage, clock.progress
        )
        weights = hardware.with_blob(weights, folder.blob)
    with clock.step("estimate"):
        weights = hardware.with_costs(weights, hardware.fetch_costs(folder.blob, target.space))
    with clock.step("pack"):
        packed = write_packed(folder.model, folder.packed, clock.progress)
    with clock.step("verify"):
        verification = verify_written(
            Written(folder.model, folder.packed if packed else None, folder.blob),
            [weight.name for weight in study.collection.weights],
            study.held_out,
            threads=study.threads,
            progress=clock.progress,
        )
    totals = totals_of(
        weights,
        model_bytes=folder.model.stat().st_size,
        packed_bytes=folder.packed.stat().st_size if packed else None,
        blob_bytes=folder.blob.stat().st_size,
    )
    report = Report(
        "compress",
        study.described,
        seed=recipe.seed,
        weights=weights,
        skipped=skipped_reports(study.collection),
        totals=totals,
        quality=quality,
        target=target_report(recipe, totals),
        verification=verification,
        search=found.report,
        memory=hardware.describe(target.space.only.memory),
        hardware=hardware.behind_memory(target.space) or None,
        methods={"encoding": target.storage.described, **_methods(found)},
        warnings=_warnings(study, found, packed=packed),
    )
    return _write_reports(report, folder, recipe, found, clock)


def search(
    model: ModelSource,
    data: DataSource,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    resume: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Search the sparsity of each weight and write the pruned model, its plan and a report.

    Arguments, result and errors are those of :func:`compress`; the packed model and the blob are
    left out.
    """
    job = _Job(
        data, Path(output), recipe or Recipe(), resume, threads, _Clock(progress), label_of(model)
    )
    return run_on_file(model, lambda path: _search(path, job))


def _search(path: Path, job: _Job) -> Report:
    recipe, clock = job.recipe, job.clock
    refuse_steps(recipe, "search")
    study, folder = job.open(path)
    if not study.collection.weights:
        return _nothing_to_prune(study, folder, recipe, "search")
    found, quality = _search_and_prune(study, folder, recipe, clock, resume=job.resume)
    weights = weight_reports(study.collection.weights, found.ruled.patterns)
    totals = totals_of(weights, model_bytes=folder.model.stat().st_size)
    report = Report(
        "search",
        study.described,
        seed=recipe.seed,
        weights=weights,
        skipped=skipped_reports(study.collection),
        totals=totals,
        quality=quality,
        target=target_report(recipe, totals),
        search=found.report,
        methods=_methods(found),
        warnings=_warnings(study, found, packed=True),
    )
    return _write_reports(report, folder, recipe, found, clock)


def _nothing_to_prune(study: Study, folder: RunFolder, recipe: Recipe, command: str) -> Report:
    """A report that says why for each constant, written alone."""
    report = Report(
        command,
        study.described,
        seed=recipe.seed,
        weights=(),
        skipped=skipped_reports(study.collection),
    )
    write_text(folder.report, report.to_json())
    return report


def _search_and_prune(
    study: Study, folder: RunFolder, recipe: Recipe, clock: _Clock, *, resume: bool
) -> tuple[Found, Quality]:
    journal = open_journal(study, recipe, folder.journal, resume=resume)
    write_text(folder.recipe, recipe.to_yaml())
    with clock.step("levels"):
        search = open_search(study, recipe, folder.levels, clock.progress)
    with clock.step("search"):
        found = find_plan(search, journal, clock.progress)
    write_text(folder.plan, found.plan.to_json())
    with clock.step("prune"):
        AssignConstantsPass(found.constants)(study.model)
        save_model(study.model, folder.model)
    with clock.step("evaluate"):
        held_out = HeldOut(study, recipe)
        quality = held_out.quality(Session(folder.model, threads=study.threads))
        if not quality.target_met and recipe.search.objective == "cost":
            instead = held_out.instead(found)
            found = replace(found, report=replace(found.report, instead=instead))
    search.remove_levels()
    return found, quality


def _methods(found: Found) -> dict[str, str]:
    steps = {"saliency": found.recipe.prune.method, "controller": found.report.controller}
    chosen = {name: str(value) for name, value in found.report.chosen.items()}
    return steps | dict(found.methods) | chosen


def _warnings(study: Study, found: Found, *, packed: bool) -> tuple[str, ...]:
    warnings = list(found.warnings)
    if found.report.instead is not None:
        instead = found.report.instead
        warnings.append(
            f"the plan that was found breaks the limit on held-out samples; trial {instead.trial}, the best of "
            f"{instead.looked_at} looked at, keeps it there with a drop of {100 * instead.held_out_drop:.2f} points: "
            "its sparsities stand in report.json under search.instead"
        )
    if not found.kept:
        ruled = study.ruled.keep or study.ruled.structured
        but = " that no rule of the recipe takes away" if ruled else ""
        warnings.append(
            f"no candidate kept the limit with the confidence asked for, so every weight stays{but}; allow a "
            "larger drop, more trials or more data"
        )
    if len(study.held_out) < FEW_SAMPLES:
        warnings.append(
            f"only {len(study.held_out)} samples are held out, so the interval of the drop is wide; give more data"
        )
    reason = None if packed else too_old_to_pack(study.model)
    return (*warnings, reason) if reason else tuple(warnings)


def _write_reports(
    report: Report, folder: RunFolder, recipe: Recipe, found: Found, clock: _Clock
) -> Report:
    report = report.with_timings(clock.seconds)
    page = render(report, recipe=recipe.to_yaml(), trials=found.trials, max_drop=recipe.max_drop)
    write_text(folder.page, page)
    write_text(folder.report, report.to_json())
    return report


class _Clock:
    """Seconds by step, and the caller's progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self.progress: Progress = progress or silent

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _check_apart(files: Sequence[Path], folder: Path) -> None:
    """See that a run cannot write over the model that it reads.

    Raises:
        RunError: when the model, or its data, lie in the run folder.
    """
    inside = [file for file in files if file.resolve().is_relative_to(folder.resolve())]
    if inside and not folder.is_file():
        msg = (
            f"'{inside[0]}' lies in the run folder '{folder}', where the pruned model would be written over it; name "
            "another folder"
        )
        raise RunError(msg)


@dataclass(frozen=True)
class _Job:
    """What a caller asked for."""

    data: DataSource
    output: Path
    recipe: Recipe
    resume: bool
    threads: int | None
    clock: _Clock
    label: str

    def open(self, path: Path) -> tuple[Study, RunFolder]:
        """The model and its data, ready to be searched, and the folder to write to."""
        with self.clock.step("prepare"):
            study = open_study(path, self.data, self.recipe, threads=self.threads, label=self.label)
            _check_apart((path, *data_files(study.model)), self.output)
            check_fit(study, self.recipe)
            return study, open_run(self.output)
