"""The search loop: ask, evaluate, write down, tell."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, get_args

from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from onnxprune.search.controller import Controller
    from onnxprune.search.journal import Journal
    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.space import Levels

ControllerName = Literal["bayes", "evolution", "random", "rl"]
CONTROLLERS: tuple[ControllerName, ...] = get_args(ControllerName)

Evaluate = Callable[["Levels", float], "Trial"]
"""Try a candidate; the second argument is :meth:`Problem.must_beat`, at which the race may stop."""

Progress = Callable[[int, int], None]
"""Called with the trials done and the trials in all."""


def make_controller(name: str, problem: Problem, seed: int) -> Controller:
    """A controller by name, of :data:`CONTROLLERS`. Imports heavy libraries only where needed.

    Raises:
        RecipeError: when the controller needs an extra that is not installed.
    """
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
    needed = ("stable_baselines3", "gymnasium", "torch") if name == "rl" else ()
    missing = [library for library in needed if importlib.util.find_spec(library) is None]
    if missing:
        msg = (
            f"controller {name} needs {' and '.join(missing)}; install what it needs with "
            f'pip install "onnxprune[{name}]"'
        )
        raise RecipeError(msg)


def run_search(
    controller: Controller,
    journal: Journal,
    evaluate: Evaluate,
    *,
    trials: int,
    deadline: float | None = None,
    progress: Progress,
) -> list[Trial]:
    """Search until ``trials`` trials are in the journal; those already there are told, not re-run.

    Args:
        controller: fresh; learns the journal's trials first.
        journal: of this search.
        evaluate: tries a candidate.
        trials: how many in all.
        deadline: no trial begins after this reading of :func:`time.monotonic`; None has no limit.
        progress: told after each trial.
    """
    problem = controller.problem
    for trial in journal.trials[:trials]:
        controller.tell(trial)
    progress(len(controller.trials), trials)
    while len(controller.trials) < trials and (deadline is None or time.monotonic() < deadline):
        asked = controller.ask()
        if not asked:
            break
        limit = problem.must_beat(problem.space.cost(asked[0]), controller.trials)
        trial = evaluate(asked[0], limit)
        journal.add(trial)
        controller.tell(trial)
        progress(len(controller.trials), trials)
    return controller.trials
