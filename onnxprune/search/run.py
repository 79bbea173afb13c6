"""The search loop: ask, evaluate, write down, tell."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from onnxprune.errors import RecipeError, RunError
from onnxprune.search.workers import ATTEMPTS

if TYPE_CHECKING:
    from pathlib import Path

    from onnxprune.search.controller import Controller
    from onnxprune.search.journal import Journal
    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.space import Levels
    from onnxprune.search.workers import Workers

ControllerName = Literal["bayes", "evolution", "random", "rl"]
CONTROLLERS: tuple[ControllerName, ...] = get_args(ControllerName)

AUTO: ControllerName = "bayes"
"""What ``auto`` is: best at 5, 22 and 88 variables on known laws, and on ResNet-20
(``docs/explanation/controllers.md`` has the figures)."""

Progress = Callable[[int, int], None]
"""Called with the trials done and the trials in all."""


def controller_name(asked: str) -> str:
    """Who searches, where ``asked`` may be ``auto``."""
    return AUTO if asked == "auto" else asked


def make_controller(name: str, problem: Problem, seed: int) -> Controller:
    """A controller by name, of :data:`CONTROLLERS` or ``auto``; imports heavy libraries where needed.

    Raises:
        RecipeError: when the controller needs an extra that is not installed.
    """
    name = controller_name(name)
    if name == "bayes":
        from onnxprune.search.bayes import BayesController

        return BayesController(problem, seed)
    if name == "evolution":
        from onnxprune.search.evolution import EvolutionController

        return EvolutionController(problem, seed)
    if name == "rl":
        check_installed(name)
        from onnxprune.search.rl import RlController

        return RlController(problem, seed)
    from onnxprune.search.random_search import RandomController

    return RandomController(problem, seed)


def check_installed(name: str) -> None:
    """See that a controller's libraries are there, without loading them.

    Raises:
        RecipeError: when they are not.
    """
    name = controller_name(name)
    needed = ("stable_baselines3", "gymnasium", "torch") if name == "rl" else ()
    missing = [library for library in needed if importlib.util.find_spec(library) is None]
    if missing:
        msg = (
            f"controller {name} needs {' and '.join(missing)}; install what it needs with "
            f'pip install "onnxprune[{name}]"'
        )
        raise RecipeError(msg)


def check_candidate(problem: Problem, levels: Levels, journal: Path) -> None:
    """See that a candidate of a journal is one of the problem's.

    Raises:
        RunError: when it is not.
    """
    tops = problem.space.tops.tolist()
    inside = all(0 <= level <= top for level, top in zip(levels, tops, strict=False))
    if len(levels) != len(tops) or not inside:
        msg = f"'{journal}' is damaged: it holds a trial that no search of this model made; start again in another folder"
        raise RunError(msg)


def run_search(
    controller: Controller,
    journal: Journal,
    workers: Workers,
    *,
    trials: int,
    at_once: int = 1,
    deadline: float | None = None,
    progress: Progress,
) -> list[Trial]:
    """Search until ``trials`` trials are in the journal; those already there are told, not re-run.

    With several trials at once they are told in the order in which they end, so that which candidates
    come later depends on the machines; the journal says what was tried.

    Args:
        controller: fresh; learns the journal's trials first.
        journal: of this search.
        workers: make trials.
        trials: how many in all.
        at_once: how many are made at the same time.
        deadline: no trial begins after this reading of :func:`time.monotonic`; None has no limit.
        progress: told after each trial.

    Raises:
        RunError: when a candidate's worker died :data:`onnxprune.search.workers.ATTEMPTS` times.
    """
    problem = controller.problem
    for trial in journal.trials[:trials]:
        check_candidate(problem, trial.levels, journal.path)
        controller.tell(trial)
    progress(len(controller.trials), trials)
    running: dict[Future[Trial], _Running] = {}
    while True:
        late = deadline is not None and time.monotonic() >= deadline
        while not late and len(running) < min(at_once, trials - len(controller.trials)):
            asked = controller.ask(1, [other.levels for other in running.values()])
            if not asked:
                break
            limit = problem.must_beat(problem.space.cost(asked[0]), controller.trials)
            running[workers.submit(asked[0], limit)] = _Running(asked[0], limit)
        if not running:
            return controller.trials
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            made = _outcome(future, running, workers)
            if made is not None:
                journal.add(made)
                controller.tell(made)
                progress(len(controller.trials), trials)


@dataclass(frozen=True)
class _Running:
    """A trial that is being made, for the how many-th time."""

    levels: Levels
    must_beat: float
    attempt: int = 1


def _outcome(
    future: Future[Trial], running: dict[Future[Trial], _Running], workers: Workers
) -> Trial | None:
    """The trial, or None when its worker died and another one makes it now."""
    trial, error = running.pop(future), future.exception()
    if error is None:
        return future.result()
    if not workers.lost(error):
        raise error
    if trial.attempt == ATTEMPTS:
        msg = (
            f"workers died {ATTEMPTS} times over one candidate; give them more memory, or fewer of them "
            "(--workers), and go on with --resume"
        )
        raise RunError(msg) from error
    again = workers.submit(trial.levels, trial.must_beat)
    running[again] = _Running(trial.levels, trial.must_beat, trial.attempt + 1)
    return None
