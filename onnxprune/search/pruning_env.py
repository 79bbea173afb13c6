"""Pruning as an environment on which any agent can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.search.rewards import reward_by_name
from onnxprune.search.walk import Walk

try:
    import gymnasium
except ImportError as missing:
    message = 'PruningEnv needs gymnasium; install it with pip install "onnxprune[rl]"'
    raise ImportError(message) from missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from onnxprune.data import DataSource
    from onnxprune.recipe import Recipe
    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.rewards import RewardName
    from onnxprune.search.space import Levels
    from onnxprune.search.walk import Scale

    Base = gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]
else:
    Base = gymnasium.Env


class PruningEnv(Base):
    """An episode walks the variables in the order of the graph and prunes each.

    The setting is AMC's (He et al. 2018). An observation, float32 ``(O,)`` between 0 and 1, holds the
    variable's features, position and share of the cost; what the choices so far cost, what the rest
    costs dense and what is left of the budget; the budget; the previous action, and all actions taken.
    An action, ``(1,)`` between 0 and 1, is the sparsity, or what ``scale`` says. With a budget it is
    raised where otherwise even the last levels of all later variables could not keep it;
    ``info["action"]`` and ``info["level"]`` tell what was done. The reward is zero but for the last
    step, whose ``info`` holds the ``trial``.

    Args:
        problem: the variables; with features, observations hold them.
        evaluate: tries a candidate.
        reward: one of :data:`onnxprune.search.rewards.REWARD_NAMES`.
        scale: what an action means; see :class:`onnxprune.search.walk.Walk`.
        base: the plan that corrections start from; dense without.
        budget: of the cost; that of the problem without. ``reset(options={"budget": ...})`` sets
            another for one episode.

    Raises:
        ValueError: when there is no such reward.
    """

    metadata = {"render_modes": []}  # noqa: RUF012 - gymnasium declares it so

    def __init__(
        self,
        problem: Problem,
        evaluate: Callable[[Levels], Trial],
        *,
        reward: RewardName = "saving",
        scale: Scale = "sparsity",
        base: Levels | None = None,
        budget: float | None = None,
    ) -> None:
        self.problem = problem
        self.walk = Walk(problem, scale, problem.space.dense if base is None else base)
        self._evaluate = evaluate
        self._reward = reward_by_name(reward)
        self._budget = problem.budget if budget is None else budget
        self._episode = self.walk.begin(np.array([np.inf]))
        self._bounded = False
        self.observation_space = gymnasium.spaces.Box(0, 1, (self.walk.width,), np.float32)
        self.action_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin an episode, with nothing decided."""
        super().reset(seed=seed)
        budget = (options or {}).get("budget", self._budget)
        self._bounded = budget is not None
        self._episode = self.walk.begin(np.array([budget if self._bounded else np.inf], float))
        return self._episode.observe()[0], {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Decide the next variable; the last one ends the episode and has the plan tried."""
        episode = self._episode
        asked = np.clip(np.asarray(action, np.float64).reshape(1), 0, 1)
        level = round(float(episode.levels_of(asked)[0]))
        if self._bounded:
            level = max(level, episode.least_level(0))
        episode.decide(np.array([float(level)]))
        seen = episode.observe()[0]
        info: dict[str, Any] = {
            "action": float(episode.actions[0, episode.step - 1]),
            "level": level,
        }
        if episode.step < self.problem.space.dimensions:
            return seen, 0.0, False, False, info
        trial = self._evaluate(tuple(int(chosen) for chosen in episode.levels[0]))
        info["trial"] = trial
        return seen, self._reward(trial, self.problem), True, False, info


def pruning_env(
    model: str | Path,
    data: DataSource,
    levels: str | Path,
    recipe: Recipe | None = None,
    *,
    threads: int | None = None,
    **options: Any,
) -> PruningEnv:
    """The environment of a model: what ``onnxprune search`` searches, for an agent of your own.

    Args:
        model: path of an ONNX file.
        data: split by the recipe's seed, as a search does; rewards come from the search part.
        levels: folder of each weight pruned to each level; built where it is not there yet.
        recipe: method, pattern, objective, limit and target; the defaults without.
        threads: of onnxruntime.
        options: of :class:`PruningEnv`.

    Raises:
        ModelError, DataError, RecipeError: when one of them cannot be used.
        RunError: when the folder holds levels of something else.
        OutputError: when it cannot be written.
    """
    from onnxprune.recipe import Recipe
    from onnxprune.search.opening import open_search
    from onnxprune.study import open_study

    asked = recipe or Recipe()
    study = open_study(Path(model), data, asked, threads=threads)
    search = open_search(study, asked, Path(levels), lambda *_: None)
    return PruningEnv(search.problem, lambda plan: search.tester(plan, np.inf), **options)
