"""Commands that search: ``search`` and the main job, ``compress``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onnxprune.cli.app import INTERRUPTED, JOB, app, finish
from onnxprune.cli.options import (
    AsJson,
    Backend,
    Controller,
    Data,
    Exclude,
    MaxDrop,
    Memory,
    Metric,
    Model,
    Objective,
    OpTypes,
    RecipeFile,
    Resume,
    RunFolder,
    Seed,
    Settings,
    TargetText,
    Threads,
    Trials,
    WorkerCount,
)

if TYPE_CHECKING:
    from onnxprune.recipe import Recipe


def _show(folder: Path | None) -> None:
    if folder is None:
        return
    from onnxprune.past_run import read_search
    from onnxprune.search.problem import front
    from onnxprune.terminal import show_front

    recipe, trials = read_search(folder)
    show_front(recipe, trials, front(trials))
    raise typer.Exit


@app.command(rich_help_panel=JOB)
def search(
    model: Model,
    output: RunFolder,
    data: Data,
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    max_drop: MaxDrop = None,
    target: TargetText = None,
    controller: Controller = None,
    objective: Objective = None,
    trials: Trials = None,
    workers: WorkerCount = None,
    backend: Backend = None,
    metric: Metric = None,
    memory: Memory = None,
    nodes_to_exclude: Exclude = None,
    op_types_to_prune: OpTypes = None,
    seed: Seed = None,
    threads: Threads = None,
    resume: Resume = False,
    as_json: AsJson = False,
    show: Annotated[
        Path | None,
        typer.Option(
            "--show",
            help="Print the trials of a run folder that no other beats, and exit.",
            is_eager=True,
            callback=_show,
            show_default=False,
        ),
    ] = None,
) -> None:
    """Search the sparsity of each weight that keeps the accuracy floor; write the pruned model.

    Example: onnxprune search models/lenet5.onnx --data models/lenet5-data.npz -o runs/search --trials 50
    """
    del show  # its callback has been called
    from onnxprune.recipe import load_recipe, read_settings

    resolved = load_recipe(
        recipe,
        {
            "max_drop": max_drop,
            "target": target,
            "seed": seed,
            "data.metric": metric,
            "search.controller": controller.value if controller else None,
            "search.objective": objective.value if objective else None,
            "search.trials": trials,
            "search.workers": workers,
            "search.backend": backend.value if backend else None,
            "prune.nodes_to_exclude": nodes_to_exclude,
            "prune.op_types_to_prune": op_types_to_prune,
            "estimate.memory": memory,
        }
        | read_settings(settings or ()),
    )
    _search(model, output, data, resolved, threads, resume=resume, full=False, as_json=as_json)


@app.command(rich_help_panel=JOB)
def compress(
    model: Model,
    output: RunFolder,
    data: Data,
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    max_drop: MaxDrop = None,
    target: TargetText = None,
    controller: Controller = None,
    objective: Objective = None,
    trials: Trials = None,
    workers: WorkerCount = None,
    backend: Backend = None,
    metric: Metric = None,
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding", help="Encoding of the blob.  \\[default: auto]", show_default=False
        ),
    ] = None,
    memory: Memory = None,
    nodes_to_exclude: Exclude = None,
    op_types_to_prune: OpTypes = None,
    seed: Seed = None,
    threads: Threads = None,
    resume: Resume = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Say what would be done and about how long it takes; write nothing."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """The main job: search, prune, pack, encode, estimate, verify and report, into one folder.

    Example: onnxprune compress models/lenet5.onnx --data models/lenet5-data.npz -o runs/lenet5
    """
    from onnxprune.recipe import load_recipe, read_settings

    resolved = load_recipe(
        recipe,
        {
            "max_drop": max_drop,
            "target": target,
            "seed": seed,
            "data.metric": metric,
            "search.controller": controller.value if controller else None,
            "search.objective": objective.value if objective else None,
            "search.trials": trials,
            "search.workers": workers,
            "search.backend": backend.value if backend else None,
            "prune.nodes_to_exclude": nodes_to_exclude,
            "prune.op_types_to_prune": op_types_to_prune,
            "encode.encoding": encoding,
            "estimate.memory": memory,
        }
        | read_settings(settings or ()),
    )
    if dry_run:
        from onnxprune import api

        finish(
            api.compress(model, data, output, resolved, dry_run=True, threads=threads),
            as_json=as_json,
        )
    _search(model, output, data, resolved, threads, resume=resume, full=True, as_json=as_json)


@app.command("recipe", rich_help_panel=JOB)
def show_recipe(
    recipe: Annotated[
        Path | None, typer.Argument(help="YAML recipe; the defaults when left out.")
    ] = None,
    *,
    settings: Settings = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes, for editors.")
    ] = False,
) -> None:
    """Print a recipe with every field resolved, ready to be edited.

    Example: onnxprune recipe --set max_drop=0.005 --set search.trials=200 > recipe.yaml
    """
    from onnxprune.recipe import load_recipe, read_settings, recipe_schema

    resolved = load_recipe(recipe, read_settings(settings or ()))
    sys.stdout.write(recipe_schema() if schema else resolved.to_yaml())


def _search(
    model: Path,
    output: Path,
    data: str,
    recipe: Recipe,
    threads: int | None,
    *,
    resume: bool,
    full: bool,
    as_json: bool,
) -> None:
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    job = api.compress if full else api.search
    try:
        with progress_bars() as progress:
            report = job(
                model, data, output, recipe, resume=resume, threads=threads, progress=progress
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"onnxprune: interrupted; continue '{output}' with --resume\n")
        raise typer.Exit(INTERRUPTED) from None
    finish(report, as_json=as_json)
