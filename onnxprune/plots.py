"""Plots as SVG text, drawn without a plotting library so that a report stays one small file.

Colours come from CSS classes ``series-0``, ``series-1`` of the page, so that dark and light themes
both work. Every mark carries a ``<title>`` that browsers show and screen readers speak.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

Format = Callable[[float], str]

WIDTH = 720
LABEL_WIDTH = 190
BAR_HEIGHT = 14
GAP = 12
AXIS = 34


@dataclass(frozen=True)
class Series:
    """One value for each label."""

    name: str
    values: Sequence[float]


def bars(title: str, labels: Sequence[str], series: Sequence[Series], form: Format) -> str:
    """Horizontal bars, one group a label; lengths are linear from zero."""
    group = BAR_HEIGHT * len(series) + GAP
    height = group * len(labels) + (AXIS if len(series) > 1 else 0)
    top = max((value for one in series for value in one.values), default=0.0) or 1.0
    room = WIDTH - LABEL_WIDTH - 90
    marks: list[str] = []
    for row, label in enumerate(labels):
        y = row * group
        marks.append(
            f'<text class="label" x="{LABEL_WIDTH - 8}" y="{y + BAR_HEIGHT * len(series) / 2 + 4:.1f}" '
            f'text-anchor="end"><title>{escape(label)}</title>{escape(_shorten(label))}</text>'
        )
        for number, one in enumerate(series):
            value = one.values[row]
            length = max(1.0, room * value / top)
            bar_y = y + number * BAR_HEIGHT
            text = f"{escape(label)}, {escape(one.name)}: {escape(form(value))}"
            marks.append(
                f'<rect class="series-{number}" x="{LABEL_WIDTH}" y="{bar_y}" width="{length:.1f}" '
                f'height="{BAR_HEIGHT - 2}" rx="2"><title>{text}</title></rect>'
                f'<text class="value" x="{LABEL_WIDTH + length + 5:.1f}" y="{bar_y + 10}">'
                f"{escape(form(value))}</text>"
            )
    return _svg(title, height, [*marks, _legend(series, height - 14)])


def points(
    title: str,
    xy: Sequence[tuple[float, float, bool]],
    *,
    x_name: str,
    y_name: str,
    limit: float,
    x_form: Format,
    y_form: Format,
) -> str:
    """Points, x on a logarithmic axis, kept ones (third value True) apart, and a limit line in y.

    A line joins the front: the points that no other beats in both x and y.
    """
    height, left, bottom, top = 320, 70, 46, 10
    xs = [math.log(max(x, 1e-9)) for x, _, _ in xy]
    low, high = min(xs), max(xs)
    y_top = max(4 * limit, 1e-3)
    y_low = min(0.0, *(y for _, y, _ in xy)) if len(xy) > 1 else 0.0
    plot_height = height - bottom - top

    def x_at(value: float) -> float:
        return left + (WIDTH - left - 20) * (value - low) / ((high - low) or 1.0)

    def y_at(value: float) -> float:
        return top + plot_height * (1 - (min(value, y_top) - y_low) / (y_top - y_low))

    marks = [
        (
            f'<line class="limit" x1="{left}" x2="{WIDTH - 20}" y1="{y_at(limit):.1f}" y2="{y_at(limit):.1f}"/>'
            f'<text class="value" x="{WIDTH - 20}" y="{y_at(limit) - 5:.1f}" text-anchor="end">'
            f"limit {escape(y_form(limit))}</text>"
        )
    ]
    corners = " L".join(f"{x_at(math.log(max(x, 1e-9))):.1f} {y_at(y):.1f}" for x, y in front(xy))
    marks.append(f'<path class="front" d="M{corners}"/>')
    for (x, y, kept), log_x in zip(xy, xs, strict=True):
        text = f"{x_name} {x_form(x)}, {y_name} {y_form(y)}"
        marks.append(
            f'<circle class="series-{0 if kept else 1}" cx="{x_at(log_x):.1f}" cy="{y_at(y):.1f}" r="4">'
            f"<title>{escape(text)}</title></circle>"
        )
    marks += _axes(left, top, plot_height, (low, high), (y_low, y_top), x_form, y_form)
    marks.append(
        f'<text class="label" x="{(WIDTH + left) / 2}" y="{height - 8}" text-anchor="middle">'
        f"{escape(x_name)} (logarithmic)</text>"
    )
    return _svg(f"{title}: {y_name} against {x_name}", height, marks)


def scatter(
    title: str,
    dots: Sequence[tuple[float, float, str, int]],
    *,
    series: Sequence[str],
    x_name: str,
    y_name: str,
    x_form: Format,
    y_form: Format,
    with_front: bool = False,
) -> str:
    """Dots of x, y, a label and the number of a series, on logarithmic axes.

    With ``with_front`` a line joins the dots that no other beats in both x and y.
    """
    height, left, bottom, top = 380, 70, 46, 30
    plot_height, width = height - bottom - top, WIDTH - left - 20
    xs = [math.log(max(x, 1e-9)) for x, _, _, _ in dots]
    ys = [math.log(max(y, 1e-9)) for _, y, _, _ in dots]
    spans = [(min(values), max(values)) for values in (xs, ys)]
    # A dot on the frame would be cut, and a single one needs a span to stand in.
    (x_low, x_high), (y_low, y_high) = (
        (low - 0.04 * (high - low) - 0.01, high + 0.04 * (high - low) + 0.01) for low, high in spans
    )

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + width * (x - x_low) / (x_high - x_low),
            top + plot_height * (1 - (y - y_low) / (y_high - y_low)),
        )

    best = front([(x, y, True) for x, y, _, _ in dots])
    corners = [at(math.log(max(x, 1e-9)), math.log(max(y, 1e-9))) for x, y in best]
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    marks = [f'<path class="front" d="M{path}"/>'] if with_front else []
    legend = [Series(name, ()) for name in series]
    marks.append(_legend(legend, 18, left, width / max(4, len(series))))
    for (x, y, label, number), log_x, log_y in zip(dots, xs, ys, strict=True):
        place = at(log_x, log_y)
        text = f"{label}: {x_name} {x_form(x)}, {y_name} {y_form(y)}"
        marks.append(
            f'<circle class="series-{number}" cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="4">'
            f"<title>{escape(text)}</title></circle>"
        )

    def y_text(log_y: float) -> str:
        return y_form(math.exp(log_y))

    marks += _axes(left, top, plot_height, (x_low, x_high), (y_low, y_high), x_form, y_text)
    marks.append(
        f'<text class="label" x="{(WIDTH + left) / 2}" y="{height - 8}" text-anchor="middle">'
        f"{escape(x_name)} (both axes logarithmic)</text>"
    )
    return _svg(f"{title}: {y_name} against {x_name}", height, marks)


def front(xy: Sequence[tuple[float, float, bool]]) -> list[tuple[float, float]]:
    """The points, by rising x, for which no other point is as small in one and smaller in the other."""
    best: list[tuple[float, float]] = []
    for x, y, _ in sorted(xy):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best


def history(title: str, steps: Sequence[tuple[float, bool]], *, y_name: str, y_form: Format) -> str:
    """Trials in order, y on a logarithmic axis, and the least y among the kept ones so far."""
    height, left, bottom, top = 260, 70, 46, 10
    logs = [math.log(max(y, 1e-9)) for y, _ in steps]
    low, high = min(logs), max(logs)
    plot_height = height - bottom - top
    width = WIDTH - left - 20

    def x_at(number: int) -> float:
        return left + width * (number + 0.5) / len(steps)

    def y_at(log_y: float) -> float:
        return top + plot_height * (1 - (log_y - low) / ((high - low) or 1.0))

    marks, path, best = [], "", math.inf
    for number, ((y, kept), log_y) in enumerate(zip(steps, logs, strict=True)):
        if kept and log_y < best:
            corner = f"H{x_at(number):.1f}V{y_at(log_y):.1f}"
            path = path + corner if path else f"M{x_at(number):.1f} {y_at(log_y):.1f}"
            best = log_y
        marks.append(
            f'<circle class="series-{0 if kept else 1}" cx="{x_at(number):.1f}" cy="{y_at(log_y):.1f}" r="3">'
            f"<title>trial {number}: {escape(y_name)} {escape(y_form(y))}</title></circle>"
        )
    if path:
        marks.append(f'<path class="front" d="{path}H{left + width}"/>')
    base = top + plot_height
    marks.append(f'<path class="axis" fill="none" d="M{left} {top}V{base}H{WIDTH - 20}"/>')
    for share in (0.0, 0.5, 1.0):
        value = math.exp(low + share * (high - low))
        marks.append(
            f'<text class="value" x="{left - 6}" y="{base - share * plot_height + 4:.1f}" text-anchor="end">'
            f"{escape(y_form(value))}</text>"
            f'<text class="value" x="{left + share * width:.1f}" y="{base + 16:.1f}" text-anchor="middle">'
            f"{share * len(steps):.0f}</text>"
        )
    marks.append(
        f'<text class="label" x="{(WIDTH + left) / 2}" y="{height - 8}" text-anchor="middle">trial</text>'
    )
    return _svg(f"{title}: {y_name} by trial", height, marks)


def _axes(
    left: float,
    top: float,
    plot_height: float,
    log_x: tuple[float, float],
    y: tuple[float, float],
    x_form: Format,
    y_form: Format,
) -> list[str]:
    base = top + plot_height
    marks = [
        f'<path class="axis" fill="none" d="M{left} {top}V{base}H{WIDTH - 20}"/>',
    ]
    for step in range(5):
        share = step / 4
        x_value = math.exp(log_x[0] + share * (log_x[1] - log_x[0]))
        y_value = y[0] + share * (y[1] - y[0])
        x_at, y_at = left + share * (WIDTH - left - 20), base - share * plot_height
        anchor = "end" if step == 4 else "middle"
        marks.append(
            f'<text class="value" x="{x_at:.1f}" y="{base + 16:.1f}" text-anchor="{anchor}">'
            f"{escape(x_form(x_value))}</text>"
            f'<text class="value" x="{left - 6}" y="{y_at + 4:.1f}" text-anchor="end">'
            f"{escape(y_form(y_value))}</text>"
        )
    return marks


def _legend(
    series: Sequence[Series], y: float, left: float = LABEL_WIDTH, step: float = 170
) -> str:
    if len(series) < 2:
        return ""
    return "".join(
        f'<rect class="series-{number}" x="{left + number * step:.0f}" y="{y - 10}" width="12" '
        f'height="12" rx="2"/><text class="label" x="{left + number * step + 18:.0f}" y="{y}">'
        f"<title>{escape(one.name)}</title>{escape(_shorten(one.name, int(step / 7)))}</text>"
        for number, one in enumerate(series)
    )


def _svg(title: str, height: float, marks: Sequence[str]) -> str:
    return (
        f'<svg role="img" aria-label="{escape(title)}" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(marks)}</svg>'
    )


def _shorten(label: str, room: int = 28) -> str:
    return label if len(label) <= room else f"…{label[1 - room :]}"
