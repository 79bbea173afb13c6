"""Checkpoints: all that a training run needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import pickle  # only to name the error of torch's safe reader; nothing is unpickled here
from typing import TYPE_CHECKING, Any

import torch

from onnxprune.errors import RunError
from onnxprune.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 2
"""Of what a state holds: another version's is refused by a sentence, not read halfway."""


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Write a checkpoint; a run that is killed meanwhile leaves the one before.

    Args:
        path: of the file.
        identity: of the run: model, data and settings.
        state: tensors, numbers, strings, lists and dictionaries of them.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": identity, "state": state}, buffer)
    write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path, identity: str) -> dict[str, Any]:
    """Read a checkpoint of the run of that identity; nothing but plain values is ever unpickled.

    Raises:
        RunError: when it is missing, damaged, or of another run.
    """
    if not path.is_file():
        msg = f"there is no checkpoint '{path}' to resume from; run without --resume"
        raise RunError(msg)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError) as error:
        msg = f"the checkpoint '{path}' is damaged; delete it and run without --resume"
        raise RunError(msg) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        msg = f"'{path}' is no checkpoint of this version; delete it and run without --resume"
        raise RunError(msg)
    if content["identity"] != identity:
        msg = (
            f"the checkpoint '{path}' is of another model, data or recipe; give those again, or run "
            "without --resume"
        )
        raise RunError(msg)
    state: dict[str, Any] = content["state"]
    return state
