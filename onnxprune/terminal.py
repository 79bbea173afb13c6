"""What a person sees in the terminal: tables on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from onnxprune.formats import bytes_text, count_text, percent_text, points_text, rate_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from onnxprune.report import Report, ShrinkReport

    Step = Callable[[str, int, int], None]


@contextlib.contextmanager
def progress_bars() -> Iterator[Step]:
    """A callback ``(step, done, total)`` that draws bars with the time left; silent when piped."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, disable=not console.is_terminal, transient=True
    ) as bars:
        tasks = {}

        def step(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done, total=total)

        yield step


def show(report: Report) -> None:
    """Print the report's tables and its summary."""
    console = Console()
    if report.weights:
        console.print(_weights_table(report))
    if report.skipped and report.command == "inspect":
        console.print(_skipped_table(report))
    for line in summary(report):
        console.print(line, highlight=False, soft_wrap=True)


def summary(report: Report) -> list[str]:
    """The report in a few lines of rich markup."""
    lines = []
    totals, quality = report.totals, report.quality
    if report.weights is not None and not report.weights:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in report.skipped or ()))
        lines.append(
            f"no weight can be pruned: {escape(reasons) or 'the model holds no constants'}"
        )
    elif totals:
        lines.append(
            f"[b]{count_text(totals.nonzeros)}[/b] of {count_text(totals.elements)} weights are not zero: "
            f"sparsity {percent_text(totals.sparsity)}, compression rate [b]{rate_text(totals.compression_rate)}[/b]"
        )
        sizes = [f"model {bytes_text(report.model.bytes)}"]
        for name, size in (("packed", totals.packed_bytes), ("blob", totals.blob_bytes)):
            if size is not None:
                sizes.append(
                    f"{name} [b]{bytes_text(size)}[/b] ({rate_text(report.model.bytes / size)} smaller)"
                )
        lines.append(", ".join(sizes))
        if totals.fetch_cycles is not None and totals.dense_fetch_cycles is not None:
            name = escape(str((report.memory or {}).get("name", "memory")))
            lines.append(
                f"fetch cycles from {name}: {count_text(totals.dense_fetch_cycles)} dense, "
                f"[b]{count_text(totals.fetch_cycles)}[/b] encoded"
            )
    if quality:
        low, high = quality.drop_ci95
        lines.append(
            f"{escape(quality.metric)} on {count_text(quality.samples)} held-out samples: "
            f"{percent_text(quality.baseline)} before, [b]{percent_text(quality.compressed)}[/b] after; "
            f"drop {points_text(quality.drop)} points (95 % interval {points_text(low)} to {points_text(high)}), "
            f"limit {points_text(quality.max_drop)}: {_verdict(quality.target_met, 'kept', 'NOT kept')}"
        )
    if report.target:
        asked = escape(report.target.asked)
        lines.append(f"target {asked}: {_verdict(report.target.met, 'met', 'NOT met')}")
    if report.shrunk:
        lines.append(_shrunk_line(report.shrunk))
    if report.verification:
        checked = report.verification
        lines.append(
            f"verified in {checked.runtime} on {count_text(checked.samples)} samples: "
            f"{_verdict(checked.passed, 'passed', 'FAILED')} (largest difference {checked.max_abs_error:.3g})"
        )
    lines += [f"[yellow]note:[/yellow] {escape(warning)}" for warning in report.warnings]
    return lines


def _shrunk_line(shrunk: ShrinkReport) -> str:
    parts = [
        f"{name} {count_text(before)} -> [b]{count_text(after)}[/b]"
        for name, (before, after) in (
            ("parameters", shrunk.parameters),
            ("multiply-adds", shrunk.multiply_adds),
        )
    ]
    if shrunk.latency_ms:
        before, after = shrunk.latency_ms
        parts.append(f"latency {before:.3g} -> [b]{after:.3g}[/b] ms")
    return ", ".join(parts)


def _weights_table(report: Report) -> Table:
    weights = report.weights or ()
    encoded = any(weight.encoding for weight in weights)
    fetched = any(weight.fetch_cycles is not None for weight in weights)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("weight", overflow="fold")
    table.add_column("read by")
    table.add_column("shape")
    for heading in ("sparsity", "dense", *(["encoded"] if encoded else [])):
        table.add_column(heading, justify="right")
    if encoded:
        table.add_column("as")
    if fetched:
        table.add_column("cycles", justify="right")
    for weight in weights:
        cells = [
            escape(weight.name),
            escape(", ".join(weight.op_types)),
            "x".join(map(str, weight.shape)),
            percent_text(weight.sparsity),
            bytes_text(weight.dense_bytes),
        ]
        if encoded:
            cells += [bytes_text(weight.encoded_bytes or 0), weight.encoding or ""]
        if fetched:
            cells.append(count_text(weight.fetch_cycles or 0))
        table.add_row(*cells)
    return table


def _skipped_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("left as it is", overflow="fold")
    table.add_column("reason", overflow="fold")
    for skipped in report.skipped or ():
        table.add_row(escape(skipped.name), escape(skipped.reason))
    return table


def _verdict(good: bool, yes: str, no: str) -> str:
    return f"[green]{yes}[/green]" if good else f"[red]{no}[/red]"
