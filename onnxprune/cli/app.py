"""The application that commands register with, and how each of them ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import onnxprune

if TYPE_CHECKING:
    from onnxprune.report import Report

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""

JOB, MODELS, HARDWARE, TOOLS = "The main job", "Models", "Hardware", "Other tools"
"""Where commands stand in ``--help``."""

ORDER = (
    *("compress", "search", "report", "recipe"),
    *("inspect", "prune", "finetune", "shrink", "pack", "unpack", "verify"),
    *("encode", "decode", "export", "estimate"),
)
"""The order of commands in ``--help``; others follow."""


class _Commands(TyperGroup):
    """The commands in the order in which one meets them, not that of imports."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="onnxprune",
    cls=_Commands,
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
