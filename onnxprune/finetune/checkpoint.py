"""Checkpoints: all that a training run needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import pickle  # only to name the error of torch's safe reader; nothing is unpickled here
import struct
from typing import TYPE_CHECKING, Any

import torch

from onnxprune.errors import RunError
from onnxprune.files import write_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

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
    found, state = _read(path)
    if found != identity:
        msg = (
            f"the checkpoint '{path}' is of another model, data or recipe; give those again, or run "
            "without --resume"
        )
        raise RunError(msg)
    return state


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    """Whose state a file holds, and the state."""
    if not path.is_file():
        msg = f"there is no checkpoint '{path}' to resume from; run without --resume"
        raise RunError(msg)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        *(RuntimeError, EOFError, OSError, KeyError, ValueError, pickle.UnpicklingError),
        *(AttributeError, TypeError, IndexError, struct.error, RecursionError),
    ) as error:
        msg = f"the checkpoint '{path}' is damaged; delete it and run without --resume"
        raise RunError(msg) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        msg = f"'{path}' is no checkpoint of this version; delete it and run without --resume"
        raise RunError(msg)
    identity, state = content.get("identity"), content.get("state")
    if not isinstance(identity, str) or not isinstance(state, dict):
        msg = f"the checkpoint '{path}' is damaged; delete it and run without --resume"
        raise RunError(msg)
    return identity, state


def save_moments(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write what an optimizer remembers of each parameter, for another run that goes on from here."""
    held = {
        name: dict(optimizer.state[parameter])
        for name, parameter in module.named_parameters()
        if parameter in optimizer.state
    }
    save_checkpoint(path, type(optimizer).__name__, held)


def load_moments(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Let an optimizer go on from what :func:`save_moments` wrote.

    What another kind of optimizer remembered is of no use to it, nor what was remembered of a
    parameter that has another shape now; it begins anew there.

    Raises:
        RunError: when the file is missing or damaged.
    """
    kind, held = _read(path)
    if kind != type(optimizer).__name__:
        return
    for name, parameter in module.named_parameters():
        known = held.get(name)
        if (
            isinstance(known, dict)
            and known
            and all(_fits(k, v, parameter) for k, v in known.items())
        ):
            optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in known.items()}


def _fits(key: str, value: object, parameter: nn.Parameter) -> bool:
    """Whether a value can be what an optimizer remembers of a parameter: a count of steps, or one of its shape."""
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return False
    return value.shape == (torch.Size([]) if key == "step" else parameter.shape)
