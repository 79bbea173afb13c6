"""Commands from a model to a model, or to a look at one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import MODELS, app, finish
from onnxprune.cli.options import (
    Allocation,
    AsJson,
    CalibrationData,
    ComparedOn,
    Embeddings,
    EncodingText,
    Exclude,
    Memory,
    MethodName,
    Model,
    OpTypes,
    Output,
    PatternText,
    RandomSamples,
    RecipeFile,
    ReconstructName,
    Seed,
    Settings,
    TargetText,
    Threads,
)


@app.command(rich_help_panel=MODELS)
def inspect(model: Model, *, embeddings: Embeddings = False, as_json: AsJson = False) -> None:
    """Show the weights that can be pruned, their sparsity now, and why others are skipped.

    Example: onnxprune inspect models/lenet5.onnx
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.inspect(model, embeddings=embeddings, progress=progress)
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def prune(
    model: Model,
    output: Output,
    *,
    sparsity: Annotated[
        float | None,
        typer.Option(
            "--sparsity",
            help="Share of all prunable weights to set to zero, 0 to 1; N:M needs none.",
        ),
    ] = None,
    target: TargetText = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="JSON plan with the sparsity of each weight or node."),
    ] = None,
    recipe: RecipeFile = None,
    settings: Settings = None,
    data: CalibrationData = None,
    method: Annotated[
        MethodName | None,
        typer.Option(
            "--method",
            help="obs updates the weights that stay so that outputs change least, and picks admm or, for "
            "wide reductions, sparsegpt; exact is slow and for small ones.  \\[default: magnitude]",
            show_default=False,
        ),
    ] = None,
    allocation: Annotated[
        Allocation | None,
        typer.Option(
            "--allocation",
            help="How sparsity is shared between weights.  \\[default: loss where weights are updated, "
            "else uniform]",
            show_default=False,
        ),
    ] = None,
    pattern: PatternText = None,
    damping: Annotated[
        float | None,
        typer.Option(
            "--damping",
            help="Of the Hessian, the least, as a share of its mean diagonal.  \\[default: 0.01]",
            show_default=False,
        ),
    ] = None,
    sequential: Annotated[
        bool,
        typer.Option(
            "--sequential/--parallel",
            help="Whether each layer sees what its pruned predecessors give, or the dense model.",
        ),
    ] = True,
    bias_correction: Annotated[
        bool,
        typer.Option(help="Move biases so that mean outputs stay as they were."),
    ] = True,
    batch_norm: Annotated[
        bool,
        typer.Option(help="Estimate the statistics of BatchNormalization again."),
    ] = True,
    reconstruct: Annotated[
        ReconstructName | None,
        typer.Option(
            "--reconstruct",
            help="blocks then trains layers together towards the dense model's values, without labels; "
            "needs torch.",
        ),
    ] = None,
    encoding: EncodingText = None,
    memory: Memory = None,
    nodes_to_exclude: Exclude = None,
    op_types_to_prune: OpTypes = None,
    embeddings: Embeddings = False,
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Prune in one shot: no search, no labels, and for magnitude no data.

    Example: onnxprune prune model.onnx -o pruned.onnx --sparsity 0.8 --method obs --data calibration.npz
    """
    from onnxprune import api
    from onnxprune.pruning import options_of
    from onnxprune.recipe import load_recipe, read_settings
    from onnxprune.terminal import progress_bars

    given = {
        "prune.method": None if method is None else method.value,
        "prune.pattern": pattern,
        "prune.damping": damping,
        "prune.reconstruct": None if reconstruct is None else reconstruct.value,
        "seed": seed,
        "encode.encoding": encoding,
        "estimate.memory": memory,
    }
    resolved = load_recipe(recipe, given | read_settings(settings or ()))
    options = replace(
        options_of(resolved),
        allocation=None if allocation is None else allocation.value,
        sequential=sequential,
        bias_correction=bias_correction,
        batch_norm=batch_norm,
    )
    with progress_bars() as progress:
        report = api.prune(
            model,
            output,
            sparsity=sparsity,
            target=target,
            plan=plan,
            data=data,
            options=options,
            recipe=resolved,
            nodes_to_exclude=nodes_to_exclude or (),
            op_types_to_prune=op_types_to_prune,
            embeddings=embeddings,
            threads=threads,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def pack(
    model: Model,
    output: Output,
    *,
    values: Annotated[
        str,
        typer.Option(
            "--values",
            help="keep (bit for bit), or with a loss that is measured: float16, int8, codebookK (K = 2 to 256).",
        ),
    ] = "keep",
    positions: Annotated[
        str,
        typer.Option("--positions", help="auto takes the fewest bytes; bitmask, delta or rice."),
    ] = "auto",
    runtime: Annotated[
        str,
        typer.Option(
            "--runtime", help="Whose operators to suit: onnxruntime, openvino, reference."
        ),
    ] = "onnxruntime",
    opset: Annotated[
        int | None,
        typer.Option("--opset", min=1, help="Convert the model to this opset first."),
    ] = None,
    freeze_inputs: Annotated[
        bool,
        typer.Option("--freeze-inputs", help="Pack weights that are inputs too; then constants."),
    ] = False,
    large: Annotated[
        bool,
        typer.Option("--large", help="Pack weights of more than 1 GiB too; see the note."),
    ] = False,
    data: Annotated[
        str | None,
        typer.Option("--data", help="What a loss is measured on; random inputs when left out."),
    ] = None,
    samples: RandomSamples = 8,
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Write a small ONNX file whose sparse weights standard operators expand when it is loaded.

    Example: onnxprune pack pruned.onnx -o packed.onnx
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.pack(
            model,
            output,
            values=values,
            positions=positions,
            runtime=runtime,  # type: ignore[arg-type] # checked there, with the names allowed
            opset=opset,
            freeze_inputs=freeze_inputs,
            large=large,
            data=data,
            samples=samples,
            seed=seed or 0,
            threads=threads,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def unpack(model: Model, output: Output, *, as_json: AsJson = False) -> None:
    """Write the dense model with zeros that a packed model stands for, bit for bit.

    Example: onnxprune unpack packed.onnx -o pruned.onnx
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.unpack(model, output, progress=progress)
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def shrink(
    model: Model,
    output: Output,
    *,
    channel_multiple: Annotated[
        int,
        typer.Option(
            "--channel-multiple",
            min=1,
            help="Images keep a multiple of so many channels, as onnxruntime's fast convolutions need; 1: remove all.",
        ),
    ] = 4,
    data: ComparedOn = None,
    samples: RandomSamples = 8,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Remove channels that pruning left dead, with unchanged outputs.

    Example: onnxprune shrink pruned.onnx -o small.onnx
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.shrink(
            model,
            output,
            channel_multiple=channel_multiple,
            data=data,
            samples=samples,
            seed=seed or 0,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def accelerate(
    model: Model,
    output: Output,
    *,
    rows: Annotated[
        int,
        typer.Option(
            "--rows",
            min=1,
            help="Rows of activations (batch times sequence) to expect where the model leaves them open.",
        ),
    ] = 64,
    data: ComparedOn = None,
    samples: RandomSamples = 8,
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Make a pruned float32 model faster in stock onnxruntime, by sparse kernels where these win.

    The file runs everywhere, at dense speed where the kernels are not registered.

    Example: onnxprune accelerate pruned.onnx -o fast.onnx
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.accelerate(
            model,
            output,
            rows=rows,
            data=data,
            samples=samples,
            seed=seed or 0,
            threads=threads,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def bench(
    dense: Annotated[Path, typer.Argument(help="ONNX file to compare with.", show_default=False)],
    candidates: Annotated[
        list[Path], typer.Argument(help="ONNX files with the same inputs.", show_default=False)
    ],
    *,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of onnxruntime.")] = 1,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples of one run.")] = 1,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Rounds that count.")] = 21,
    data: Annotated[
        str | None,
        typer.Option("--data", help="What is fed; random inputs when left out."),
    ] = None,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8/--no-int8",
            help="Beside the dense model quantized dynamically by onnxruntime, which needs no pruning.",
        ),
    ] = True,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Measure latency, throughput, load time and memory of models in turn, with sparse kernels where there are.

    Example: onnxprune bench dense.onnx fast.onnx --batch 8 --threads 2
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.bench(
            dense,
            candidates,
            data=data,
            batch=batch,
            threads=threads,
            rounds=rounds,
            int8=int8,
            seed=seed or 0,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=MODELS)
def verify(
    reference: Annotated[Path, typer.Argument(help="ONNX file that is right.", show_default=False)],
    candidate: Annotated[
        Path, typer.Argument(help="ONNX file to compare with it.", show_default=False)
    ],
    *,
    data: Annotated[
        str | None,
        typer.Option("--data", help="As for compress; seeded random inputs when left out."),
    ] = None,
    samples: RandomSamples = 8,
    rtol: Annotated[float, typer.Option("--rtol", min=0, help="Relative tolerance.")] = 1e-3,
    atol: Annotated[
        float,
        typer.Option(
            "--atol", min=0, help="Absolute tolerance; 0 with --rtol 0 asks for equal bits."
        ),
    ] = 1e-5,
    seed: Seed = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Compare the outputs of two models in onnxruntime.

    Example: onnxprune verify pruned.onnx packed.onnx --rtol 0 --atol 0
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.verify(
            reference,
            candidate,
            data=data,
            samples=samples,
            rtol=rtol,
            atol=atol,
            seed=seed or 0,
            threads=threads,
            progress=progress,
        )
    finish(report, as_json=as_json)
