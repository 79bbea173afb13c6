"""``compress`` where the recipe lists its steps: each is done once, in its own folder, then everything is delivered."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from onnxprune import hardware
from onnxprune.deliverables import target_report
from onnxprune.errors import RecipeError, RunError
from onnxprune.files import output_error, replacing, write_text
from onnxprune.held_out import HeldOut
from onnxprune.html import render
from onnxprune.inventory import skipped_reports, totals_of, weight_reports
from onnxprune.pipeline.actions import do_step, pack_options
from onnxprune.pipeline.inputs import fingerprint
from onnxprune.pipeline.records import BLOB, MODEL, PACKED, StepFolder, remove
from onnxprune.pipeline.state import Context, State
from onnxprune.pipeline.steps import (
    CHANGES,
    EncodeStep,
    EstimateStep,
    PackStep,
    PruneStep,
    training_of,
    trains,
)
from onnxprune.pipeline.tuning import tune
from onnxprune.recipe import parse_target
from onnxprune.report import Report, StepReport
from onnxprune.runtime import Session
from onnxprune.search.run import check_installed
from onnxprune.target_hardware import target_hardware

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from onnxprune.pipeline.records import Record
    from onnxprune.pipeline.steps import Step
    from onnxprune.progress import Progress
    from onnxprune.recipe import Recipe
    from onnxprune.report import Totals, WeightReport
    from onnxprune.run_folder import RunFolder
    from onnxprune.study import Study

NEEDS_TORCH = (
    "the steps sparsify, recover and prune in training need torch; install it with `pip install onnxprune[torch]`, "
    "or leave them out"
)


When = Literal["now", "in_a_trial", "before"]


@dataclass(frozen=True)
class Done:
    """A step that is done: its place, its description, its record, and when that was."""

    number: int
    step: Step
    record: Record
    when: When

    @property
    def name(self) -> str:
        """As the report lists it."""
        return step_name(self.number, self.step)


def step_name(number: int, step: Step) -> str:
    """The name of a step, in reports and as its folder's."""
    return f"{number + 1:02d}-{step.step}"


def check_steps(recipe: Recipe) -> None:
    """See before any work that what the steps name is there: torch, memories, encodings.

    Raises:
        RecipeError: naming what is missing.
    """
    if any(trains(step) for step in recipe.steps) and importlib.util.find_spec("torch") is None:
        raise RecipeError(NEEDS_TORCH)
    if recipe.searched:
        check_installed(recipe.search.controller)
        if recipe.search.workers > 1 or recipe.search.backend != "local":
            msg = "trials of steps are made one after the other, each on all threads; leave search.workers at 1 and search.backend at local"
            raise RecipeError(msg)
    for number, step in enumerate(recipe.steps):
        if isinstance(step, PruneStep) and step.gradual is not None:
            asked = step.target or recipe.target
            target = parse_target(asked) if asked and step.sparsity is None else None
            if target is not None and (target.unit != "elements" or target.limit <= 1):
                msg = f"steps.{number}: pruning in training goes to a compression rate such as 50x, found '{target.text}'"
                raise RecipeError(msg)
        if isinstance(step, EncodeStep):
            target_hardware(recipe.model_copy(update={"encode": step}))
        if isinstance(step, EstimateStep):
            target_hardware(recipe.model_copy(update={"estimate": step}))
        if isinstance(step, PackStep):
            pack_options(step).to_pass()


def check_fit(study: Study, recipe: Recipe) -> None:
    """See before any work that steps that train fit the model and its data.

    Raises:
        RecipeError, DataError: naming the step and what does not fit.
    """
    for number, step in enumerate(recipe.steps):
        training = training_of(step)
        if training is None:
            continue
        from onnxprune.finetune.run import check_settings

        check_settings(training.settings("recover"), study.calibration.labels)
        names = sorted(weight.name for weight in study.collection.weights)
        unknown = sorted(set(training.penalty.by_weight) - {*names})
        if unknown:
            msg = f"steps.{number}: penalty.by_weight names {unknown}, but the prunable weights are {names}"
            raise RecipeError(msg)
        if isinstance(step, PruneStep) and study.ruled.keep:
            msg = (
                f"steps.{number}: pruning in training goes to one size over all weights, not by the sparsity of rules; "
                "prune in one shot, or leave the sparsities out of the rules"
            )
            raise RecipeError(msg)


def run_steps(
    study: Study, folder: RunFolder, recipe: Recipe, progress: Progress, *, resume: bool
) -> Report:
    """Do the steps that are not done, deliver what they made, and report.

    Args:
        study: the dense model and its data.
        folder: of the run.
        recipe: with at least one step.
        progress: told of the steps' own progress.
        resume: whether steps of an earlier run may be kept.

    Raises:
        RunError: when the folder holds an earlier run and ``resume`` is False.
        OnnxPruneError: whatever a step finds wrong.
    """
    if folder.steps.exists() and not resume:
        msg = (
            f"'{folder.path}' already holds the steps of a run; add --resume or name another folder"
        )
        raise RunError(msg)
    again = folder.steps.exists()
    write_text(folder.recipe, recipe.to_yaml())
    tuned = None
    if recipe.searched:
        tuned = tune(Context(study, recipe, progress), folder, resume=resume)
        recipe = tuned.recipe
        write_text(folder.found, recipe.to_yaml())
    context = Context(study, recipe, progress)
    state, done = State(study.path), []
    for number, step in enumerate(recipe.steps):
        place = StepFolder(folder.steps / step_name(number, step))
        mark = fingerprint(step, number, state, context)
        when: When = "before"
        record = place.finished(mark)
        if record is not None and isinstance(step, CHANGES) and MODEL not in record.outputs:
            record = None
        if record is None:
            when, record = "in_a_trial", _from_a_trial(folder.trials / mark, place, mark)
        if record is None:
            when, record = "now", do_step(step, number, state, place, context, mark)
        state = state.after(step, place.path, record)
        done.append(Done(number, step, record, when))
    _forget_others(folder, done)
    _deliver(state, folder, again=again)
    report = _report(state, done, context, folder)
    if tuned is not None:
        report = replace(report, search=tuned.report, warnings=(*report.warnings, *tuned.warnings))
    page = render(report, recipe=recipe.to_yaml(), max_drop=recipe.max_drop)
    write_text(folder.page, page)
    write_text(folder.report, report.to_json())
    return report


