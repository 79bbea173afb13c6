"""``report.html``: the report as one page that needs no network and no script."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2

from onnxprune.formats import bytes_text, count_text, percent_text, points_text, rate_text
from onnxprune.plots import Series, bars, points

if TYPE_CHECKING:
    from collections.abc import Sequence

    from onnxprune.report import Report
    from onnxprune.search.controller import Trial

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


def render(report: Report, *, recipe: str, trials: Sequence[Trial] = (), max_drop: float) -> str:
    """The page.

    Args:
        report: what to show.
        recipe: YAML that repeats the run.
        trials: of the search, for its plot.
        max_drop: the limit of the search, for its plot.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"size": bytes_text, "count": count_text, "percent": percent_text}
    weights = report.weights or ()
    return environment.get_template("report.html.j2").render(
        title=f"{Path(report.model.path).name}, compressed",
        report=report,
        cards=_cards(report),
        no_gain=NO_GAIN,
        plots=_plots(report, trials, max_drop),
        encoded=any(weight.encoding for weight in weights),
        fetched=any(weight.fetch_cycles is not None for weight in weights),
        recipe=recipe,
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
    weights = report.weights or ()
    if not weights:
        return []
    names = [weight.name for weight in weights]
    sparsity = Series("sparsity", [weight.sparsity for weight in weights])
    plots = [
        Plot(
            "Sparsity by weight",
            "The share of each weight's elements that is zero.",
            bars("Sparsity by weight", names, [sparsity], percent_text),
        )
    ]
    if all(weight.encoded_bytes is not None for weight in weights):
        series = [
            Series("dense", [weight.dense_bytes for weight in weights]),
            Series("encoded", [weight.encoded_bytes or 0 for weight in weights]),
        ]
        note = "As stored in the model, and in the blob's encoding of fewest bytes."
        plots.append(
            Plot("Bytes by weight", note, bars("Bytes by weight", names, series, bytes_text))
        )
    if all(weight.fetch_cycles is not None for weight in weights):
        series = [
            Series("dense", [weight.dense_fetch_cycles or 0 for weight in weights]),
            Series("encoded", [weight.fetch_cycles or 0 for weight in weights]),
        ]
        note = f"Memory clocks to fetch each weight from {(report.memory or {}).get('name', 'memory')}."
        plots.append(
            Plot(
                "Fetch cycles by weight",
                note,
                bars("Fetch cycles by weight", names, series, count_text),
            )
        )
    if trials and report.search:
        plots.append(_search_plot(trials, report.search.unit, max_drop))
    return plots


def _search_plot(trials: Sequence[Trial], unit: str, max_drop: float) -> Plot:
    xy = [(trial.cost, trial.drop, trial.drop_upper <= max_drop) for trial in trials]
    svg = points(
        "Search",
        xy,
        x_name=unit.replace("_", " "),
        y_name="points lost",
        limit=max_drop,
        x_form=bytes_text if unit.endswith("bytes") else count_text,
        y_form=points_text,
    )
    note = (
        f"{len(trials)} trials on the search split. Trials whose upper confidence bound keeps the limit are in the "
        "first colour; drops above four times the limit stand at the top."
    )
    return Plot("Search", note, svg)
