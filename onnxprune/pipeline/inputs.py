"""What a step is made from: its fingerprint, by which it is known whether it must be done again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxprune
from onnxprune.design_space import AUTO_CYCLES
from onnxprune.memories import find_memory
from onnxprune.pipeline.records import BLOB, MODEL, OPTIMIZER, fingerprint_of
from onnxprune.pipeline.steps import (
    CalibrateStep,
    EncodeStep,
    EstimateStep,
    PackStep,
    PruneStep,
    Step,
    VerifyStep,
    trains,
)
from onnxprune.recipe import parse_target

if TYPE_CHECKING:
    from onnxprune.pipeline.state import Context, State
    from onnxprune.recipe import Recipe


def fingerprint(step: Step, number: int, state: State, context: Context) -> str:
    """Of all that a step is made from."""
    options = step.model_dump(mode="json")
    for trained in (options, options.get("gradual") or {}):
        trained.pop("checkpoint_every", None)
    known = {
        "version": onnxprune.__version__,
        "options": options,
        "seed": context.recipe.seed,
        "model": state.digests.get(MODEL, context.dense),
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
        return data | ruled | {
            "dense": context.dense,
            "number": number,
            "target": recipe.target,
            "pruned": state.pruned,
            "optimizer": state.digests.get(OPTIMIZER),
        }  # fmt: skip
    if isinstance(step, PruneStep):
        return data | ruled | _read_by_pruning(step, number, state, context)
    known: dict[str, Any] = {}
    if isinstance(step, EncodeStep | EstimateStep):
        by_bytes = isinstance(step, EncodeStep) and step.encoding != AUTO_CYCLES
        # Of the hardware, fewest bytes depend on nothing but how chunks are dealt to lanes.
        lanes = hardware_recipe(recipe, number).estimate.decoder_lanes
        known = {"hardware": lanes if by_bytes else _hardware(recipe, number), **ruled}
        if choices := recipe.settled(number):
            known |= {"choices": choices, "hardware": _hardware(recipe, number)}
    if isinstance(step, EstimateStep):
        known |= {BLOB: state.digests[BLOB], "dense": context.dense}
    if isinstance(step, VerifyStep):
        known = data | ruled | {"files": {kind: state.digests[kind] for kind in state.files}}
    if isinstance(step, PackStep) and step.values != "keep":
        known = data  # what is lost is measured on the search part
    return known


def _read_by_pruning(
    step: PruneStep, number: int, state: State, context: Context
) -> dict[str, Any]:
    recipe, study = context.recipe, context.study
    elements = sum(weight.elements for weight in study.collection.weights)
    known: dict[str, Any] = {
        "rows": list(state.rows),
        "target": recipe.target,
        "elements": elements,
    }
    target = step.target or recipe.target
    unit = parse_target(target).unit if target else recipe.unit
    if unit in {"blob_bytes", "cycles"}:
        known["hardware"] = _hardware(recipe, number)
    if step.searches(recipe):
        where = {"workers", "backend", "scheduler"}
        known["search"] = recipe.search.model_dump(mode="json", exclude=where)
        known |= {"dense": context.dense, "max_drop": recipe.max_drop}
    return known


def _hardware(recipe: Recipe, number: int) -> list[Any]:
    """What there is to know of the hardware; of a memory what its file says now, not its path."""
    chosen = hardware_recipe(recipe, number)
    sections = [section.model_dump(mode="json") for section in (chosen.encode, chosen.estimate)]
    return [*sections, find_memory(chosen.estimate.memory).describe()]


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
