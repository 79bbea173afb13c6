"""What a person sees in the terminal: tables on standard output, progress on standard error."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from onnxprune.formats import (
    bytes_text,
    count_text,
    percent_text,
    points_text,
    rate_text,
    seconds_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from onnxprune.past_run import Compared
    from onnxprune.recipe import Recipe
    from onnxprune.report import (
        AcceleratedReport,
        DesignPoint,
        ExpectedStep,
        Quality,
        Report,
        ShrinkReport,
        StepReport,
        Totals,
        WeightReport,
    )
    from onnxprune.search.problem import Trial

    Step = Callable[[str, int, int], None]

PIPED_WIDTH = 120
"""Columns where no terminal sets a limit."""


PATIENCE = 0.5
"""Seconds before a bar is drawn."""


@contextlib.contextmanager
def progress_bars() -> Iterator[Step]:
    """A callback ``(step, done, total)`` that draws bars with the time left; silent when piped.

    Nothing is drawn for what is done within :data:`PATIENCE` seconds.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=console, disable=not console.is_terminal, transient=True)
    tasks: dict[str, TaskID] = {}
    began = time.monotonic()

    def step(name: str, done: int, total: int) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done, total=total)
        if not bars.live.is_started and time.monotonic() - began > PATIENCE:
            bars.start()

    try:
        yield step
    finally:
        bars.stop()


def show(report: Report) -> None:
    """Print the report's tables and its summary."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_WIDTH))
    for table in _tables(report):
        console.print(table, "", sep="\n")
    for line in summary(report):
        console.print(line, highlight=False, soft_wrap=True)


def _tables(report: Report) -> Iterator[Table]:
    """The tables of a report, as far as it has something to put into them."""
    if report.points and len(report.points) > 1:
        yield from _points_tables(report.points)
    elif report.points and report.weights:
        yield _fetch_table(report.weights)
    elif report.weights:
        yield _weights_table(report)
    if report.skipped and report.command == "inspect":
        yield _skipped_table(report)
    if report.bench:
        yield _bench_table(report)
    if report.expected:
        yield _expected_table(report.expected)
    if report.steps:
        yield _steps_table(report.steps)


def show_comparison(
    first: str, second: str, rows: Sequence[Compared], notes: Sequence[str]
) -> None:
    """Print the figures of two runs side by side."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("figure", overflow="fold")
    for heading in (first, second, "change"):
        table.add_column(escape(heading), justify="right", overflow="fold")
    for row in rows:
        table.add_row(*(escape(text) for text in (row.name, row.first, row.second, row.change)))
    console.print(table, "", sep="\n")
    for note in notes:
        console.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)


def show_front(recipe: Recipe, trials: Sequence[Trial], best: Sequence[Trial]) -> None:
    """Print the trials that no other beats in both cost and drop, and how many there were."""
    console = Console()
    unit = recipe.unit.replace("_", " ")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("trial", unit, "drop", "upper bound", "limit"):
        table.add_column(heading, justify="right")
    for trial in best:
        kept = trial.drop_upper <= recipe.max_drop
        table.add_row(
            count_text(trials.index(trial)),
            count_text(round(trial.cost)),
            points_text(trial.drop),
            points_text(trial.drop_upper),
            _verdict(kept, "kept", "broken"),
        )
    stopped = sum(not trial.complete for trial in trials)
    console.print(table, "", sep="\n")
    console.print(
        f"{len(best)} of {len(trials)} trials are beaten by no other in both {unit} and drop; {stopped} were "
        f"stopped early; drops in points, limit {points_text(recipe.max_drop)}",
        soft_wrap=True,
    )


