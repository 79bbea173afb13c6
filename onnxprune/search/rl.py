"""Reinforcement learning: an actor proposes plans, its critic says which of them to try.

After AMC (He et al. 2018), whose episodes it walks (:mod:`onnxprune.search.walk`), with three changes
that ``benchmarks/controllers.py`` measures. Candidates are shifted to a cost that is set beforehand
rather than clamped on the way, so the reward is how far the drop stays below the limit. Of many
candidates (by the actor with noise, and near the best trials) the one that the critic values most is
tried. And the agent learns from every trial that was told, whoever proposed it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from onnxprune.search.agent import Agent
from onnxprune.search.aim import undercut
from onnxprune.search.controller import Controller
from onnxprune.search.neighbours import parents, rechosen
from onnxprune.search.pruning_env import PruningEnv
from onnxprune.search.rewards import margin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from onnxprune.search.agent import AgentName
    from onnxprune.search.problem import Problem, Trial
    from onnxprune.search.space import Levels
    from onnxprune.search.walk import Scale

GRADIENT_STEPS = 12
"""Of the agent after each trial."""
LEAST_TOLD = 4
"""Trials before the first gradient step."""
JUDGED_FROM = 10
"""Own trials before the critic is asked."""

SCREENED = 32
"""Candidates of which the critic chooses one."""
NEAR = 0.5
"""Share of them that lie near the best trials; the others are the actor's."""
PARENTS = 3
STRIDES = (1.0, 2.0, 4.0, 8.0)
"""Standard deviations, in levels, of the steps away from a good trial."""

NOISE = (0.3, 0.05)
"""Standard deviation of the actor's noise at first, and at last."""
SPREADS = (0.0, 0.25, 0.5, 1.0)
"""Shares of that noise; each candidate has one of them."""
NOISE_KEPT = 0.99
"""Factor of the noise from trial to trial (AMC: 0.95 from episode to episode)."""

ATTEMPTS = 50


@final
class RlController(Controller):
    """Walks the layers with an actor, and tries what its critic likes best.

    Args:
        problem: what to solve.
        seed: of all randomness.
        agent: the algorithm.
        scale: what the agent's actions mean; corrections start from the best of the problem's starts.
        screened: candidates of which the critic chooses; with 1 it is not asked.
        near: share of them that lie near the best trials.
    """

    def __init__(
        self,
        problem: Problem,
        seed: int,
        *,
        agent: AgentName = "td3",
        scale: Scale = "correction",
        screened: int = SCREENED,
        near: float = NEAR,
    ) -> None:
        super().__init__(problem, seed)
        self._kind: AgentName = agent
        self._scale: Scale = scale
        self._screened = screened
        self._near = round(near * screened)
        self._learnt = 0
        self._env: PruningEnv | None = None
        self._agent: Agent | None = None

    def propose(self, pending: Sequence[Levels], rng: np.random.Generator) -> Levels | None:
        """The candidate that the critic values most, or None after many attempts."""
        self._learn()
        number = len(self.trials) + len(pending)
        seen = self.seen(pending)
        own = max(0, number - len(self.problem.starts))
        noise = max(NOISE[1], NOISE[0] * NOISE_KEPT**own)
        aim = self._aim(number)
        for attempt in range(ATTEMPTS):
            widened = noise * 1.1**attempt
            target = aim * rng.uniform(0.5 ** (attempt / 10), 1.0) if attempt else aim
            drawn = self._candidates(target, widened, rng)
            budgets = np.full(len(drawn), max(target, 0.0))
            candidates = self.problem.space.within_many(drawn, budgets)
            fresh = np.array([tuple(row) not in seen for row in candidates.tolist()])
            if fresh.any():
                chosen = self._liked(candidates[fresh], target, own)
                return tuple(int(level) for level in chosen)
        return self.anywhere(seen, rng)

    def _aim(self, number: int) -> float:
        """The cost of the next candidate."""
        budget = self.problem.budget_of(number)
        if budget is not None:
            return budget
        best = parents(self.problem, self.trials, None, 1)
        return undercut(self.problem, best[0] if best else None, self.trials)

    def _candidates(
        self, budget: float, noise: float, rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """Real-valued levels ``(M, D)``: first those near good trials, then the actor's."""
        space = self.problem.space
        if self._env is None or self._agent is None:
            return rng.uniform(0, space.tops, size=(self._screened, space.dimensions))
        target = None if self.problem.objective == "cost" else budget
        best = parents(self.problem, self.trials, target, PARENTS)
        chosen = np.minimum(rng.geometric(0.6, self._near), len(best)) - 1
        base = np.array([trial.levels for trial in best], np.float64)[chosen]
        share = rng.uniform(1 / space.dimensions, 1, size=(self._near, 1))
        moved = rng.random(base.shape) < share
        stride = rng.choice(STRIDES, size=(self._near, 1))
        near = rechosen(space, base, base + rng.standard_normal(base.shape) * stride * moved, rng)
        walks = self._screened - self._near
        episodes = self._env.walk.begin(np.full(walks, budget))
        spread = noise * (rng.choice(SPREADS, size=walks) if self._screened > 1 else 1.0)
        for _ in range(space.dimensions):
            action = self._agent.act(episodes.observe())
            action += spread * rng.standard_normal(walks)
            episodes.decide(episodes.levels_of(action.clip(0, 1)))
        return np.concatenate([near, episodes.levels])

    def _liked(self, candidates: NDArray[np.int64], budget: float, own: int) -> NDArray[np.int64]:
        """Of candidates ``(M, D)`` the one of highest value to the critic, at its last step."""
        if self._env is None or self._agent is None or self._screened == 1 or own < JUDGED_FROM:
            return np.asarray(candidates[-1])
        seen, actions = self._env.walk.follow(candidates, np.full(len(candidates), budget))
        values = self._agent.value(seen[:, -1], actions[:, -1].astype(np.float64))
        return np.asarray(candidates[values.argmax()])

    def _learn(self) -> None:
        """Catch up with the trials told, one after the other, as if each had been learnt at once."""
        while self._learnt < len(self.trials):
            self._learnt += 1
            told = self.trials[: self._learnt]
            base = self._base(told)
            first = self._learnt - 1
            if self._env is None or self._env.walk.base != base:
                self._env = self._environment(base)
                self._agent = self._agent or Agent(self._kind, self._env, self.seed)
                self._agent.forget()
                first = 0
            assert self._agent is not None
            new = told[first:]
            seen, actions = self._env.walk.follow(
                np.array([trial.levels for trial in new]), np.array([trial.cost for trial in new])
            )
            rewards = np.array([margin(trial, self.problem) for trial in new])
            self._agent.remember(seen, actions, rewards)
            if len(told) >= LEAST_TOLD:
                [seed] = np.random.SeedSequence([self.seed, len(told)]).generate_state(1)
                self._agent.train(GRADIENT_STEPS, int(seed))

    def _base(self, told: Sequence[Trial]) -> Levels:
        """The plan to correct: of the starts told so far the best; without one all alike."""
        space = self.problem.space
        if self._scale != "correction":
            return space.dense
        starts = set(self.problem.starts)
        best = parents(
            self.problem, [t for t in told if t.levels in starts], self.problem.budget, 1
        )
        return best[0].levels if best else space.dense

    def _environment(self, base: Levels) -> PruningEnv:
        return PruningEnv(self.problem, self._recall, scale=self._scale, base=base)

    def _recall(self, levels: Levels) -> Trial:
        return next(trial for trial in self.trials if trial.levels == levels)
