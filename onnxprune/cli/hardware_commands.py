"""Commands for the blob and the cycles that fetching it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import app, finish
from onnxprune.cli.options import AsJson, Embeddings, Model, Output


@app.command()
def encode(
    model: Model,
    output: Output,
    *,
    encoding: Annotated[
        str, typer.Option("--encoding", help="auto takes the fewest bytes for each weight.")
    ] = "auto",
    embeddings: Embeddings = False,
    as_json: AsJson = False,
) -> None:
    """Write the sparse weight blob for hardware.

    Example: onnxprune encode pruned.onnx -o weights.swb
    """
    from onnxprune import api

    report = api.encode(model, output, encoding=encoding, embeddings=embeddings)
    finish(report, as_json=as_json)


@app.command()
def decode(
    blob: Annotated[Path, typer.Argument(help="Weight blob (.swb).", show_default=False)],
    output: Output,
) -> None:
    """Decode a weight blob to an .npz, one array for each weight, bit for bit.

    Example: onnxprune decode weights.swb -o weights.npz
    """
    from onnxprune import api

    api.decode(blob, output)


@app.command()
def estimate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|BLOB", help="ONNX file or weight blob (.swb).", show_default=False
        ),
    ],
    *,
    memory: Annotated[str, typer.Option("--memory", help="Memory by name.")] = "ddr4-2400",
    encoding: Annotated[
        str,
        typer.Option(
            "--encoding", help="For a model: auto takes the fewest bytes for each weight."
        ),
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Estimate the cycles that fetching each weight takes, against dense.

    Example: onnxprune estimate pruned.onnx --memory lpddr4-2400
    """
    from onnxprune import api

    finish(api.estimate(source, memory=memory, encoding=encoding), as_json=as_json)