def _expected_table(expected: Sequence[ExpectedStep]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("step")
    table.add_column("what it does", overflow="fold")
    table.add_column("takes about", justify="right")
    for step in expected:
        takes = "done already" if step.done else seconds_text(step.seconds)
        table.add_row(escape(step.step), escape(step.does), takes)
    return table


def _steps_table(steps: Sequence[StepReport]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("step")
    table.add_column("took", justify="right")
    for step in steps:
        when = "" if step.done == "now" else f", {step.done.replace('_', ' ')}"
        table.add_row(escape(step.step), f"{seconds_text(step.seconds)}{when}")
    return table


def summary(report: Report) -> list[str]:
    """The report in a few lines of rich markup."""
    lines = []
    if report.expected:
        total = sum(step.seconds for step in report.expected)
        lines.append(f"about {seconds_text(total)} in all; nothing was written")
    if report.weights is not None and not report.weights:
        reasons = "; ".join(dict.fromkeys(skipped.reason for skipped in report.skipped or ()))
        lines.append(
            f"no weight can be pruned: {escape(reasons) or 'the model holds no constants'}"
        )
    elif report.totals:
        lines += _totals_lines(report, report.totals)
    if report.quality:
        lines.append(_quality_line(report.quality))
    if report.search and report.search.chosen:
        found = ", ".join(f"{name} {value}" for name, value in report.search.chosen.items())
        who = f"{report.search.controller} in {count_text(report.search.trials)} trials"
        lines.append(f"found by {who}: {escape(found)}")
    if report.target:
        asked = escape(report.target.asked)
        lines.append(f"target {asked}: {_verdict(report.target.met, 'met', 'NOT met')}")
    if report.shrunk:
        lines.append(_shrunk_line(report.shrunk))
    if report.accelerated:
        lines.append(_accelerated_line(report.accelerated))
    if report.verification:
        checked = report.verification
        lines.append(
            f"verified in {checked.runtime} on {count_text(checked.samples)} samples: "
            f"{_verdict(checked.passed, 'passed', 'FAILED')} (largest difference {checked.max_abs_error:.3g})"
        )
    lines += [f"[yellow]note:[/yellow] {escape(warning)}" for warning in report.warnings]
    return lines


def _totals_lines(report: Report, totals: Totals) -> list[str]:
    lines = [
        (
            f"[b]{count_text(totals.nonzeros)}[/b] of {count_text(totals.elements)} weights are not zero: "
            f"sparsity {percent_text(totals.sparsity)}, compression rate [b]{rate_text(totals.compression_rate)}[/b]"
        )
    ]
    source = "packed model" if report.command == "unpack" else "model"
    sizes = [f"{source} {bytes_text(report.model.bytes)}"]
    for name, size in (("packed", totals.packed_bytes), ("blob", totals.blob_bytes)):
        if size is not None:
            smaller = rate_text(report.model.bytes / size)
            sizes.append(f"{name} [b]{bytes_text(size)}[/b] ({smaller} smaller)")
    lines.append(", ".join(sizes))
    if report.points and len(report.points) > 1:
        best = min(report.points, key=lambda point: point.microseconds)
        lanes = "" if best.decoder_lanes is None else f", {best.decoder_lanes} lanes"
        lines.append(
            f"fastest: {escape(best.memory)}, [b]{best.encoding}[/b]{lanes}, "
            f"{count_text(best.fetch_cycles)} cycles, {best.microseconds:,.3g} µs"
        )
    if totals.fetch_cycles is not None and totals.dense_fetch_cycles is not None:
        name = escape(str((report.memory or {}).get("name", "memory")))
        lines.append(
            f"fetch cycles from {name}: {count_text(totals.dense_fetch_cycles)} dense, "
            f"[b]{count_text(totals.fetch_cycles)}[/b] encoded"
        )
    return lines


def _quality_line(quality: Quality) -> str:
    low, high = quality.drop_ci95
    return (
        f"{escape(quality.metric)} on {count_text(quality.samples)} held-out samples: "
        f"{percent_text(quality.baseline)} before, [b]{percent_text(quality.compressed)}[/b] after; "
        f"drop {points_text(quality.drop)} points (95 % interval {points_text(low)} to {points_text(high)}), "
        f"limit {points_text(quality.max_drop)}: {_verdict(quality.target_met, 'kept', 'NOT kept')}"
    )


def _shrunk_line(shrunk: ShrinkReport) -> str:
    parts = [
        f"{name} {count_text(before)} -> [b]{count_text(after)}[/b]"
        for name, (before, after) in (
            ("parameters", shrunk.parameters),
            ("multiply-adds", shrunk.multiply_adds),
        )
    ]
    before, after = map(bytes_text, shrunk.bytes)
    parts.append(f"file {before} -> [b]{after}[/b]")
    if shrunk.latency_ms:
        slow, fast = shrunk.latency_ms
        parts.append(f"latency {slow:.3g} -> [b]{fast:.3g}[/b] ms")
    return ", ".join(parts)


def _accelerated_line(accelerated: AcceleratedReport) -> str:
    sparse = sum(product.reason is None for product in accelerated.products)
    slow, fast = accelerated.latency_ms
    how = "with the kernels" if accelerated.kernels else "without kernels"
    return (
        f"[b]{sparse}[/b] of {len(accelerated.products)} products by sparse kernels, latency {slow:.3g} -> "
        f"[b]{fast:.3g}[/b] ms {how}"
    )


def _bench_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    for heading in (
        "latency, ms",
        "middle half",
        "speed-up",
        "samples/s",
        "load, ms",
        "memory",
        "file",
    ):
        table.add_column(heading, justify="right")
    for row in report.bench or ():
        low, high = row.quartiles_ms
        table.add_row(
            escape(row.model),
            f"{row.latency_ms:.3g}",
            f"{low:.3g} to {high:.3g}",
            f"[b]{row.speedup:.2f} x[/b]",
            f"{row.samples_per_s:,.0f}",
            f"{row.load_ms:.0f}",
            "" if row.memory_bytes is None else bytes_text(row.memory_bytes),
            bytes_text(row.bytes),
        )
    return table


def _weights_table(report: Report) -> Table:
    weights = report.weights or ()
    encoded = any(weight.encoding for weight in weights)
    fetched = any(weight.fetch_cycles is not None for weight in weights)
    named = report.command == "inspect"  # rules and --nodes-to-exclude want names of nodes
    patterns = bool({weight.pattern for weight in weights} - {None, "unstructured"})
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("weight", overflow="fold")
    table.add_column("read by")
    if named:
        table.add_column("node", overflow="fold")
    table.add_column("shape")
    if patterns:
        table.add_column("pattern")
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
            *([escape(", ".join(weight.nodes))] if named else []),
            "x".join(map(str, weight.shape)),
            *([weight.pattern or ""] if patterns else []),
            percent_text(weight.sparsity),
            bytes_text(weight.dense_bytes),
        ]
        if encoded:
            cells += [bytes_text(weight.encoded_bytes or 0), weight.encoding or ""]
        if fetched:
            cells.append(count_text(weight.fetch_cycles or 0))
        table.add_row(*cells)
    return table


def _fetch_table(weights: Sequence[WeightReport]) -> Table:
    """What fetching each weight takes; parts that are nothing everywhere are left out."""
    fetches = [weight.fetch for weight in weights if weight.fetch]
    worked = any(fetch.stall_cycles for fetch in fetches)
    energy = any(fetch.energy_pJ is not None for fetch in fetches)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("weight", overflow="fold")
    table.add_column("as", no_wrap=True)
    headings = ["fetched", "of peak", *(["µJ"] if energy else [])]
    headings += ["memory", "decode", "stall"] if worked else []
    for heading in (*headings, "cycles", "dense"):
        table.add_column(heading, justify="right", no_wrap=True)
    for weight in weights:
        if weight.fetch is None:
            continue
        fetch = weight.fetch
        cells = [escape(weight.name), weight.encoding or "", bytes_text(fetch.fetched_bytes)]
        cells.append(percent_text(fetch.share_of_peak, 1))
        if energy:
            cells.append(f"{(fetch.energy_pJ or 0) / 1e6:.3g}")
        if worked:
            counts = (fetch.memory_cycles, fetch.decode_cycles, fetch.stall_cycles)
            cells += [count_text(count) for count in counts]
        cells += [count_text(fetch.cycles), count_text(weight.dense_fetch_cycles or 0)]
        table.add_row(*cells)
    return table


def _points_tables(points: Sequence[DesignPoint]) -> list[Table]:
    """A table for each memory, a row for each encoding and decoder."""
    memories = dict.fromkeys(point.memory for point in points)
    return [_points_table([p for p in points if p.memory == memory]) for memory in memories]


def _points_table(points: Sequence[DesignPoint]) -> Table:
    decoded = any(point.decoder_lanes is not None for point in points)
    worked = any(point.stall_cycles for point in points)
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        title=f"{escape(points[0].memory)}, dense {count_text(points[0].dense_fetch_cycles)} cycles",
        title_justify="left",
    )
    table.add_column("encoding", no_wrap=True)
    headings = [*(["lanes"] if decoded else []), "fetched", "of peak"]
    headings += ["memory", "decode", "stall"] if worked else []
    for heading in (*headings, "cycles", "gain", "µs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in points:
        cells = [point.encoding, *([str(point.decoder_lanes)] if decoded else [])]
        cells += [bytes_text(point.fetched_bytes), percent_text(point.share_of_peak, 1)]
        if worked:
            counts = (point.memory_cycles, point.decode_cycles, point.stall_cycles)
            cells += [count_text(count) for count in counts]
        gain = point.dense_fetch_cycles / max(1, point.fetch_cycles)
        cells += [count_text(point.fetch_cycles), rate_text(gain), f"{point.microseconds:,.3g}"]
        table.add_row(*cells)
    return table


def _skipped_table(report: Report) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("left as it is", overflow="fold")
    table.add_column("reason", overflow="fold")
    for skipped in report.skipped or ():
        table.add_row(escape(skipped.name), escape(skipped.reason))
    return table


def _verdict(good: bool, yes: str, no: str) -> str:
    return f"[green]{yes}[/green]" if good else f"[red]{no}[/red]"
