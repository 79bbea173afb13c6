"""The ``prune`` command: one shot, by magnitude without data or by any method with them."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.blas import blas_threads
from onnxprune.costs import Costs
from onnxprune.errors import RecipeError
from onnxprune.files import check_parent
from onnxprune.in_memory import ModelSource, run_on_files
from onnxprune.inventory import report_of, totals_of, weight_reports, zero_point_warnings
from onnxprune.model_io import load_model, save_model
from onnxprune.one_shot import OneShot, prune_one_shot
from onnxprune.packing import run_pass
from onnxprune.plan import Plan, load_plan
from onnxprune.progress import silent
from onnxprune.recipe import Recipe, parse_target, refuse_steps
from onnxprune.report import TargetReport
from onnxprune.rules import apply_rules, share_left
from onnxprune.target_hardware import target_hardware
from passes.allocation import uniform
from passes.assign import AssignConstantsPass
from passes.magnitude import PruneByMagnitudePass, global_keep
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir as ir

    from onnxprune.data import DataSource
    from onnxprune.one_shot import Allocation
    from onnxprune.progress import Progress
    from onnxprune.recipe import Target
    from onnxprune.report import Report
    from onnxprune.rules import Ruled
    from passes.methods import Method
    from passes.weights import Collection

PathLike = str | Path


def prune(
    model: ModelSource,
    output: PathLike | None = None,
    *,
    sparsity: float | None = None,
    target: str | None = None,
    plan: PathLike | None = None,
    data: DataSource | None = None,
    method: Method | None = None,
    allocation: Allocation | None = None,
    pattern: str | None = None,
    options: OneShot | None = None,
    recipe: Recipe | None = None,
    nodes_to_exclude: Sequence[str] = (),
    op_types_to_prune: Sequence[str] | None = None,
    embeddings: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Prune in one shot, without search and without labels, and write the model, dense with zeros.

    Args:
        model: path of an ONNX file, or a model in memory, which is not changed.
        output: path to write; with None the model made is in the report's ``output``.
        sparsity: share of all prunable weights to set to zero, 0 to 1, those that rules fix among
            them; an N:M pattern needs none, nor do rules that say it of single weights.
        target: instead of ``sparsity``: ``10x`` (compression rate), ``200kB`` (packed file), ``200kB:blob``
            or ``500000cycles``; the report says what was reached.
        plan: JSON file with sparsity by weight or node name, instead of ``sparsity``; it goes before
            the sparsities of rules, whose patterns and exclusions hold.
        data: calibration samples (see :mod:`onnxprune.data`), all of which are used up to 1,024;
            ``"random"`` for seeded random inputs. Magnitude needs none.
        method: how weights are chosen and updated; ``magnitude`` when None.
        allocation: how the sparsity is shared; ``uniform``, or ``loss`` where weights are updated,
            when None.
        pattern: the shape of masks; ``unstructured`` when None.
        options: these three and the rest (damping, seed, ...) as one object.
        recipe: its ``seed``, ``rules`` and what its ``prune`` section says are taken, and for a target the
            encoding of the blob and the memory that cycles are of; what is given beside it goes before.
        nodes_to_exclude: nodes or weights to leave dense, besides those of the recipe.
        op_types_to_prune: prune only weights that these operators read.
        embeddings: prune embeddings too.
        threads: of onnxruntime and of linear algebra.
        progress: called with a step's name, how much of it is done, and how much there is.

    Raises:
        ModelError, RecipeError, DataError, OutputError: when one of the arguments cannot be used.
    """
    settings = (recipe or Recipe()).with_selection(nodes_to_exclude, op_types_to_prune)
    refuse_steps(settings, "prune")
    chosen = options or options_of(settings)
    chosen = replace(
        chosen,
        method=method or chosen.method,
        allocation=allocation or chosen.allocation,
        pattern=pattern or chosen.pattern,
    )
    chosen = replace(chosen, pattern=chosen.checked_pattern().name)
    settings = settings.with_pattern(chosen.pattern)
    if sum(ask is not None for ask in (sparsity, target, plan)) > 1:
        msg = "give one of a sparsity (--sparsity), a target (--target) and a plan (--plan)"
        raise RecipeError(msg)
    goal = None if target is None else parse_target(target)

    tell = progress or silent

    def job(source: Path, path: Path) -> Report:
        check_parent(path)
        costs = _costs(goal, source, settings)
        loaded = load_model(source)
        ruled = apply_rules(collect_weights(loaded, embeddings=embeddings), settings)
        collection = ruled.collection
        share = sparsity if goal is None else _sparsity_of(goal, collection)
        reached = None
        if chosen.streams and data is None and costs is None and not ruled.structured:
            parts = _prune_by_magnitude(loaded, ruled, share, plan, chosen, tell)
        else:
            with blas_threads(threads):
                pruned = prune_one_shot(
                    loaded,
                    ruled,
                    chosen,
                    sparsity=share,
                    keep=None if plan is None else load_plan(Path(plan), collection.weights).keep,
                    costs=costs,
                    data=data,
                    threads=threads,
                    progress=progress,
                )
            run_pass(AssignConstantsPass(pruned.constants), loaded)
            parts = {"methods": pruned.methods, "warnings": pruned.warnings}
            reached = pruned.reached
        parts["warnings"] = (*parts["warnings"], *zero_point_warnings(collection.weights))
        save_model(loaded, path, progress=partial(tell, "write"))
        weights = weight_reports(collection.weights, ruled.patterns)
        if goal is not None:
            totals = totals_of(weights)
            reached = totals.compression_rate if reached is None else reached
            parts["target"] = TargetReport(goal.text, goal.unit, reached, goal.met(reached))
        if costs is not None and costs.target.unit == "cycles":
            parts["memory"] = costs.hardware.space.memories[0].describe()
        seed = chosen.seed if chosen.needs_data else None
        return report_of("prune", source, loaded, collection, seed=seed, weights=weights, **parts)

    return run_on_files(model, output, job)


