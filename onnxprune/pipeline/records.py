"""The folder of one step: what it was made from, what it wrote, and whether that still stands.

A step leaves its files and ``step.json``, written last: the fingerprint of all that it was made from, the
SHA-256 of each file, and what the report needs to know. A step whose fingerprint and files are as the
record says is done. ``begun.json``, written first, says for which fingerprint an interrupted step left its
checkpoint or journal; those of another are deleted.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from onnxprune.errors import RunError
from onnxprune.files import output_error, write_text
from onnxprune.model_io import data_files, load_model

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BEGUN, DONE = "begun.json", "step.json"
BLOCK = 2**20


@dataclass(frozen=True)
class Record:
    """What a finished step left.

    Attributes:
        fingerprint: of everything that it was made from.
        files: SHA-256 by name of file in the step's folder.
        outputs: which of the files is what: ``model``, ``blob``, ``packed``, ``optimizer``.
        facts: what the report or later steps must know of it, as JSON values.
        seconds: that it took.
    """

    fingerprint: str
    files: Mapping[str, str]
    outputs: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def fingerprint_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, hexadecimal."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def digest_of(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def model_files(path: Path) -> tuple[Path, ...]:
    """A model's file and those of its external data."""
    return (path, *data_files(load_model(path)))


@dataclass(frozen=True)
class StepFolder:
    """The folder of one step."""

    path: Path

    def finished(self, fingerprint: str) -> Record | None:
        """The record of the step, where it was made from this and its files are as it left them.

        Raises:
            RunError: when the record is damaged.
        """
        file = self.path / DONE
        if not file.is_file():
            return None
        try:
            record = Record(**json.loads(file.read_text(encoding="utf-8")))
            names = dict(record.files)
        except (ValueError, TypeError, UnicodeDecodeError) as error:
            msg = f"'{file}' is damaged; delete its folder and resume again"
            raise RunError(msg) from error
        if record.fingerprint != fingerprint:
            return None
        inside = all("/" not in name and "\\" not in name for name in names)
        known = inside and all((self.path / name).is_file() for name in names)
        if known and all(digest_of(self.path / name) == names[name] for name in names):
            return record
        return None

    def begin(self, fingerprint: str) -> None:
        """Make the folder ready: what an interrupted step of this fingerprint left stays, all else goes.

        Raises:
            OutputError: when it cannot be written.
        """
        begun = self.path / BEGUN
        content = json.dumps({"fingerprint": fingerprint}) + "\n"
        try:
            if self.path.exists() and not (begun.is_file() and begun.read_text() == content):
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / DONE).unlink(missing_ok=True)
        except OSError as error:
            raise output_error(self.path, error) from error
        write_text(begun, content)

    def finish(
        self,
        fingerprint: str,
        outputs: Mapping[str, str],
        facts: Mapping[str, Any],
        seconds: float,
    ) -> Record:
        """Write the record.

        Args:
            fingerprint: of what the step was made from.
            outputs: which file of the folder is what.
            facts: JSON values.
            seconds: that it took.
        """
        written = [self.path / name for name in outputs.values()]
        if "model" in outputs:
            written += model_files(self.path / outputs["model"])[1:]
        files = {file.name: digest_of(file) for file in written}
        record = Record(fingerprint, files, dict(outputs), dict(facts), round(seconds, 3))
        write_text(self.path / DONE, json.dumps(asdict(record), indent=2) + "\n")
        return record
