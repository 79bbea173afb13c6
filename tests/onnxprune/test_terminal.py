"""What a person at a terminal gets: progress with the time left, colours, completion; and what a pipe gets."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxprune.cli import command_names
from onnxprune.terminal import progress_bars

COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|9[0-7]|38;[\d;]+)m")
"""The terminal's codes that set a colour of text."""

MAIN = "import sys; sys.argv[0] = 'onnxprune'; from onnxprune.cli import main; main()"


def environment(**extra: str) -> dict[str, str]:
    known = {k: v for k, v in os.environ.items() if k not in {"NO_COLOR", "FORCE_COLOR"}}
    return known | {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"} | extra


def at_a_terminal(*arguments: object, code: str = MAIN, **extra: str) -> str:
    """What a command prints to a terminal, standard error and all."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**extra),
        close_fds=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while True:
            part = os.read(ours, 65536)
            if not part:
                break
            shown += part
    except OSError:  # what Linux says when the other end has closed
        pass
    finally:
        os.close(ours)
        process.wait(60)
    return shown.decode()


SLOW_JOB = """
import time
from onnxprune.terminal import progress_bars
with progress_bars() as progress:
    for done in range(21):
        progress("search", done, 20)
        time.sleep(0.1)
"""


def test_progress_shows_what_how_much_and_the_time_left() -> None:
    shown = at_a_terminal(code=SLOW_JOB)
    assert "search" in shown
    assert re.search(r"1\d/20", shown)
    assert re.search(r"0:00:0\d", shown), "the time left"
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h", "\x1b[1A\x1b[2K")), (
        "gone when it is done"
    )


def test_nothing_is_drawn_for_what_is_soon_done() -> None:
    assert at_a_terminal(code=SLOW_JOB.replace("0.1", "0")).strip("\x1b[?25hl\r\n") == ""


def test_a_pipe_gets_no_progress() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW_JOB], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_search_at_a_terminal_draws_its_trials(mlp: Path, mlp_data: Path, tmp_path: Path) -> None:
    arguments = ("compress", mlp, "--data", mlp_data, "-o", tmp_path / "run", "--max-drop", "0.3")
    shown = at_a_terminal(*arguments, "--trials", "40")
    assert re.search(r"search.*\d+/40", shown)
    assert "compression rate" in shown
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *map(str, arguments), "--trials", "45", "--resume"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}
    assert done.stderr == ""
    assert "\x1b" not in done.stdout


def test_what_the_bars_are_told_twice_or_out_of_order_is_no_error() -> None:
    with progress_bars() as progress:
        for step, done in (("b", 3), ("a", 1), ("b", 0), ("b", 5)):
            progress(step, done, 5)


@pytest.mark.parametrize(
    "arguments", [("inspect", "{mlp}"), ("--help",), ("prune", "--help"), ("inspect", "nothing")]
)
def test_no_color_takes_all_colours_away(arguments: tuple[str, ...], mlp: Path) -> None:
    filled = [argument.format(mlp=mlp) for argument in arguments]
    plain = at_a_terminal(*filled, NO_COLOR="1")
    assert not COLOUR.search(plain)
    assert len(plain) > 40
    if arguments[0] != "inspect":
        assert COLOUR.search(at_a_terminal(*filled)), "this test can fail"


def complete(words: str, shell: str) -> list[str]:
    """What a shell is told to offer for the last word of a line."""
    count = len(words.split()) - 1
    asked = {
        "bash": {"COMP_WORDS": words, "COMP_CWORD": str(count)},
        "zsh": {"_TYPER_COMPLETE_ARGS": words},
        "fish": {"_TYPER_COMPLETE_ARGS": words, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
    }[shell]
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env=environment(**asked, _ONNXPRUNE_COMPLETE=f"complete_{shell}"),
        capture_output=True,
        text=True,
        check=True,
    )
    return re.findall(r"(?:--)?[a-z][\w-]*", done.stdout)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands_options_and_values(shell: str) -> None:
    assert complete("onnxprune comp", shell)[-1 if shell == "bash" else 0]
    assert "compress" in complete("onnxprune comp", shell)
    assert "--method" in complete("onnxprune prune --meth", shell)
    assert "sparsegpt" in complete("onnxprune prune m.onnx --method sparse", shell)
    assert "wanda" not in complete("onnxprune prune m.onnx --method sparse", shell)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_of_each_shell_calls_us(shell: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN],
        env=environment(_ONNXPRUNE_COMPLETE=f"source_{shell}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_ONNXPRUNE_COMPLETE=complete_{shell}" in done.stdout


def test_bash_itself_completes(program: Callable[[str], str], tmp_path: Path) -> None:
    """The script, sourced by a real bash, on a real command line."""
    bash = program("bash")
    command = tmp_path / "onnxprune"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{MAIN}" "$@"\n')
    command.chmod(0o755)
    script = (
        'eval "$(_ONNXPRUNE_COMPLETE=source_bash onnxprune)"; COMP_WORDS=(onnxprune unp); COMP_CWORD=1; '
        '_onnxprune_completion onnxprune; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        [bash, "--norc", "-c", script],
        env=environment(PATH=f"{tmp_path}:{os.environ['PATH']}"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["unpack"]


def test_help_lists_every_command_the_main_job_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MAIN, "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    listed = re.findall(r"^│ ([a-z][a-z-]+) ", done.stdout, re.MULTILINE)
    assert listed[0] == "compress"
    assert sorted(listed) == sorted(command_names())
