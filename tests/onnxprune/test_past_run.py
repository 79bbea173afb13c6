"""Finished runs read back, and two of them side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnxprune import api
from onnxprune.cli import main
from onnxprune.errors import RunError
from onnxprune.past_run import compare, differences, open_past_run, read_report
from onnxprune.recipe import load_recipe


def run(mlp: Path, data: Path, folder: Path, **settings: object) -> Path:
    api.compress(
        mlp, data, folder, load_recipe(None, {"search.trials": 8, "max_drop": 0.1, **settings})
    )
    return folder


@pytest.fixture
def folders(mlp: Path, mlp_data: Path, tmp_path: Path) -> tuple[Path, Path]:
    return (
        run(mlp, mlp_data, tmp_path / "one"),
        run(mlp, mlp_data, tmp_path / "two", max_drop=0.4),
    )


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["onnxprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out, captured.err

    return call


def test_a_report_comes_back_as_it_was_written(folders: tuple[Path, Path]) -> None:
    path = folders[0] / "report.json"
    assert read_report(path).to_json() == path.read_text(encoding="utf-8")
    past = open_past_run(folders[0])
    assert len(past.trials) == past.report.search.trials == 8
    assert past.recipe.max_drop == 0.1


def test_two_runs_side_by_side(folders: tuple[Path, Path]) -> None:
    first, second = map(open_past_run, folders)
    rows = {row.name: row for row in compare(first.report, second.report)}
    totals = first.report.totals, second.report.totals
    assert rows["weights left"].first == str(totals[0].nonzeros)
    assert rows["weights left"].second == str(totals[1].nonzeros)
    share = totals[1].nonzeros / totals[0].nonzeros
    assert rows["weights left"].change == f"{share:.3g} of the first"
    assert {"top1 before", "top1 after", "points lost", "95 % interval"} <= rows.keys()
    assert {"sparsity of fc0.weight", "sparsity of fc1.weight"} <= rows.keys()
    assert differences(first, second) == ()


def test_runs_that_cannot_be_compared_say_why(
    folders: tuple[Path, Path], mlp: Path, mlp_data: Path, tmp_path: Path
) -> None:
    other = run(mlp, mlp_data, tmp_path / "three", seed=5, **{"estimate.memory": "lpddr4-2400"})
    notes = differences(open_past_run(folders[0]), open_past_run(other))
    assert len(notes) == 2
    assert "split their data differently" in notes[0]
    assert "different memories" in notes[1]


def test_the_command_shows_compares_and_writes_a_page(
    call, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    status, out, _ = call("report", folders[0])
    assert status == 0
    assert "compression rate" in out
    page = tmp_path / "both.html"
    status, out, _ = call("report", folders[0], "--compare", folders[1], "-o", page)
    assert status == 0
    assert "weights left" in out
    assert "Beside another run" in page.read_text(encoding="utf-8")
    status, out, _ = call("report", folders[0], "--compare", folders[1], "--json")
    assert [r["command"] for r in json.loads(out)["runs"]] == ["compress", "compress"]


def test_folders_that_are_no_finished_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        open_past_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="it is no run folder"):
        open_past_run(tmp_path)
    report = folders[0] / "report.json"
    content = json.loads(report.read_text(encoding="utf-8"))
    for damage, words in (
        ("{", "is not a report"),
        (json.dumps({**content, "weights": 3}), "weights"),
        (json.dumps({**content, "schema_version": 99}), "schema version 99"),
    ):
        report.write_text(damage, encoding="utf-8")
        with pytest.raises(RunError, match=words):
            open_past_run(folders[0])
    report.unlink()
    with pytest.raises(RunError, match="has not ended; continue it with --resume"):
        open_past_run(folders[0])
