"""The plot of ``docs/codesign.md``: where a pattern for the lanes pays; ``codesign_cycles.py`` draws it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "results" / "codesign_cycles.json"
PLOT = ROOT / "docs" / "codesign.svg"

CELL, ROW, LEFT, TOP, GAP = 44, 30, 44, 64, 40
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.head{font-weight:600}"
    ".cell{font-size:11px;text-anchor:middle}.mid{text-anchor:middle}"
)


def shade(ratio: float) -> str:
    """White where nothing is gained, the deeper a blue the more; a little red where cycles are lost."""
    gain = max(0.0, min(1.0, (1 - ratio) / 0.6))
    if ratio > 1.005:
        return "#f6d5cc"
    return f"rgb({round(255 - 175 * gain)},{round(255 - 105 * gain)},{round(255 - 25 * gain)})"


def draw(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> str:
    """A grid for each memory: lanes down, density across, in each cell the ratio of cycles."""
    lanes = sorted({row["lanes"] for row in rows})
    densities = sorted({row["density"] for row in rows}, reverse=True)
    panel = LEFT + CELL * len(densities)
    width = panel * len(names) + GAP * (len(names) - 1) + 20
    height = TOP + ROW * len(lanes) + 40
    title = "Cycles with segments:Lx64 over those of the plan of least bytes"
    marks = [f"<style>{STYLE}</style>", f'<rect width="{width}" height="{height}" fill="#fff"/>']
    marks.append(f'<text class="head" x="10" y="18">{title}</text>')
    known = {(row["memory"], row["lanes"], row["density"]): row for row in rows}
    for place, (memory, name) in enumerate(names.items()):
        left = 10 + place * (panel + GAP) + LEFT
        middle = left + CELL * len(densities) / 2
        marks.append(f'<text class="head mid" x="{middle}" y="40">{name}</text>')
        for x, density in enumerate(densities):
            at = left + CELL * (x + 0.5)
            marks.append(f'<text class="cell" x="{at}" y="58">{density:.0%}</text>')
        for y, count in enumerate(lanes):
            top = TOP + ROW * y
            marks.append(f'<text x="{left - 8}" y="{top + 20}" text-anchor="end">{count}</text>')
            for x, density in enumerate(densities):
                row = known[memory, count, density]
                ratio = row["segments"] / row["bytes"]
                marks.append(
                    f'<rect x="{left + CELL * x}" y="{top}" width="{CELL - 2}" height="{ROW - 2}" '
                    f'rx="3" fill="{shade(ratio)}" stroke="#ddd"/>'
                    f'<text class="cell" x="{left + CELL * (x + 0.5) - 1}" y="{top + 18}">{ratio:.2f}</text>'
                )
        base = TOP + ROW * len(lanes) + 18
        marks.append(
            f'<text class="mid" x="{middle}" y="{base}">lanes (down), density (across)</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" '
        f'viewBox="0 0 {width} {height}">{"".join(marks)}</svg>\n'
    )


def plot() -> str:
    """The plot of the figures on record."""
    figures = json.loads(FIGURES.read_text())["figures"]
    return draw(figures["layer"], figures["memories"])
