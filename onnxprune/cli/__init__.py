"""The command line. Every command is a thin layer over the function of the same name in the API."""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import typer

from onnxprune.cli import (
    finetune_commands,
    hardware_commands,
    integration_commands,
    model_commands,
    report_commands,
    search_commands,
)
from onnxprune.cli.app import INTERRUPTED, app
from onnxprune.errors import OnnxPruneError

__all__ = [
    "app",
    "finetune_commands",
    "hardware_commands",
    "integration_commands",
    "main",
    "model_commands",
    "report_commands",
    "search_commands",
]

UsageError: Any = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
"""What typer raises for a wrong command line; its home is click or a copy of it inside typer."""


def main() -> None:
    """The entry point: runs a command and turns errors into one sentence and an exit status."""
    try:
        status = app(standalone_mode=False)
    except OnnxPruneError as error:
        _fail(str(error))
    except UsageError as error:
        _fail(f"{error.format_message().rstrip('.')}; see `{_help_command()}`")
    except MemoryError:
        _fail("there is not enough memory for this; use a smaller model or fewer samples")
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(INTERRUPTED) from None
    raise SystemExit(status or 0)


def command_names() -> list[str]:
    """All commands, in the order of ``--help``."""
    return [
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback
    ]


def _fail(sentence: str) -> NoReturn:
    sys.stderr.write(f"onnxprune: {sentence}\n")
    raise SystemExit(2) from None


def _help_command() -> str:
    known = command_names()
    given = next((word for word in sys.argv[1:] if word in known), "")
    return " ".join(["onnxprune", *([given] if given else []), "--help"])
