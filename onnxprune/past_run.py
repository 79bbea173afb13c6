"""Reading the folder of a finished run back, and setting two runs side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from onnxprune.errors import RunError
from onnxprune.formats import bytes_text, count_text, percent_text, points_text, rate_text
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.report import SCHEMA_VERSION, Report
from onnxprune.run_folder import RunFolder
from onnxprune.search.journal import read_trials

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxprune.report import Quality
    from onnxprune.search.problem import Trial


TOTALS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("weights left", "nonzeros", count_text),
    ("compression rate", "compression_rate", rate_text),
    ("packed model", "packed_bytes", bytes_text),
    ("blob", "blob_bytes", bytes_text),
    ("fetch cycles", "fetch_cycles", count_text),
)
"""What is compared of the totals: heading, field, and how it is shown."""


@dataclass(frozen=True)
class PastRun:
    """A run that came to its end.

    Attributes:
        path: of its folder.
        report: as it was written.
        recipe: resolved.
        trials: of its search.
    """

    path: Path
    report: Report
    recipe: Recipe
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Compared:
    """One figure of two runs, as text; ``change`` says what the second makes of the first."""

    name: str
    first: str
    second: str
    change: str


def open_past_run(path: str | Path) -> PastRun:
    """Read a run folder of ``compress`` or ``search``.

    Raises:
        RunError: when it is no run folder, its run has not ended, or a file in it is damaged.
    """
    folder = RunFolder(Path(path))
    if not folder.path.is_dir():
        msg = f"there is no run folder '{path}'; name the folder that compress or search wrote"
        raise RunError(msg)
    if not folder.report.is_file():
        state = (
            "its run has not ended; continue it with --resume"
            if folder.journal.exists()
            else "it is no run folder"
        )
        msg = f"'{path}' holds no report.json: {state}"
        raise RunError(msg)
    report = read_report(folder.report)
    recipe = load_recipe(folder.recipe, {}) if folder.recipe.exists() else Recipe()
    trials = tuple(read_trials(folder.journal)) if folder.journal.exists() else ()
    return PastRun(folder.path, report, recipe, trials)


def read_search(path: str | Path) -> tuple[Recipe, tuple[Trial, ...]]:
    """The recipe and the trials of a search, ended or not.

    Raises:
        RunError: when the folder holds no search, or a file in it is damaged.
    """
    folder = RunFolder(Path(path))
    if not folder.journal.is_file():
        msg = f"'{path}' holds no journal.jsonl: name the folder that search or compress wrote"
        raise RunError(msg)
    recipe = load_recipe(folder.recipe, {}) if folder.recipe.exists() else Recipe()
    return recipe, tuple(read_trials(folder.journal))


def read_report(path: Path) -> Report:
    """Read a ``report.json``.

    Raises:
        RunError: when it cannot be read, or is no report of this schema.
    """
    try:
        report = TypeAdapter(Report).validate_json(path.read_bytes())
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror}"
        raise RunError(msg) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        msg = f"'{path}' is not a report of this version ({where}: {first['msg']}); run again to write a new one"
        raise RunError(msg) from error
    if report.schema_version != SCHEMA_VERSION:
        msg = f"'{path}' has schema version {report.schema_version}; this release reads version {SCHEMA_VERSION}"
        raise RunError(msg)
    return report


def compare(first: Report, second: Report) -> tuple[Compared, ...]:
    """The figures that both reports hold, side by side."""
    rows = [
        Compared(name, form(one), form(two), f"{two / one:.3g} of the first")
        for name, field, form in TOTALS
        if (one := getattr(first.totals, field, None))
        and (two := getattr(second.totals, field, None))
    ]
    if first.quality and second.quality and first.quality.metric == second.quality.metric:
        one, two = first.quality, second.quality
        change = f"{points_text(two.compressed - one.compressed)} points"
        rows += [
            Compared(
                f"{one.metric} before", percent_text(one.baseline), percent_text(two.baseline), ""
            ),
            Compared(
                f"{one.metric} after",
                percent_text(one.compressed),
                percent_text(two.compressed),
                change,
            ),
            Compared("points lost", points_text(one.drop), points_text(two.drop), ""),
            Compared("95 % interval", _interval(one), _interval(two), ""),
        ]
    by_name = {weight.name: weight for weight in second.weights or ()}
    for weight in first.weights or ():
        if weight.name in by_name:
            other = by_name[weight.name]
            change = f"{points_text(other.sparsity - weight.sparsity)} points"
            name = f"sparsity of {weight.name}"
            rows.append(
                Compared(name, percent_text(weight.sparsity), percent_text(other.sparsity), change)
            )
    return tuple(rows)


def differences(first: PastRun, second: PastRun) -> tuple[str, ...]:
    """Why two runs may not be compared figure by figure, one sentence each."""
    sentences = []
    if first.report.model.sha256 != second.report.model.sha256:
        sentences.append("the runs began from different models")
    if first.recipe.data != second.recipe.data or first.recipe.seed != second.recipe.seed:
        sentences.append(
            "the runs split their data differently, so their scores are of different samples"
        )
    first_fetch = (first.report.memory, first.report.hardware)
    if first_fetch != (second.report.memory, second.report.hardware):
        sentences.append("the runs fetch from different memories")
    return tuple(sentences)


def _interval(quality: Quality) -> str:
    return " to ".join(map(points_text, quality.drop_ci95))
