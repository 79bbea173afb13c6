"""What each step does: from the files of the steps before to files of its own.

An action gets the description of its step, the state that the steps before have left, and an empty folder;
it writes into that folder and returns which file is what, and the facts that the report or later steps need.
What it reads is listed by :func:`inputs_of`, so that a step is done again when, and only when, one of
these has changed.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

import onnxprune
from onnxprune import hardware
from onnxprune.data import LABELS
from onnxprune.deliverables import Written, too_old_to_pack, verify_written
from onnxprune.inventory import weight_reports
from onnxprune.model_io import load_model, save_model
from onnxprune.one_shot import OneShot
from onnxprune.packing import Check, PackOptions, pack_model, run_pass
from onnxprune.pipeline.records import digest_of, fingerprint_of, model_files
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
    trains,
)
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
    from collections.abc import Mapping
    from pathlib import Path

    from onnxprune.data import Dataset
    from onnxprune.pipeline.records import Record, StepFolder
    from onnxprune.progress import Progress
    from onnxprune.recipe import Recipe
    from onnxprune.recipe_sections import FinetuneSection
    from onnxprune.report import Report
    from onnxprune.study import Study
    from passes.weights import Weight

MODEL, BLOB, PACKED, OPTIMIZER = "model", "blob", "packed", "optimizer"
"""What a file of a step can be."""

NAMES = {
    MODEL: "model.onnx",
    BLOB: "weights.swb",
    PACKED: "model.packed.onnx",
    OPTIMIZER: "optimizer.pt",
}
ROWS = "rows"


@dataclass(frozen=True, eq=False)
class Context:
    """What is the same for all steps.

    Attributes:
        study: the dense model, its data in three parts, and its scores.
        recipe: all settings.
        progress: told of each step.
    """

    study: Study
    recipe: Recipe
    progress: Progress

    @property
    def names(self) -> tuple[str, ...]:
        """The weights that the recipe selects."""
        return tuple(weight.name for weight in self.study.collection.weights)

    def weights(self, model: Path) -> list[Weight]:
        """The same weights as a model has them now."""
        names = set(self.names)
        return [w for w in collect_weights(load_model(model)).weights if w.name in names]


@dataclass(frozen=True)
class State:
    """What the steps so far have left.

    Attributes:
        model: the model as it is now.
        rows: of the calibration part that steps calibrate on.
        files: the latest blob, packed model and memory of the optimizer, as far as they still belong
            to the model.
        pruned: whether zeros of the model are there to stay.
        lossy: whether the packed model holds other values than the model.
    """

    model: Path
    rows: tuple[int, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    pruned: bool = False
    lossy: bool = False

    def after(
        self, step: Step, folder: Path, outputs: Mapping[str, str], facts: Mapping[str, Any]
    ) -> State:
        """The state that a step leaves, from what it wrote."""
        files = dict(self.files)
        if MODEL in outputs:
            files = {}  # they are of the model before
        files |= {kind: folder / name for kind, name in outputs.items() if kind != MODEL}
        return State(
            model=folder / outputs[MODEL] if MODEL in outputs else self.model,
            rows=tuple(facts[ROWS]) if ROWS in facts else self.rows,
            files=files,
            pruned=self.pruned or isinstance(step, PruneStep),
            lossy=step.values != "keep" if isinstance(step, PackStep) else self.lossy,
        )


@dataclass(frozen=True)
class Made:
    """What a step made: which file of its folder is what, and facts for the report and for later steps.

    Facts are JSON values. ``methods`` (texts by weight or step) and ``warnings`` go into the report.
    """

    outputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


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


def fingerprint(step: Step, number: int, state: State, context: Context) -> str:
    """Of all that a step is made from."""
    options = step.model_dump(mode="json")
    options.pop("checkpoint_every", None)
    known = {
        "version": onnxprune.__version__,
        "options": options,
        "seed": context.recipe.seed,
        "model": [digest_of(file) for file in model_files(state.model)],
    }
    return fingerprint_of(known | inputs_of(step, number, state, context))


def inputs_of(step: Step, number: int, state: State, context: Context) -> dict[str, Any]:
    """What a step reads beside its options, the seed and the model, as JSON values."""
    recipe, study = context.recipe, context.study
    data = {"data": study.data_fingerprint, "split": recipe.data.model_dump(mode="json")}
    ruled = {
        "rules": [rule.model_dump(mode="json") for rule in recipe.rules],
        "selected": list(context.names),
    }
    if isinstance(step, CalibrateStep):
        return data
    if trains(step):
        before = state.files.get(OPTIMIZER)
        return data | ruled | {
            "dense": study.model_fingerprint(),
            "number": number,
            "target": recipe.target,
            "pruned": state.pruned,
            "optimizer": before and digest_of(before),
        }  # fmt: skip
    if isinstance(step, PruneStep):
        known = data | ruled | {"rows": list(state.rows), "target": recipe.target}
        target = step.target or recipe.target
        unit = parse_target(target).unit if target else recipe.unit
        if unit in {"blob_bytes", "cycles"}:
            known |= {"hardware": _hardware(recipe, number)}
        if step.searches(recipe):
            known |= {"dense": study.model_fingerprint(), "max_drop": recipe.max_drop}
            where = {"workers", "backend", "scheduler"}
            known |= {"search": recipe.search.model_dump(mode="json", exclude=where)}
        return known
    if isinstance(step, EncodeStep | EstimateStep):
        known = {"hardware": _hardware(recipe, number), **ruled}
        return (
            known | {BLOB: digest_of(state.files[BLOB])}
            if isinstance(step, EstimateStep)
            else known
        )
    if isinstance(step, VerifyStep):
        return data | ruled | {kind: digest_of(file) for kind, file in sorted(state.files.items())}
    return {}


def _hardware(recipe: Recipe, number: int) -> list[Any]:
    chosen = hardware_recipe(recipe, number)
    return [section.model_dump(mode="json") for section in (chosen.encode, chosen.estimate)]


def hardware_recipe(recipe: Recipe, number: int) -> Recipe:
    """The recipe with the encoding and the hardware that a step of that number has in mind.

    They are those of the nearest encode and estimate steps: of itself, else before it for the encoding and after
    it for the hardware, else on the other side; the recipe's own sections where there is none.
    """
    before, after = recipe.steps[: number + 1], recipe.steps[number:]
    encodes = [s for s in (*before[::-1], *after) if isinstance(s, EncodeStep)]
    estimates = [s for s in (*after, *before[::-1]) if isinstance(s, EstimateStep)]
    return recipe.model_copy(
        update={
            "encode": encodes[0] if encodes else recipe.encode,
            "estimate": estimates[0] if estimates else recipe.estimate,
        }
    )


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
    count = len(context.study.calibration)
    rng = np.random.default_rng(context.recipe.seed)
    rows = np.sort(rng.choice(count, min(step.samples, count), replace=False))
    return Made(facts={ROWS: rows.tolist()})


@act.register(SparsifyStep)
def _(step: SparsifyStep, number: int, state: State, folder: Path, context: Context) -> Made:
    return _train(step.settings("sparsify"), None, number, state, folder, context)


@act.register(RecoverStep)
def _(step: RecoverStep, number: int, state: State, folder: Path, context: Context) -> Made:
    return _train(step.settings("recover"), None, number, state, folder, context)


@act.register(PruneStep)
def _(step: PruneStep, number: int, state: State, folder: Path, context: Context) -> Made:
    if step.gradual is not None:
        target = step.target or context.recipe.target
        if step.sparsity is not None:
            target = f"{1 / (1 - step.sparsity):.9f}x"
        return _train(step.gradual.settings("prune"), target, number, state, folder, context)
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
    report = prune(
        state.model,
        folder / NAMES[MODEL],
        sparsity=step.sparsity,
        target=None if step.sparsity is not None else step.target or context.recipe.target,
        data=_arrays(context.study.calibration.take(np.array(state.rows))) if state.rows else None,
        options=options,
        recipe=hardware_recipe(context.recipe, number),
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
    return Made({MODEL: NAMES[MODEL]})


@act.register(EncodeStep)
def _(step: EncodeStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del step
    target = target_hardware(hardware_recipe(context.recipe, number))
    hardware.write_weights(
        context.weights(state.model), folder / NAMES[BLOB], target.storage, context.progress
    )
    return Made({BLOB: NAMES[BLOB]}, {"methods": {"encoding": target.storage.described}})


@act.register(PackStep)
def _(step: PackStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del number
    study = context.study
    if reason := too_old_to_pack(load_model(state.model)):
        return Made(facts={"warnings": [reason]})
    check = Check(_arrays(study.search), threads=study.threads, progress=context.progress)
    report = pack_model(state.model, folder / NAMES[PACKED], pack_options(step), check)
    return Made({PACKED: NAMES[PACKED]}, {"warnings": list(report.warnings)})


@act.register(EstimateStep)
def _(step: EstimateStep, number: int, state: State, folder: Path, context: Context) -> Made:
    del step, folder
    target = target_hardware(hardware_recipe(context.recipe, number))
    reports = weight_reports(context.weights(state.model))
    fetched = hardware.with_fetch(reports, state.files[BLOB], target.space)
    one = target.space.only
    return Made(
        facts={
            "fetch": {
                w.name: [asdict(c) for c in (w.dense_fetch, w.fetch) if c is not None]
                for w in fetched
            },
            "dense_cycles": hardware.dense_fetch_cycles(context.study.collection.weights, one),
            "memory": hardware.describe(one.memory),
            "hardware": hardware.behind_memory(target.space),
        }
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
    return Made(facts={"verification": asdict(verification)})


def pack_options(step: PackStep) -> PackOptions:
    """How a step packs."""
    return PackOptions(step.values, step.positions, step.runtime)


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
    made = _model_made(report)
    return replace(made, outputs={**made.outputs, OPTIMIZER: left.name})


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
        calibration=context.study.calibration.take(np.array(state.rows)),
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
    return Made({MODEL: NAMES[MODEL]}, {"methods": methods, "warnings": warnings})


def _model_made(report: Report) -> Made:
    """The model that a command wrote, and what its report says of the way."""
    facts = {"methods": dict(report.methods or {}), "warnings": list(report.warnings)}
    return Made({MODEL: NAMES[MODEL]}, facts)


def _arrays(data: Dataset, *, labels: bool = False) -> dict[str, Any]:
    """Samples as a source of data."""
    arrays = dict(data.inputs)
    return arrays | {LABELS: data.labels} if labels and data.labels is not None else arrays
