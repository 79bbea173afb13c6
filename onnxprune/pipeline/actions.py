"""What each step does: from the files of the steps before to files of its own.

An action gets the description of its step, the state that the steps before have left, and an empty folder;
it writes into that folder and returns which file is what, and the facts that the report or later steps need.
What it reads is listed in :mod:`onnxprune.pipeline.inputs`, so that a step is done again when one of these has
changed.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune import hardware
from onnxprune.data import LABELS
from onnxprune.deliverables import Written, too_old_to_pack, verify_written
from onnxprune.errors import RunError
from onnxprune.model_io import load_model, save_model
from onnxprune.one_shot import OneShot
from onnxprune.packing import Check, PackOptions, pack_model, run_pass
from onnxprune.pipeline.inputs import hardware_recipe
from onnxprune.pipeline.records import (
    BLOB,
    MODEL,
    NAMES,
    OPTIMIZER,
    PACKED,
    Facts,
)
from onnxprune.pipeline.state import Made
from onnxprune.pipeline.steps import (
    CalibrateStep,
    EncodeStep,
    EstimateStep,
    PackStep,
    PruneStep,
    RecoverStep,
    ShrinkStep,
    SparsifyStep,
    Step,
    VerifyStep,
)
from onnxprune.pipeline.storing import cheapest_storage
from onnxprune.pruning import prune
from onnxprune.recipe import parse_target
from onnxprune.rules import apply_rules
from onnxprune.search.find import find_plan, open_journal
from onnxprune.search.opening import open_search
from onnxprune.target_hardware import target_hardware
from passes.assign import AssignConstantsPass
from passes.shrink import ShrinkPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.data import Dataset
    from onnxprune.pipeline.records import Record, StepFolder
    from onnxprune.pipeline.state import Context, State
    from onnxprune.recipe_sections import FinetuneSection
    from onnxprune.report import Report


def do_step(
    step: Step, number: int, state: State, place: StepFolder, context: Context, mark: str
) -> Record:
    """Do a step in its folder, from what an interrupted one has left there.

    Args:
        step: its description.
        number: its place in the recipe, from 0.
        state: what the steps before have left.
        place: its folder.
        context: what is the same for all steps.
        mark: the step's :func:`fingerprint`.
    """
    place.begin(mark)
    start = time.perf_counter()
    made = act(step, number, state, place.path, context)
    return place.finish(mark, made.outputs, made.facts, time.perf_counter() - start)


@singledispatch
def act(step: Step, number: int, state: State, folder: Path, context: Context) -> Made:
    """Do one step.

    Args:
        step: its description.
        number: its place in the recipe, from 0.
        state: what the steps before have left.
        folder: to write into; an interrupted step's own files may be there.
        context: what is the same for all steps.
    """
    raise NotImplementedError(type(step))


@act.register(CalibrateStep)
def _(step: CalibrateStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del number, state, folder
    rows = context.study.calibration.drawn(step.samples, context.recipe.seed)
    return Made(facts=Facts(rows=tuple(rows.tolist())))


@act.register(SparsifyStep)
def _(step: SparsifyStep, number: int, state: State, folder: Path, context: Context) -> Made:
    return _train(step.settings("sparsify"), None, number, state, folder, context)


@act.register(RecoverStep)
def _(step: RecoverStep, number: int, state: State, folder: Path, context: Context) -> Made:
    return _train(step.settings("recover"), None, number, state, folder, context)


@act.register(PruneStep)
def _(step: PruneStep, number: int, state: State, folder: Path, context: Context) -> Made:
    if step.gradual is not None:
        left = f"{_sparsity_of(step, state, context)[0]:.12f}x"
        return _train(step.gradual.settings("prune"), left, number, state, folder, context)
    if step.searches(context.recipe):
        return _search(step, number, state, folder, context)
    options = OneShot(
        method=step.method,
        allocation=step.allocation,
        pattern=step.pattern,
        damping=step.damping,
        reconstruct=step.reconstruct,
        seed=context.recipe.seed,
    )
    rate, target = _sparsity_of(step, state, context)
    report = prune(
        state.model,
        folder / NAMES[MODEL],
        sparsity=None if target else 1 - 1 / rate,
        target=target,
        data=_arrays(_samples(state, context)) if state.rows else None,
        options=options,
        recipe=hardware_recipe(context.recipe, number).model_copy(update={"steps": ()}),
        threads=context.study.threads,
        progress=context.progress,
    )
    return _model_made(report)


@act.register(ShrinkStep)
def _(step: ShrinkStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del number, context
    model = load_model(state.model)
    run_pass(ShrinkPass(step.multiple), model)
    save_model(model, folder / NAMES[MODEL])
    return Made((MODEL,))


@act.register(EncodeStep)
def _(step: EncodeStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del step
    weights = context.weights(state.model)
    target, chosen = cheapest_storage(context.recipe, number, weights)
    hardware.write_weights(weights, folder / NAMES[BLOB], target.storage, context.progress)
    methods = {
        name: f"{value}, of {len(context.recipe.settled(number)[name])}"
        for name, value in chosen.items()
    }
    return Made((BLOB,), Facts(encoding=target.storage.described, methods=methods))


@act.register(PackStep)
def _(step: PackStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del number
    study = context.study
    if reason := too_old_to_pack(study.model):
        return Made(facts=Facts(warnings=(reason,)))
    check = Check(_arrays(study.search), threads=study.threads, progress=context.progress)
    report = pack_model(state.model, folder / NAMES[PACKED], pack_options(step), check)
    return Made((PACKED,), Facts(warnings=report.warnings, packing=report.verification))


@act.register(EstimateStep)
def _(step: EstimateStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del step, folder
    target = target_hardware(hardware_recipe(context.recipe, number))
    one = target.space.only
    return Made(
        facts=Facts(
            fetch=hardware.fetch_costs(state.files[BLOB], target.space),
            dense_cycles=hardware.dense_fetch_cycles(context.study.collection.weights, one),
            memory=hardware.describe(one.memory),
            hardware=hardware.behind_memory(target.space),
        )
    )


@act.register(VerifyStep)
def _(step: VerifyStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del step, number, folder
    written = Written(state.model, state.files.get(PACKED), state.files.get(BLOB), state.lossy)
    names = [weight.name for weight in context.weights(state.model)]
    study = context.study
    verification = verify_written(
        written, names, study.held_out, threads=study.threads, progress=context.progress
    )
    return Made(facts=Facts(verification=verification))


def pack_options(step: PackStep) -> PackOptions:
    """How a step packs."""
    return PackOptions(step.values, step.positions, step.runtime)


def _sparsity_of(step: PruneStep, state: State, context: Context) -> tuple[float, str | None]:
    """How far to prune what is left: a compression rate of it, or a target in bytes or cycles.

    Rates are of the dense original's weights, of which shrinking may have removed some.
    """
    asked = step.target or context.recipe.target
    if step.sparsity is None and asked is not None:
        target = parse_target(asked)
        if target.unit != "elements":
            return 1.0, asked
        dense = sum(weight.elements for weight in context.study.collection.weights)
        keep = max(1, int(dense / target.limit))
        return max(1.0, sum(w.elements for w in context.weights(state.model)) / keep), None
    return 1 / (1 - (step.sparsity or 0.0)), None


def _samples(state: State, context: Context) -> Dataset:
    """What an earlier step drew to calibrate on.

    Raises:
        RunError: when it drew what is not there.
    """
    data = context.study.calibration
    if not all(0 <= row < len(data) for row in state.rows):
        msg = "the calibrate step's record names samples that the data do not have; delete its folder and resume again"
        raise RunError(msg)
    return data.take(np.array(state.rows))


def _train(
    settings: FinetuneSection,
    target: str | None,
    number: int,
    state: State,
    folder: Path,
    context: Context,
) -> Made:
    """One phase of training, from where the one before left model and optimizer."""
    from onnxprune.finetune.run import finetune

    study = context.study
    recipe = context.recipe.model_copy(
        update={
            "finetune": settings.model_copy(update={"keep_zeros": state.pruned}),
            "target": target,
            "steps": (),
            "seed": context.recipe.seed + number,
        }
    )
    checkpoint = folder / "checkpoint"
    left = folder / NAMES[OPTIMIZER]
    report = finetune(
        state.model,
        _arrays(study.calibration, labels=True),
        folder / NAMES[MODEL],
        recipe,
        validation=_arrays(study.search, labels=True),
        held_out=_arrays(study.search, labels=True),
        teacher=study.path,
        checkpoint=checkpoint,
        resume=checkpoint.is_file(),
        moments=(state.files.get(OPTIMIZER), left),
        threads=study.threads,
        progress=context.progress,
    )
    return replace(_model_made(report), outputs=(MODEL, OPTIMIZER))


def _search(step: PruneStep, number: int, state: State, folder: Path, context: Context) -> Made:
    """Let a controller choose the sparsity of each weight; drops are from the dense original."""
    section = context.recipe.prune.model_copy(
        update=step.model_dump(include={"method", "damping", "pattern", "reconstruct"})
    )
    recipe = hardware_recipe(context.recipe, number)
    recipe = recipe.model_copy(update={"prune": section, "steps": ()})
    model = load_model(state.model)
    study = replace(
        context.study,
        path=state.model,
        model=model,
        ruled=apply_rules(collect_weights(model), recipe),
        calibration=_samples(state, context),
    )
    journal_file = folder / "journal.jsonl"
    journal = open_journal(study, recipe, journal_file, resume=journal_file.exists())
    search = open_search(study, recipe, folder / "levels", context.progress)
    found = find_plan(search, journal, context.progress)
    run_pass(AssignConstantsPass(found.constants), model)
    save_model(model, folder / NAMES[MODEL])
    search.remove_levels()
    warnings = list(found.warnings)
    if not found.kept:
        warnings.append(
            "no candidate kept the limit with the confidence asked for, so this step pruned nothing; allow a "
            "larger drop, more trials or more data"
        )
    methods = {"controller": found.report.controller, **found.methods}
    methods |= {name: str(value) for name, value in found.report.chosen.items()}
    return Made((MODEL,), Facts(methods=methods, warnings=tuple(warnings)))


def _model_made(report: Report) -> Made:
    """The model that a command wrote, and what its report says of the way."""
    return Made((MODEL,), Facts(methods=dict(report.methods or {}), warnings=report.warnings))


def _arrays(data: Dataset, *, labels: bool = False) -> dict[str, Any]:
    """Samples as a source of data."""
    arrays = dict(data.inputs)
    return arrays | {LABELS: data.labels} if labels and data.labels is not None else arrays
