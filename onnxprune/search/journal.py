"""The journal of a search: one line a trial, safe against being killed at any moment.

The first line says what is searched; a journal is resumed only by the same search. Each trial is
one line of JSON, flushed to the disk before the next begins; so is each finishing try that follows them
(:mod:`onnxprune.search.finish`). A line that a kill tore is dropped.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, final

from onnxprune.errors import RunError
from onnxprune.files import append_line, whole_lines
from onnxprune.search.problem import Trial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Finish:
    """One finishing try.

    Attributes:
        finish: the number of the trial whose plan is finished.
        shift: by how many halvings of density it is pruned more than that plan.
        cost: as it was measured.
        drop, drop_upper, samples, complete: as of a trial.
    """

    finish: int
    shift: float
    cost: float
    drop: float
    drop_upper: float
    samples: int
    complete: bool


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
        self.finishes: list[Finish] = []
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

    def add_finish(self, finish: Finish) -> None:
        """Write one finishing try and see it to the disk.

        Raises:
            OutputError: when it cannot be written.
        """
        self._append(asdict(finish))
        self.finishes.append(finish)

    def _append(self, record: Mapping[str, Any]) -> None:
        append_line(self.path, json.dumps(record))

    def _restore(self, header: Mapping[str, Any]) -> None:
        content = self.path.read_bytes()
        whole = whole_lines(content)
        found, trials, finishes = _parse(whole, self.path)
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
        self.trials, self.finishes = trials, finishes


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
    return _parse(whole_lines(content), path)[1]


def _parse(lines: bytes, path: Path) -> tuple[dict[str, Any] | None, list[Trial], list[Finish]]:
    """Header (None when there is no line at all), trials and finishing tries."""
    try:
        records = [json.loads(line) for line in lines.splitlines()]
        header = dict(records[0]["header"]) if records else None
        trials = [_trial(r, n) for n, r in enumerate(r for r in records[1:] if "trial" in r)]
        finishes = [_finish(r) for r in records[1:] if "trial" not in r]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        msg = f"'{path}' is damaged ({error}); start again in another folder"
        raise RunError(msg) from error
    return header, trials, finishes


def _trial(record: Mapping[str, Any], number: int) -> Trial:
    if record["trial"] != number:
        msg = f"trial {number} is missing"
        raise ValueError(msg)
    levels = tuple(int(level) for level in record["levels"])
    return Trial(levels, float(record["cost"]), *_outcome(record))


def _finish(record: Mapping[str, Any]) -> Finish:
    return Finish(
        int(record["finish"]), float(record["shift"]), float(record["cost"]), *_outcome(record)
    )


def _outcome(record: Mapping[str, Any]) -> tuple[float, float, int, bool]:
    drops = float(record["drop"]), float(record["drop_upper"])
    return (*drops, int(record["samples"]), bool(record["complete"]))
