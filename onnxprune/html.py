"""``report.html``: the report as one page that needs nothing else, from the network or the disk."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from onnxprune.formats import (
    bytes_text,
    count_text,
    percent_text,
    points_text,
    rate_text,
    seconds_text,
)
from onnxprune.page_table import COLUMNS, cells
from onnxprune.plots import Series, bars, history, points, scatter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.past_run import Compared
    from onnxprune.report import DesignPoint, Report, WeightReport
    from onnxprune.search.problem import Trial

TEMPLATES = Path(__file__).parent / "templates"

SERIES = 6
"""Colours that the page has."""

MOST_BARS = 40
"""Plots by weight show so many of the largest weights; the table shows all."""

NO_GAIN = (
    (
        "Zeros alone make onnxruntime no faster: it has no sparse CPU kernels, so the pruned and the packed "
        "model run at the speed of the dense one."
    ),
    (
        "The pruned model is as large as before on disk, for it stores its zeros; the packed model is the small one. "
        "Once loaded, both take the memory of the dense model."
    ),
    "The packed model takes a little longer to load: the runtime expands its weights then.",
    "Fetch cycles hold for hardware that reads and decodes the encoded blob, not for onnxruntime.",
)
"""What users of pruning tools hope for first and do not get from this; shown in every report."""


@dataclass(frozen=True)
class Card:
    """One figure of the summary; ``mood`` is "good", "bad" or nothing."""

    name: str
    value: str
    note: str
    mood: str = ""


@dataclass(frozen=True)
class Plot:
    """A titled plot."""

    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class Comparison:
    """The figures of two runs: their names, the figures, and why they may not be comparable."""

    first: str
    second: str
    rows: Sequence[Compared]
    notes: Sequence[str]


def render(
    report: Report,
    *,
    recipe: str,
    trials: Sequence[Trial] = (),
    max_drop: float,
    comparison: Comparison | None = None,
) -> str:
    """The page.

    Args:
        report: what to show.
        recipe: YAML that repeats the run.
        trials: of the search, for its plot.
        max_drop: the limit of the search, for its plot.
        comparison: with another run.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"size": bytes_text, "duration": seconds_text}
    columns = [column for column in COLUMNS if column.applies(report.weights or ())]
    return environment.get_template("report.html.j2").render(
        title=f"{Path(report.model.path).name}, {'fetched' if report.points else 'compressed'}",
        report=report,
        cards=_cards(report),
        no_gain=NO_GAIN,
        plots=_plots(report, trials, max_drop),
        columns=columns,
        rows=[cells(weight, columns) for weight in report.weights or ()],
        script=(TEMPLATES / "table.js").read_text(encoding="utf-8"),
        recipe=recipe,
        comparison=comparison,
    )


def _cards(report: Report) -> list[Card]:
    totals, quality = report.totals, report.quality
    cards: list[Card] = []
    if totals:
        note = f"{count_text(totals.nonzeros)} of {count_text(totals.elements)} weights left"
        cards.append(Card("Fewer weights", rate_text(totals.compression_rate), note))
    if totals and totals.packed_bytes:
        smaller = rate_text(report.model.bytes / totals.packed_bytes)
        note = f"{bytes_text(report.model.bytes)} to {bytes_text(totals.packed_bytes)}, runs in stock onnxruntime"
        cards.append(Card("Smaller file", smaller, note))
    if quality:
        low, high = quality.drop_ci95
        note = (
            f"{quality.metric} {percent_text(quality.baseline)} to {percent_text(quality.compressed)} on "
            f"{count_text(quality.samples)} held-out samples; 95 % interval {points_text(low)} to {points_text(high)}"
        )
        mood = "good" if quality.target_met else "bad"
        cards.append(Card("Points lost", points_text(quality.drop), note, mood))
    if totals and totals.fetch_cycles is not None and totals.dense_fetch_cycles is not None:
        rate = rate_text(totals.dense_fetch_cycles / max(1, totals.fetch_cycles))
        name = (report.memory or {}).get("name", "memory")
        note = f"{count_text(totals.dense_fetch_cycles)} to {count_text(totals.fetch_cycles)} memory clocks from {name}"
        cards.append(Card("Fewer fetch cycles", rate, note))
    if report.verification:
        passed = report.verification.passed
        note = f"{report.verification.runtime}, {count_text(report.verification.samples)} samples, bit for bit"
        cards.append(Card("Verified", "yes" if passed else "no", note, "good" if passed else "bad"))
    if report.target:
        met = report.target.met
        cards.append(
            Card(
                f"Target {report.target.asked}",
                "met" if met else "missed",
                "",
                "good" if met else "bad",
            )
        )
    return cards


