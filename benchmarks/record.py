"""What benchmarks leave behind: figures and tables as JSON with date, machine and versions; and the page of them.

    python benchmarks/record.py      # writes docs/results.md from benchmarks/results/*.json

A script that measures something calls :func:`write` with the tables that it prints and all its
figures. The page is made of those tables alone, so it can say nothing that no script has written; a
test compares the two. Scripts that have left no figures here are on the page with their command.
"""

from __future__ import annotations

import ast
import datetime as dt
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "results.md"

VERSIONS = ("onnxprune", "numpy", "onnx", "onnxruntime", "torch", "onnxsim", "ethos-u-vela")
"""Packages whose release is recorded, where they are installed."""

HEAD = """# Results

Every table on this page was written by a script under `benchmarks/` when it was run, with the date and the
machine; `python benchmarks/record.py` puts them together, and a test checks that nothing else is here. Times
were taken on machines that others used too: compare within a table, not between them.
"""


def table(
    title: str, rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], note: str = ""
) -> dict[str, Any]:
    """A table of dictionaries, as texts.

    Args:
        title: of the table.
        rows: one dictionary a line; what a line lacks, or is None, is shown as "-".
        columns: format by key, ``"{:.1%}"``; the heading is the key, or stands before a ``|``:
            ``"top-1|{:.2f} %"``.
        note: what to know of it.
    """
    forms = {key: text.partition("|") for key, text in columns.items()}
    headings = [head if bar else key.replace("_", " ") for key, (head, bar, _) in forms.items()]
    lines = [
        [
            "-" if row.get(key) is None else (form if bar else head).format(row[key])
            for key, (head, bar, form) in forms.items()
        ]
        for row in rows
    ]
    return {"title": title, "note": note, "columns": headings, "rows": lines}


def write(
    script: str | Path, tables: list[dict[str, Any]], figures: Any, path: Path | None = None
) -> Path:
    """Write what a script has measured.

    Args:
        script: its ``__file__``.
        tables: of :func:`table`.
        figures: everything, as JSON holds it.
        path: of the JSON file; ``benchmarks/results/NAME.json`` when None.
    """
    name = Path(script).stem
    target = path or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "script": f"benchmarks/{name}.py",
        "command": " ".join(["python", f"benchmarks/{name}.py", *map(_shown, sys.argv[1:])]),
        "date": dt.datetime.now(tz=dt.UTC).date().isoformat(),
        "machine": machine(),
        "versions": versions(),
        "tables": tables,
        "figures": figures,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    target.write_text(text, encoding="utf-8")
    return target


def read(script: str | Path, path: Path | None = None) -> Any:
    """The figures that a script has left, or None."""
    source = path or RESULTS / f"{Path(script).stem}.json"
    return json.loads(source.read_text(encoding="utf-8"))["figures"] if source.exists() else None


def spread(quartiles: Iterable[float | None], form: str = "{:.2f}") -> str:
    """First quartile, median and third as "median (first to third)"; "-" where there is none."""
    low, middle, high = ("-" if value is None else form.format(value) for value in quartiles)
    return f"{middle} ({low} to {high})"


def machine() -> str:
    """The processor, how many of its cores there are, and the system."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    python = f"Python {platform.python_version()}"
    return f"{name}, {os.cpu_count()} cores, {platform.system()}, {python}"


def versions() -> dict[str, str]:
    """Releases of what was measured, and of what it stands on."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def scripts() -> list[Path]:
    """Every script that measures something: those that have a ``main``, but for this one."""
    return [
        path
        for path in sorted((ROOT / "benchmarks").glob("*.py"))
        if path != Path(__file__).resolve() and "def main(" in path.read_text(encoding="utf-8")
    ]


def page() -> str:
    """``docs/results.md``."""
    return HEAD + "\n" + "\n".join(_section(script) for script in scripts())


def _section(script: Path) -> str:
    about = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or script.stem
    lines = [f"## {about.splitlines()[0].rstrip('.')}", ""]
    result = RESULTS / f"{script.stem}.json"
    if not result.exists():
        usage = next(line.strip() for line in about.splitlines() if "benchmarks/" in line)
        return "\n".join([*lines, f"No figures are kept here yet; `{usage}` makes them.", ""])
    document = json.loads(result.read_text(encoding="utf-8"))
    used = ", ".join(f"{name} {release}" for name, release in document["versions"].items())
    lines += [
        f"`{document['command']}`, {document['date']}, on {document['machine']}"
        + (f"; {used}." if used else "."),
        "",
    ]
    for one in document["tables"]:
        lines += [f"### {one['title']}", ""]
        lines += [one["note"], ""] if one["note"] else []
        lines += [_line(one["columns"]), _line(["---"] * len(one["columns"]))]
        lines += [*map(_line, one["rows"]), ""]
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shown(argument: str) -> str:
    """An argument without the folders of this machine."""
    path = Path(argument)
    return path.name if path.is_absolute() else argument


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
