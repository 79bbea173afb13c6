"""Options that several commands share, each with its one meaning and help."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Allocation(StrEnum):
    """How sparsity is shared between weights."""

    UNIFORM = "uniform"
    GLOBAL = "global"
    ERK = "erk"
    LAMP = "lamp"
    OWL = "owl"
    LOSS = "loss"


class ReconstructName(StrEnum):
    """What follows on the solution of each layer."""

    LAYERS = "layers"
    BLOCKS = "blocks"


class MethodName(StrEnum):
    """How weights are chosen, and what becomes of those that stay."""

    MAGNITUDE = "magnitude"
    WANDA = "wanda"
    OBS = "obs"
    ADMM = "admm"
    EXACT = "exact"
    SPARSEGPT = "sparsegpt"


class ControllerName(StrEnum):
    """Who searches."""

    AUTO = "auto"
    BAYES = "bayes"
    EVOLUTION = "evolution"
    RANDOM = "random"
    RL = "rl"


class ObjectiveName(StrEnum):
    """What a search is for."""

    COST = "cost"
    DROP = "drop"
    FRONT = "front"


class BackendName(StrEnum):
    """Who runs the workers."""

    LOCAL = "local"
    DASK = "dask"
    RAY = "ray"


Model = Annotated[Path, typer.Argument(help="ONNX file.", show_default=False)]
Output = Annotated[Path, typer.Option("-o", "--output", help="File to write.", show_default=False)]
RunFolder = Annotated[
    Path, typer.Option("-o", "--output", help="Run folder to write.", show_default=False)
]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="An .npz (an array for each input, first axis = samples; labels under 'labels'), a folder of such "
        "files, or module:function.",
        show_default=False,
    ),
]
CalibrationData = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Calibration samples, labels not needed: an .npz (an array for each input, first axis = samples), "
        "a folder of such files, module:function, or 'random' to try things out.",
        show_default=False,
    ),
]
PatternText = Annotated[
    str | None,
    typer.Option(
        "--pattern",
        help="unstructured, N:M (2:4), RxC (4x1), channel, balanced:LxB, segments:LxB or burst:MEMORY.  \\[default: unstructured]",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", help="Of all randomness.  \\[default: 0]", show_default=False),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of onnxruntime.", show_default=False)
]
ComparedOn = Annotated[
    str | None,
    typer.Option("--data", help="What outputs are compared on; random inputs when left out."),
]
RandomSamples = Annotated[
    int, typer.Option("--samples", min=1, help="Random samples when there are no data.")
]
RecipeFile = Annotated[
    Path | None,
    typer.Option(
        "--recipe", help="YAML recipe, or label-free, l-half or hardware; options go over it."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.field=value over the recipe; may be repeated."),
]
MaxDrop = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        help="Most score to lose, absolute: 0.01 is a point.  \\[default: 0.01]",
        show_default=False,
    ),
]
TargetText = Annotated[
    str | None,
    typer.Option(
        "--target",
        help="10x (compression rate), 200kB (packed file), 200kB:blob, 500000cycles.",
        show_default=False,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", help="Candidates to evaluate.  \\[default: 100]", show_default=False),
]
Controller = Annotated[
    ControllerName | None,
    typer.Option("--controller", help="Who searches.  \\[default: auto]", show_default=False),
]
Objective = Annotated[
    ObjectiveName | None,
    typer.Option(
        "--objective",
        help="cost: the smallest model that keeps --max-drop; drop: the best one within --target; front: the best "
        "one at every size.  \\[default: cost]",
        show_default=False,
    ),
]
WorkerCount = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Trials made at the same time.  \\[default: 1]", show_default=False
    ),
]
Backend = Annotated[
    BackendName | None,
    typer.Option(
        "--backend",
        help="Who runs the workers; dask and ray need --set search.scheduler=ADDRESS.  \\[default: local]",
        show_default=False,
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        "--metric", help="top1, top5, agreement, fidelity or module:function.", show_default=False
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        help="Memory that the blob is fetched from: a name, or a YAML file.",
        show_default=False,
    ),
]
EncodingText = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of the blob, where the target is of it.  \\[default: auto]",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was interrupted.")]
Exclude = Annotated[
    list[str] | None,
    typer.Option("--nodes-to-exclude", help="Node or weight to leave dense; may be repeated."),
]
Embeddings = Annotated[
    bool, typer.Option("--embeddings", help="Count embeddings (Gather) among the weights.")
]
OpTypes = Annotated[
    list[str] | None,
    typer.Option(
        "--op-types-to-prune", help="Operator to prune; may be repeated. All when left out."
    ),
]