def _plots(report: Report, trials: Sequence[Trial], max_drop: float) -> list[Plot]:
    largest = sorted(report.weights or (), key=lambda weight: -weight.elements)[:MOST_BARS]
    chosen = {weight.name for weight in largest}
    weights = [weight for weight in report.weights or () if weight.name in chosen]
    if not weights:
        return []
    names = [weight.name for weight in weights]
    most = f" The {MOST_BARS} largest weights." if len(report.weights or ()) > MOST_BARS else ""
    sparsity = Series("sparsity", [weight.sparsity for weight in weights])
    plots = [
        Plot(
            "Sparsity by weight",
            f"The share of each weight's elements that is zero.{most}",
            bars("Sparsity by weight", names, [sparsity], percent_text),
        )
    ]
    if all(weight.encoded_bytes is not None for weight in weights):
        series = [
            Series("dense", [weight.dense_bytes for weight in weights]),
            Series("encoded", [weight.encoded_bytes or 0 for weight in weights]),
        ]
        note = f"As stored in the model, and as encoded in the blob.{most}"
        svg = bars("Bytes by weight", names, series, bytes_text)
        plots.append(Plot("Bytes by weight", note, svg))
        plots.append(_encoding_plot(report.weights or ()))
    if all(weight.fetch_cycles is not None for weight in weights):
        series = [
            Series("dense", [weight.dense_fetch_cycles or 0 for weight in weights]),
            Series("encoded", [weight.fetch_cycles or 0 for weight in weights]),
        ]
        name = (report.memory or {}).get("name", "memory")
        note = f"Memory clocks to fetch each weight from {name}.{most}"
        svg = bars("Fetch cycles by weight", names, series, count_text)
        plots.append(Plot("Fetch cycles by weight", note, svg))
        plots += _cost_plot(report)
    if report.points and len(report.points) > 1:
        plots.insert(0, _design_plot(report.points))
    if trials and report.search:
        plots += _search_plots(trials, report.search.unit, max_drop)
    return plots


def _encoding_plot(weights: Sequence[WeightReport]) -> Plot:
    """What the weights that each encoding took over were, and what they are in it; largest first."""
    dense: Counter[str] = Counter()
    encoded: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for weight in weights:
        name = weight.encoding or ""
        dense[name] += weight.dense_bytes
        encoded[name] += weight.encoded_bytes or 0
        count[name] += 1
    names = [name for name, _ in dense.most_common()]
    labels = [f"{name}, {count[name]} weight{'s' * (count[name] != 1)}" for name in names]
    series = [
        Series("dense", [dense[name] for name in names]),
        Series("encoded", [encoded[name] for name in names]),
    ]
    title = "Bytes by encoding"
    note = "The bytes of the weights that each encoding of the blob was the smallest for, before and after."
    return Plot(title, note, bars(title, labels, series, bytes_text))


def _cost_plot(report: Report) -> list[Plot]:
    """Bytes against cycles, each weight once as it is and once encoded."""
    dots = [
        dot
        for weight in report.weights or ()
        for dot in (
            (weight.dense_bytes, weight.dense_fetch_cycles or 0, f"{weight.name}, dense", 0),
            (weight.encoded_bytes or 0, weight.fetch_cycles or 0, weight.name, 1),
        )
    ]
    title = "Bytes against cycles"
    svg = scatter(
        title,
        dots,
        series=("dense", "encoded"),
        x_name="bytes",
        y_name="cycles",
        x_form=bytes_text,
        y_form=count_text,
    )
    note = "Each weight twice, as it is and encoded."
    return [Plot(title, note, svg)]


def _design_plot(found: Sequence[DesignPoint]) -> Plot:
    """Fetched bytes against cycles, or time where memories differ, a dot for each point."""
    memories = list(dict.fromkeys(point.memory for point in found))
    shown = memories[:SERIES]
    timed = len(memories) > 1
    dots = []
    for point in found:
        lanes = "" if point.decoder_lanes is None else f", {point.decoder_lanes} lanes"
        label = f"{point.memory}, {point.encoding}{lanes}"
        y = point.microseconds if timed else point.fetch_cycles
        place = min(memories.index(point.memory), SERIES - 1)
        dots.append((point.fetched_bytes, y, label, place))
    title = f"Bytes against {'time' if timed else 'cycles'}"
    svg = scatter(
        title,
        dots,
        series=shown if len(memories) <= SERIES else [*shown[:-1], "others"],
        x_name="bytes fetched",
        y_name="time" if timed else "cycles",
        x_form=bytes_text,
        y_form=(lambda value: f"{value:,.3g} µs") if timed else count_text,
        with_front=True,
    )
    note = "All weights, a dot for each combination of memory, encoding and decoder; the line is the front."
    if timed:
        note += " Each memory has a clock of its own, so cycles are shown as time."
    return Plot(title, note, svg)


def _search_plots(trials: Sequence[Trial], unit: str, max_drop: float) -> list[Plot]:
    cost_name, cost_form = (
        unit.replace("_", " "),
        bytes_text if unit.endswith("bytes") else count_text,
    )
    xy = [(trial.cost, trial.drop, trial.drop_upper <= max_drop) for trial in trials]
    svg = points(
        "Search",
        xy,
        x_name=cost_name,
        y_name="points lost",
        limit=max_drop,
        x_form=cost_form,
        y_form=points_text,
    )
    note = (
        f"{len(trials)} trials on the search split. Trials whose upper confidence bound keeps the limit are in the "
        "first colour, the line is the front; drops above four times the limit stand at the top."
    )
    steps = [(cost, kept) for cost, _, kept in xy]
    course = history("Course of the search", steps, y_name=cost_name, y_form=cost_form)
    return [
        Plot("Search", note, svg),
        Plot(
            "Course of the search",
            f"Cost in {cost_name}; the line is the lowest among the trials kept so far.",
            course,
        ),
    ]
