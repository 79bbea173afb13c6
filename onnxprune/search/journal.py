"""The journal of a search: one line a trial, safe against being killed at any moment.

The first line says what is searched; a journal is resumed only by the same search. Each trial is
one line of JSON, flushed to the disk before the next begins. A line that a kill tore is dropped.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, final

from onnxprune.errors import RunError
from onnxprune.files import output_error
from onnxprune.search.controller import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@final
class Journal:
    """Trials on disk.

    Args:
        path: of the journal; made when missing.
        header: what identifies the search (JSON values).
        resume: whether a journal that is there may be continued.

    Raises:
        RunError: when a journal is there and ``resume`` is False, or its header differs, or it is
            damaged other than at its torn last line.
        OutputError: when it cannot be written.
    """

    def __init__(self, path: Path, header: Mapping[str, Any], *, resume: bool) -> None:
        self.path = path
        self.trials: list[Trial] = []
        if path.exists():
            if not resume:
                msg = f"'{path.parent}' already holds a search; add --resume or name another folder"
                raise RunError(msg)
            self._restore(header)
        else:
            self._append({"header": dict(header)})

    def add(self, trial: Trial) -> None:
        """Write one trial and see it to the disk.

        Raises:
            OutputError: when it cannot be written.
        """
        self._append({"trial": len(self.trials), **asdict(trial)})
        self.trials.append(trial)

    def _append(self, record: Mapping[str, Any]) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise output_error(self.path, error) from error

    def _restore(self, header: Mapping[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        found, trials = _parse(whole, self.path)
        begun = found is not None
        found = dict(header) if found is None else found
        changed = sorted(key for key in {*found, *header} if found.get(key) != header.get(key))
        if changed:
            msg = (
                f"'{self.path}' belongs to another search: {', '.join(changed)} changed; "
                "restore the old setting or name another folder"
            )
            raise RunError(msg)
        if len(whole) < len(content):
            with self.path.open("rb+") as file:
                file.truncate(len(whole))
        if not begun:
            self._append({"header": dict(header)})
        self.trials = trials


def read_trials(path: Path) -> list[Trial]:
    """The trials of a journal, whatever search it belongs to.

    Raises:
        RunError: when it cannot be read or is damaged.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror}"
        raise RunError(msg) from error
    return _parse(content[: content.rfind(b"\n") + 1], path)[1]


def _parse(lines: bytes, path: Path) -> tuple[dict[str, Any] | None, list[Trial]]:
    """Header (None when there is no line at all) and trials."""
    try:
        records = [json.loads(line) for line in lines.splitlines()]
        header = dict(records[0]["header"]) if records else None
        return header, [_trial(record, number) for number, record in enumerate(records[1:])]
    except (ValueError, KeyError, TypeError) as error:
        msg = f"'{path}' is damaged ({error}); start again in another folder"
        raise RunError(msg) from error


def _trial(record: Mapping[str, Any], number: int) -> Trial:
    if record["trial"] != number:
        msg = f"trial {number} is missing"
        raise ValueError(msg)
    levels = tuple(int(level) for level in record["levels"])
    return Trial(levels, float(record["cost"]), float(record["drop"]), float(record["drop_upper"]))
