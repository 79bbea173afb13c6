"""The application that commands register with, and how each of them ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

import onnxprune

if TYPE_CHECKING:
    from onnxprune.report import Report

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="onnxprune",
    help="Compress any exported ONNX model: prune, pack, encode for hardware, verify, and report.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(onnxprune.__version__)
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass


def finish(report: Report, *, as_json: bool) -> None:
    """Print the report; exit status 1 when a target or check was not met."""
    if as_json:
        sys.stdout.write(report.to_json())
    else:
        from onnxprune.terminal import show

        show(report)
    raise typer.Exit(0 if report.succeeded else 1)