def _costs(goal: Target | None, source: Path, settings: Recipe) -> Costs | None:
    if goal is None or goal.unit == "elements":
        return None
    return Costs(goal, source, target_hardware(settings))


def _sparsity_of(goal: Target, collection: Collection) -> float | None:
    """The total sparsity that a compression rate asks for; None where bytes or cycles do."""
    if goal.unit != "elements":
        return None
    if goal.limit < 1:
        msg = f"a compression rate is at least 1, found '{goal.text}'"
        raise RecipeError(msg)
    elements = max(1, collection.elements)
    return 1 - math.floor(elements / goal.limit) / elements


def options_of(recipe: Recipe) -> OneShot:
    """What a recipe says of pruning in one shot: by magnitude, unless it names a method itself."""
    section = recipe.prune
    named = "method" in section.model_fields_set
    return OneShot(
        method=section.method if named else "magnitude",
        pattern=section.pattern,
        damping=section.damping,
        reconstruct=section.reconstruct,
        seed=recipe.seed,
    )


def _prune_by_magnitude(
    model: ir.Model,
    ruled: Ruled,
    sparsity: float | None,
    plan: PathLike | None,
    options: OneShot,
    tell: Progress,
) -> dict[str, Any]:
    """Prune block by block, whatever the model's size; what to say of it in the report."""
    chosen = _plan(ruled, sparsity, plan, options.chosen_allocation)
    run_pass(PruneByMagnitudePass(chosen.keep, partial(tell, "prune")), model)
    allocation = "plan" if plan else options.chosen_allocation
    return {
        "methods": {"saliency": "magnitude", "allocation": allocation},
        "warnings": _filled_warnings(ruled.collection, chosen),
    }


def _plan(ruled: Ruled, sparsity: float | None, plan: PathLike | None, allocation: str) -> Plan:
    weights = ruled.collection.weights
    if plan is not None:
        return load_plan(Path(plan), weights)
    elements = {weight.name: weight.elements for weight in weights}
    if sparsity is None:
        if not ruled.keep:
            msg = (
                "give either a sparsity (--sparsity), a plan (--plan) or rules with one (--recipe)"
            )
            raise RecipeError(msg)
        return Plan(elements | dict(ruled.keep), elements)
    share = share_left(ruled, sparsity)
    if allocation == "uniform":
        free = uniform({weight.name: weight.elements for weight in ruled.free}, share)
    else:
        free = global_keep(ruled.free, share)
    return Plan(free | dict(ruled.keep), elements)


def _filled_warnings(collection: Collection, plan: Plan) -> tuple[str, ...]:
    """What to know of weights that one number filled: pruned, they take their place in the file."""
    grown = [
        weight
        for weight in collection.weights
        if weight.place == "fill" and plan.keep.get(weight.name, weight.elements) < weight.elements
    ]
    if not grown:
        return ()
    size = sum(weight.elements * weight.dtype.itemsize for weight in grown)
    sentence = (
        f"{len(grown)} weights that ConstantOfShape filled with one number now take {size} bytes in the "
        "file; leave them out with --nodes-to-exclude if it should stay small"
    )
    return (sentence,)
