from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.errors import RunError
from onnxprune.search.journal import Journal
from onnxprune.search.problem import Trial

HEADER = {"model": "abc", "seed": 1}


def trial(number: int) -> Trial:
    return Trial((number, 2), 10.0 - number, 0.001 * number, 0.002 * number)


def write(path: Path, count: int) -> Journal:
    journal = Journal(path, HEADER, resume=False)
    for number in range(count):
        journal.add(trial(number))
    return journal


def test_what_was_added_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    assert Journal(path, HEADER, resume=True).trials == [trial(n) for n in range(3)]


def test_every_cut_of_the_file_can_be_resumed(tmp_path: Path) -> None:
    """A kill may tear the file at any byte; whole lines survive, and adding goes on."""
    path = tmp_path / "journal.jsonl"
    write(path, 3)
    content = path.read_bytes()
    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        journal = Journal(path, HEADER, resume=True)
        whole = max(0, content[:cut].count(b"\n") - 1)
        assert journal.trials == [trial(n) for n in range(whole)]
        for number in range(whole, 3):
            journal.add(trial(number))
        assert path.read_bytes() == content


def test_an_existing_search_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)
    with pytest.raises(RunError, match="add --resume"):
        Journal(path, HEADER, resume=False)


def test_another_search_is_refused_by_what_changed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 1)
    with pytest.raises(RunError, match="model changed"):
        Journal(path, {**HEADER, "model": "xyz"}, resume=True)


@pytest.mark.parametrize("line", ["{not json", '{"trial": 7}', "[]", '{"trial": 0, "levels": 3}'])
def test_damage_inside_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, 2)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, lines[2]]) + "\n")
    with pytest.raises(RunError, match="damaged"):
        Journal(path, HEADER, resume=True)
