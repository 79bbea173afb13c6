"""The command that trains."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import INTERRUPTED, MODELS, app, finish
from onnxprune.cli.options import (
    AsJson,
    Data,
    Exclude,
    MaxDrop,
    Metric,
    Model,
    OpTypes,
    Output,
    RecipeFile,
    Resume,
    Seed,
    Settings,
    Threads,
)


class PenaltyName(StrEnum):
    """What pulls weights to zero."""

    L_HALF = "l_half"
    L1 = "l1"
    L2 = "l2"
    GROUP_L_HALF = "group_l_half"
    GROUP_L1 = "group_l1"
    NONE = "none"


@app.command(rich_help_panel=MODELS)
def finetune(
    model: Model,
    output: Output,
    data: Data,
    *,
    recipe: RecipeFile = None,
    settings: Settings = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="Compression rate to prune to, such as 50x. Without it, zeros stay and the rest recovers.",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", help="JSON plan with the sparsity of each weight, in place of a target."
        ),
    ] = None,
    penalty: Annotated[
        PenaltyName | None,
        typer.Option(
            "--penalty", help="What pulls weights to zero.  \\[default: l_half]", show_default=False
        ),
    ] = None,
    test_data: Annotated[
        str | None,
        typer.Option(
            "--test-data",
            help="Data to report on; a share of --data when left out.",
            show_default=False,
        ),
    ] = None,
    validation_data: Annotated[
        str | None,
        typer.Option(
            "--validation-data",
            help="Data that choose the epoch; a share of --data when left out.",
            show_default=False,
        ),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option(
            "--teacher",
            help="Dense model to learn from; the model as it comes in when left out.",
            show_default=False,
        ),
    ] = None,
    max_drop: MaxDrop = None,
    metric: Metric = None,
    nodes_to_exclude: Exclude = None,
    op_types_to_prune: OpTypes = None,
    device: Annotated[
        str, typer.Option("--device", help="auto (a GPU where there is one), cpu, cuda, cuda:1.")
    ] = "auto",
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="File for checkpoints; beside the output when left out."),
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    resume: Resume = False,
    as_json: AsJson = False,
) -> None:
    """Train the model's own weights, pruning them on the way; needs the extra "torch".

    Example: onnxprune finetune models/lenet300.onnx --data train.npz -o sparse.onnx --target 50x
    """
    from onnxprune import api
    from onnxprune.recipe import load_recipe, read_settings
    from onnxprune.terminal import progress_bars

    resolved = load_recipe(
        recipe,
        {
            "max_drop": max_drop,
            "target": target,
            "seed": seed,
            "data.metric": metric,
            "prune.nodes_to_exclude": nodes_to_exclude,
            "prune.op_types_to_prune": op_types_to_prune,
            "finetune.penalty.name": penalty.value if penalty else None,
        }
        | read_settings(settings or ()),
    )
    try:
        with progress_bars() as progress:
            report = api.finetune(
                model,
                data,
                output,
                resolved,
                plan=plan,
                held_out=test_data,
                validation=validation_data,
                teacher=teacher,
                checkpoint=checkpoint,
                resume=resume,
                device=device,
                threads=threads,
                progress=progress,
            )
    except KeyboardInterrupt:
        sys.stderr.write(f"onnxprune: interrupted; continue '{output}' with --resume\n")
        raise typer.Exit(INTERRUPTED) from None
    if os.environ.get("RANK", "0") == "0":
        finish(report, as_json=as_json)
