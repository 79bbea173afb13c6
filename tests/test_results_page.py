"""``docs/results.md`` says what the benchmarks wrote, and nothing else."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def record():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import record
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return record


def test_the_page_is_made_of_the_figures(record) -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert page == record.page(), "run `python benchmarks/record.py`"


def test_the_plot_of_co_design_is_that_of_its_figures(record) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import codesign_plot
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    kept = (ROOT / "docs" / "codesign.svg").read_text(encoding="utf-8")
    assert kept == codesign_plot.plot(), "run `python benchmarks/codesign_cycles.py`"


def test_every_script_is_on_the_page_with_figures_or_its_command(record) -> None:
    names = [script.name for script in record.scripts()]
    assert len(names) >= 11
    page = record.page()
    sections = page.split("\n## ")[1:]
    assert len(sections) == len(names)
    for name, section in zip(names, sections, strict=True):
        assert f"benchmarks/{name}" in section
        assert "No figures are kept here yet" in section or re.search(r"\d{4}-\d\d-\d\d", section)


def test_all_that_is_kept_names_its_date_machine_and_script(record) -> None:
    kept = sorted(record.RESULTS.glob("*.json"))
    assert kept
    for path in kept:
        document = json.loads(path.read_text(encoding="utf-8"))
        assert (ROOT / document["script"]).is_file()
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", document["date"])
        assert document["machine"]
        assert document["tables"]
        for table in document["tables"]:
            assert table["rows"]
            assert {len(row) for row in table["rows"]} == {len(table["columns"])}


def test_every_script_writes_through_the_record(record) -> None:
    for script in record.scripts():
        text = script.read_text(encoding="utf-8")
        assert "record.write(__file__, " in text, script.name
        assert "write_text(json" not in text, f"{script.name} writes a file of its own"


def test_what_is_written_reads_back(
    record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--folder", "/somewhere/of/mine", "--large"])
    rows = [{"a": 0.5, "b": None}, {"a": 0.25, "b": 3}]
    table = record.table("T", rows, {"a": "share|{:.0%}", "b": "{:,}"}, "note | with a bar")
    assert table["columns"] == ["share", "b"]
    assert table["rows"] == [["50%", "-"], ["25%", "3"]]
    path = record.write("benchmarks/one_shot.py", [table], rows, tmp_path / "r.json")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["figures"] == rows
    assert document["command"] == "python benchmarks/one_shot.py --folder mine --large"
    assert document["versions"]["onnxprune"]


@pytest.mark.parametrize(
    "page", ["explanation/targets.md", "howto/browser.md", "howto/quantization.md"]
)
def test_figures_that_other_pages_quote_are_on_the_page_of_results(page: str) -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    quoted = re.findall(r"\d{1,3}(?:,\d{3})+", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    assert quoted
    assert [figure for figure in quoted if figure not in results] == []
