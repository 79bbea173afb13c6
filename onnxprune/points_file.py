"""The points of a design space as a file: CSV, JSON or a page with a plot."""

from __future__ import annotations

import csv
import io
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from hwmodel.estimate import TensorCycles
from onnxprune.errors import OutputError
from onnxprune.files import check_parent, write_text

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.report import DesignPoint, Report

SUFFIXES = (".csv", ".json", ".html")
ALL_WEIGHTS = "(all)"
_FETCH = [field.name for field in fields(TensorCycles)]
_HEAD = ["memory", "encoding", "decoder_lanes", "weight", "stored_as", "encoded_bytes"]
_TAIL = ["dense_cycles", "microseconds"]


def check_points_file(path: Path) -> None:
    """Check that points can be written to a file of that name.

    Raises:
        OutputError: naming the endings that are known, or the folder that is missing.
    """
    if path.suffix not in SUFFIXES:
        msg = f"cannot write points to '{path}': its name must end in {', '.join(SUFFIXES)}"
        raise OutputError(msg)
    check_parent(path)


def write_points(report: Report, path: Path) -> None:
    """Write what a report says about points, in the form that the file's name asks for.

    CSV has a row for each weight at each point, and one for all weights together, whose name is
    ``(all)``; JSON is the whole report.

    Raises:
        OutputError: when it cannot be written.
    """
    check_points_file(path)
    if path.suffix == ".csv":
        write_text(path, _csv(report))
    elif path.suffix == ".json":
        write_text(path, report.to_json())
    else:
        from onnxprune.html import render

        write_text(path, render(report, recipe="", max_drop=0.0))


def _csv(report: Report) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, [*_HEAD, *_FETCH, *_TAIL], restval="", lineterminator="\n")
    writer.writeheader()
    for point in report.points or ():
        where = {
            "memory": point.memory,
            "encoding": point.encoding,
            "decoder_lanes": "" if point.decoder_lanes is None else point.decoder_lanes,
        }
        for weight in point.weights:
            cycles = {name: getattr(weight.fetch, name) for name in _FETCH}
            writer.writerow(
                where
                | {"weight": weight.name, "stored_as": weight.encoding}
                | {"encoded_bytes": weight.encoded_bytes}
                | _plain(cycles)
            )
        writer.writerow(where | _plain(_sums(point)))
    return file.getvalue()


def _sums(point: DesignPoint) -> dict[str, Any]:
    parts = ("payload_bytes", "metadata_bytes", "padding_bytes")
    return {
        "weight": ALL_WEIGHTS,
        "encoded_bytes": point.encoded_bytes,
        **{name: sum(getattr(one.fetch, name) for one in point.weights) for name in parts},
        "fetched_bytes": point.fetched_bytes,
        "memory_cycles": point.memory_cycles,
        "decode_cycles": point.decode_cycles,
        "compute_cycles": point.compute_cycles,
        "stall_cycles": point.stall_cycles,
        "cycles": point.fetch_cycles,
        "share_of_peak": point.share_of_peak,
        "energy_pJ": point.energy_pJ,
        "dense_cycles": point.dense_fetch_cycles,
        "microseconds": point.microseconds,
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Numbers as short as they can be; what does not apply stays empty."""
    return {
        name: f"{value:.6g}" if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None
    }
