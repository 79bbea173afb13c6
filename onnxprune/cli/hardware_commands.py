"""Commands for the blob and the cycles that fetching it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from onnxprune.cli.app import HARDWARE, app, finish
from onnxprune.cli.options import AsJson, Embeddings, Model, Output

Align = Annotated[
    int, typer.Option("--align", min=1, help="Chunks begin at multiples of so many bytes.")
]
Decoder = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        help="Encodings that the hardware's decoder knows, separated by commas; all when left out.",
        show_default=False,
    ),
]


@app.command(rich_help_panel=HARDWARE)
def encode(
    model: Model,
    output: Output,
    *,
    encoding: Annotated[
        str,
        typer.Option(
            "--encoding",
            help="A name, auto (fewest bytes for each weight) or auto-cycles (fewest cycles from --memory).",
        ),
    ] = "auto",
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            min=0,
            help="Weights of a chunk that decodes alone; 0 for one chunk."
            "  \\[default: 1024 with auto-cycles, else 0]",
            show_default=False,
        ),
    ] = None,
    align: Align = 1,
    decoder: Decoder = None,
    decoder_lanes: Annotated[
        int, typer.Option("--decoder-lanes", min=1, help="For auto-cycles: lanes of the decoder.")
    ] = 1,
    decoder_width: Annotated[
        int,
        typer.Option(
            "--decoder-width", min=1, help="For auto-cycles: values that a lane places in a clock."
        ),
    ] = 1,
    memory: Annotated[
        str | None,
        typer.Option(
            "--memory",
            help="For auto-cycles: a memory by name, or a YAML file.",
            show_default=False,
        ),
    ] = None,
    embeddings: Embeddings = False,
    as_json: AsJson = False,
) -> None:
    """Write the sparse weight blob for hardware.

    Example: onnxprune encode pruned.onnx -o weights.swb --chunk 1024 --align 64 --decoder bitmask,rice
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.encode(
            model,
            output,
            encoding=encoding,
            chunk=chunk,
            align=align,
            decoder=_names(decoder),
            decoder_lanes=decoder_lanes,
            decoder_width=decoder_width,
            memory=memory,
            embeddings=embeddings,
            progress=progress,
        )
    finish(report, as_json=as_json)


@app.command(rich_help_panel=HARDWARE)
def decode(
    blob: Annotated[Path, typer.Argument(help="Weight blob (.swb).", show_default=False)],
    output: Output,
    *,
    as_json: AsJson = False,
) -> None:
    """Decode a weight blob to an .npz, one array for each weight, bit for bit.

    Example: onnxprune decode weights.swb -o weights.npz
    """
    from onnxprune import api
    from onnxprune.terminal import progress_bars

    with progress_bars() as progress:
        report = api.decode(blob, output, progress=progress)
    finish(report, as_json=as_json)


@app.command(rich_help_panel=HARDWARE)
def export(
    blob: Annotated[Path, typer.Argument(help="Weight blob (.swb).", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File to write: .bin, .memh (Verilog's $readmemh), .c or .h.",
            show_default=False,
        ),
    ],
    *,
    tensor: Annotated[
        str | None,
        typer.Option(
            "--tensor", help="Only the segments of this one, not the file.", show_default=False
        ),
    ] = None,
    word_bytes: Annotated[int, typer.Option("--word-bytes", min=1, help="Of a word of .memh.")] = 8,
) -> None:
    """Write a weight blob, or one tensor of it, as a memory image for a test bench or firmware.

    Example: onnxprune export weights.swb -o conv1.memh --tensor conv1.weight --word-bytes 16
    """
    from onnxprune import api

    api.export(blob, output, tensor=tensor, word_bytes=word_bytes)


@app.command(rich_help_panel=HARDWARE)
def estimate(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL|BLOB", help="ONNX file or weight blob (.swb).", show_default=False
        ),
    ],
    *,
    memory: Annotated[
        str,
        typer.Option(
            "--memory",
            help="Memories by name, or YAML files of your own, separated by commas.",
        ),
    ] = "ddr4-2400",
    encoding: Annotated[
        str | None,
        typer.Option(
            "--encoding",
            help="For a model, separated by commas: names, auto (fewest bytes for each weight) or auto-cycles.",
            show_default="auto",
        ),
    ] = None,
    decoder_lanes: Annotated[
        str | None,
        typer.Option(
            "--decoder-lanes",
            help="Lanes of the decoder, separated by commas; the fetch alone when left out.",
            show_default=False,
        ),
    ] = None,
    decoder_width: Annotated[
        int, typer.Option("--decoder-width", min=1, help="Values that a lane places in a clock.")
    ] = 1,
    chunk: Annotated[
        int | None,
        typer.Option(
            "--chunk",
            min=0,
            help="Weights of a chunk; 0 for one chunk.",
            show_default="1024 with a decoder, else 0",
        ),
    ] = None,
    align: Align = 1,
    decoder: Decoder = None,
    compute_lanes: Annotated[
        int,
        typer.Option(
            "--compute-lanes", min=0, help="Units that take a nonzero weight a clock; 0 for none."
        ),
    ] = 0,
    clock_ratio: Annotated[
        float, typer.Option("--clock-ratio", help="Clocks of the accelerator in one of the memory.")
    ] = 1.0,
    buffers: Annotated[
        int,
        typer.Option("--buffers", min=1, help="1 single, 2 double buffering, more to prefetch."),
    ] = 2,
    buffer_bytes: Annotated[
        int, typer.Option("--buffer-bytes", min=1, help="Encoded bytes that a buffer takes.")
    ] = 4096,
    embeddings: Embeddings = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Write the points to a .csv, .json or .html file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the cycles that fetching each weight takes, against dense.

    Every memory is combined with every encoding and every number of lanes.

    Example: onnxprune estimate pruned.onnx --memory ddr4-2400,lpddr5-6400 --encoding bitmask,rice
    --decoder-lanes 1,4,16 -o points.csv
    """
    from onnxprune import api
    from onnxprune.points_file import check_points_file, write_points
    from onnxprune.terminal import progress_bars

    if output:
        check_points_file(output)
    with progress_bars() as progress:
        report = api.estimate(
            source,
            memory=memory,
            encoding=encoding,
            decoder_lanes=_numbers(decoder_lanes, "--decoder-lanes"),
            decoder_width=decoder_width,
            chunk=chunk,
            align=align,
            decoder=_names(decoder),
            compute_lanes=compute_lanes,
            clock_ratio=clock_ratio,
            buffers=buffers,
            buffer_bytes=buffer_bytes,
            embeddings=embeddings,
            progress=progress,
        )
    if output:
        write_points(report, output)
    finish(report, as_json=as_json)


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in text.split(",")] if text else []


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    from onnxprune.errors import RecipeError

    if text is None:
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        msg = f"{option} takes whole numbers separated by commas, such as 1,4,16; found '{text}'"
        raise RecipeError(msg) from None