def _from_a_trial(trial: Path, place: StepFolder, mark: str) -> Record | None:
    """The record of a step that a trial has done already, copied from there."""
    if StepFolder(trial).finished(mark) is None:
        return None
    try:
        remove(place.path)
        place.path.parent.mkdir(exist_ok=True)
        shutil.copytree(trial, place.path)
    except OSError as error:
        raise output_error(place.path, error) from error
    return place.finished(mark)


def _forget_others(folder: RunFolder, done: Sequence[Done]) -> None:
    """Delete the folders of steps that the recipe has no longer, and those of trials."""
    names = {one.name for one in done}
    for path in sorted(folder.steps.iterdir()):
        if path.name not in names:
            remove(path)
    remove(folder.trials)


def _deliver(state: State, folder: RunFolder, *, again: bool) -> None:
    """Put the last model, packed model and blob where users look for them; what an earlier run left there goes."""
    made = dict(state.files) | ({MODEL: state.model} if MODEL in state.digests else {})
    wanted = {
        folder.path / name: made[kind].parent / name
        for kind in (MODEL, PACKED, BLOB)
        if kind in made
        for name in state.digests[kind]
    }
    for stale in (folder.model, folder.packed, folder.blob) if again else ():
        if stale not in wanted:
            stale.unlink(missing_ok=True)
    for target, source in wanted.items():
        with replacing(target) as temporary:
            try:
                shutil.copyfile(source, temporary)
            except OSError as error:
                raise output_error(target, error) from error


def _report(state: State, done: Sequence[Done], context: Context, folder: RunFolder) -> Report:
    study, recipe = context.study, context.recipe
    weights = weight_reports(context.weights(state.model), study.ruled.patterns)
    facts = state.facts
    if BLOB in state.files:
        weights = hardware.with_blob(weights, state.files[BLOB])
    if facts.fetch is not None:
        weights = hardware.with_costs(weights, facts.fetch)
    packed = state.files.get(PACKED)
    totals = _totals(weights, context, state, folder)
    served = packed if packed is not None and state.lossy else state.model
    methods = {f"{d.name}: {k}": v for d in done for k, v in d.record.facts.methods.items()}
    if facts.encoding is not None:
        methods["encoding"] = facts.encoding
    aimed = _with_target(recipe)
    asked = target_report(aimed, totals)
    warnings = [w for one in done for w in one.record.facts.warnings]
    if asked is None and aimed.target is not None:
        warnings.append(
            f"whether target {aimed.target} is met was not measured; add a pack, encode or estimate step "
            "after the last step that changes the model"
        )
    return Report(
        "compress",
        study.described,
        seed=recipe.seed,
        weights=weights,
        skipped=skipped_reports(study.collection),
        totals=totals,
        quality=HeldOut(study, recipe).quality(Session(served, threads=study.threads)),
        target=asked,
        verification=facts.verification or facts.packing,
        steps=tuple(
            StepReport(one.name, one.record.seconds, one.when, one.record.fingerprint)
            for one in done
        ),
        memory=facts.memory,
        hardware=facts.hardware or None,
        methods=methods,
        warnings=tuple(dict.fromkeys(warnings)),
        timings_s={one.name: one.record.seconds for one in done},
    )


def _with_target(recipe: Recipe) -> Recipe:
    """The recipe with the target of its last prune step where it has none itself."""
    own = [step.target for step in recipe.steps if isinstance(step, PruneStep) and step.target]
    return recipe if recipe.target or not own else recipe.model_copy(update={"target": own[-1]})


def _totals(
    weights: Sequence[WeightReport], context: Context, state: State, folder: RunFolder
) -> Totals:
    """Sums; rates are of the dense original's weights, also where shrinking removed some."""
    sizes = {
        f"{kind}_bytes": sum((folder.path / name).stat().st_size for name in state.digests[kind])
        for kind in (MODEL, PACKED, BLOB)
        if kind in state.digests
    }
    totals = totals_of(weights, **sizes)
    elements = sum(weight.elements for weight in context.study.collection.weights)
    return replace(
        totals,
        elements=elements,
        sparsity=1 - totals.nonzeros / elements if elements else 0.0,
        compression_rate=elements / max(1, totals.nonzeros),
        dense_fetch_cycles=state.facts.dense_cycles,
        dense_bytes=sum(w.elements * w.dtype.itemsize for w in context.study.collection.weights),
    )
