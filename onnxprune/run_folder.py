"""The folder of one run: its files by name, made once, continued only on request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.errors import OutputError
from onnxprune.files import check_parent, output_error

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class RunFolder:
    """Paths of all that a run writes."""

    path: Path

    @property
    def model(self) -> Path:
        """The pruned model, dense with zeros."""
        return self.path / "model.onnx"

    @property
    def packed(self) -> Path:
        """The packed model."""
        return self.path / "model.packed.onnx"

    @property
    def blob(self) -> Path:
        """The encoded weights for hardware."""
        return self.path / "weights.swb"

    @property
    def plan(self) -> Path:
        """The sparsity of each weight."""
        return self.path / "plan.json"

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def journal(self) -> Path:
        """All trials."""
        return self.path / "journal.jsonl"

    @property
    def levels(self) -> Path:
        """The database of levels, while a search goes on."""
        return self.path / "levels"

    @property
    def steps(self) -> Path:
        """The folders of the recipe's steps, where it has some."""
        return self.path / "steps"

    @property
    def trials(self) -> Path:
        """Steps of trials, by fingerprint, while hyper-parameters of steps are searched."""
        return self.path / "trials"

    @property
    def rungs(self) -> Path:
        """How far each of these trials came."""
        return self.path / "rungs.jsonl"

    @property
    def found(self) -> Path:
        """The recipe with the hyper-parameters that were found."""
        return self.path / "found.yaml"

    @property
    def report(self) -> Path:
        """The report as JSON."""
        return self.path / "report.json"

    @property
    def page(self) -> Path:
        """The report as a page."""
        return self.path / "report.html"


def open_run(path: Path) -> RunFolder:
    """Make the folder, or take one that is there.

    Raises:
        OutputError: when its parent is missing, or it is a file, or cannot be written.
    """
    check_parent(path)
    if path.exists() and not path.is_dir():
        msg = f"cannot write run folder '{path}': it is a file; name a folder"
        raise OutputError(msg)
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise output_error(path, error) from error
    check_parent(path / "report.json")
    return RunFolder(path)
