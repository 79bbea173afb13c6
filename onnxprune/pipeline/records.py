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
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hwmodel.estimate import TensorCycles  # noqa: TC001 - as above
from onnxprune.errors import RunError
from onnxprune.files import output_error, sha256_of, write_text
from onnxprune.model_io import data_files, load_model
from onnxprune.report import Verification  # noqa: TC001 - as above

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BEGUN, DONE = "begun.json", "step.json"

MODEL, BLOB, PACKED, OPTIMIZER = "model", "blob", "packed", "optimizer"
NAMES: Mapping[str, str] = {
    MODEL: "model.onnx",
    BLOB: "weights.swb",
    PACKED: "model.packed.onnx",
    OPTIMIZER: "optimizer.pt",
}
"""What a file of a step can be, and its name then."""


Digests = Mapping[str, str]
"""SHA-256 by name of file."""


@dataclass(frozen=True)
class Facts:
    """What the report or later steps must know of a step.

    Attributes:
        rows: of the calibration part, that steps calibrate on.
        methods: what was taken, by weight or part.
        warnings: sentences for the report.
        encoding: of the blob, in words.
        fetch: what fetching each weight costs, dense and as stored, by name.
        dense_cycles: what fetching the dense original's weights costs.
        memory, hardware: what was fetched from, and what stands behind it.
        packing: how the packed model compares with the model, where it was measured.
        verification: how all files compare.
    """

    rows: tuple[int, ...] | None = None
    methods: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    encoding: str | None = None
    fetch: Mapping[str, tuple[TensorCycles, TensorCycles]] | None = None
    dense_cycles: int | None = None
    memory: Mapping[str, Any] | None = None
    hardware: Mapping[str, Any] | None = None
    packing: Verification | None = None
    verification: Verification | None = None


@dataclass(frozen=True)
class Record:
    """What a finished step left.

    Attributes:
        fingerprint: of everything that it was made from.
        outputs: what it wrote: by kind of :data:`NAMES` the SHA-256 of its file, and of the files of a
            model's external data, by name.
        facts: what must be known of it.
        seconds: that it took.
    """

    fingerprint: str
    outputs: Mapping[str, Digests]
    facts: Facts = field(default_factory=Facts)
    seconds: float = 0.0

    __pydantic_config__ = ConfigDict(extra="forbid")


RECORD = TypeAdapter(Record)


def remove(path: Path) -> None:
    """Delete a folder, or a link, file or nothing where one could be; a link is not followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fingerprint_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256 of JSON values, hexadecimal."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


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
            record = RECORD.validate_json(file.read_bytes())
        except ValidationError as error:
            msg = f"'{file}' is damaged; delete its folder and resume again"
            raise RunError(msg) from error
        names = {name: digest for one in record.outputs.values() for name, digest in one.items()}
        plain = all("/" not in name and "\\" not in name for name in names)
        if not plain or any(NAMES.get(kind) not in one for kind, one in record.outputs.items()):
            msg = f"'{file}' names files that no step writes; delete its folder and resume again"
            raise RunError(msg)
        if record.fingerprint != fingerprint:
            return None
        known = all((self.path / name).is_file() for name in names)
        if known and all(sha256_of(self.path / name) == names[name] for name in names):
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
            if not (begun.is_file() and begun.read_bytes() == content.encode()):
                remove(self.path)
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / DONE).unlink(missing_ok=True)
            for torn in self.path.glob(".*.part"):  # a kill left it half-written
                torn.unlink()
        except OSError as error:
            raise output_error(self.path, error) from error
        write_text(begun, content)

    def finish(
        self,
        fingerprint: str,
        outputs: Sequence[str],
        facts: Facts,
        seconds: float,
    ) -> Record:
        """Write the record.

        Args:
            fingerprint: of what the step was made from.
            outputs: which kinds of files it wrote.
            facts: what must be known of it.
            seconds: that it took.
        """
        written = {kind: _with_data(self.path / NAMES[kind]) for kind in outputs}
        digests = {k: {file.name: sha256_of(file) for file in v} for k, v in written.items()}
        record = Record(fingerprint, digests, facts, round(seconds, 3))
        text = RECORD.dump_json(record, indent=2, exclude_defaults=True).decode()
        write_text(self.path / DONE, text + "\n")
        return record


def _with_data(path: Path) -> tuple[Path, ...]:
    """A file, and those of its external data where it is a model."""
    return (path, *(data_files(load_model(path)) if path.suffix == ".onnx" else ()))
