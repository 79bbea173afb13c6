"""Actors and critics of stable-baselines3 that learn from whole episodes; the home of torch here."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Literal, final, get_args

import numpy as np
import torch
from stable_baselines3 import DDPG, SAC, TD3
from stable_baselines3.common.logger import Logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from onnxprune.search.pruning_env import PruningEnv

AgentName = Literal["ddpg", "td3", "sac"]
AGENTS: tuple[AgentName, ...] = get_args(AgentName)

_KINDS: dict[AgentName, Any] = {"ddpg": DDPG, "td3": TD3, "sac": SAC}

HIDDEN = [64, 64]
LEARNING_RATE = 1e-3
TAU = 0.01
"""AMC's share by which target networks follow."""
BATCH = 256
STEPS_HELD = 2**17
"""Steps of episodes that are remembered; the oldest go first."""


@final
class Agent:
    """Learns which actions earn most, from episodes of any origin.

    As in AMC an episode's reward is that of each of its steps. No step is followed by another here (AMC
    bootstraps undiscounted), so the critic is a plain regression of the reward on what was seen and
    done, which is the better estimate as long as episodes are few.

    Args:
        kind: the algorithm.
        env: only its spaces are used.
        seed: of the networks.
    """

    def __init__(self, kind: AgentName, env: PruningEnv, seed: int) -> None:
        with isolated(seed):
            self._model = _KINDS[kind](
                "MlpPolicy",
                env,
                learning_rate=LEARNING_RATE,
                buffer_size=STEPS_HELD,
                tau=TAU,
                policy_kwargs={"net_arch": HIDDEN, "optimizer_kwargs": {"fused": True}},
                device="cpu",
            )
        self._model.set_logger(Logger(folder=None, output_formats=[]))

    def forget(self) -> None:
        """Forget all episodes, but nothing that was learnt from them."""
        self._model.replay_buffer.reset()

    def remember(
        self,
        seen: NDArray[np.float32],
        actions: NDArray[np.float32],
        rewards: NDArray[np.float64],
    ) -> None:
        """Remember episodes.

        Args:
            seen: observations ``(M, D, O)``.
            actions: ``(M, D)`` between 0 and 1.
            rewards: of the episodes, ``(M,)``.
        """
        last = np.ones(1)
        for episode, done, reward in zip(seen, actions, rewards, strict=True):
            for here, action in zip(episode, done, strict=True):
                scaled = self._model.policy.scale_action(action[None])
                self._model.replay_buffer.add(
                    here[None], here[None], scaled[None], np.array([reward]), last, [{}]
                )

    def train(self, steps: int, seed: int) -> None:
        """Take gradient steps on steps of remembered episodes drawn with ``seed``."""
        with isolated(seed):
            self._model.train(steps, BATCH)

    def act(self, seen: NDArray[np.float32]) -> NDArray[np.float64]:
        """The actor's actions, without noise, ``(M,)`` between 0 and 1, for ``(M, O)``."""
        self._model.policy.set_training_mode(False)
        with torch.no_grad():
            scaled = self._model.actor(torch.as_tensor(seen), **self._without_noise)
        return np.asarray((scaled.numpy()[:, 0].astype(np.float64) + 1) / 2)

    def value(self, seen: NDArray[np.float32], actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """The reward that the critic expects (the least of its networks), ``(M,)``."""
        self._model.policy.set_training_mode(False)
        scaled = torch.as_tensor(2 * actions[:, None] - 1, dtype=torch.float32)
        with torch.no_grad():
            values = torch.cat(self._model.critic(torch.as_tensor(seen), scaled), dim=1)
        return np.asarray(values.min(dim=1).values.numpy().astype(np.float64))

    @property
    def _without_noise(self) -> dict[str, bool]:
        return {"deterministic": True} if isinstance(self._model, SAC) else {}


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Run stable-baselines3 on one thread, with global random states that begin at ``seed``.

    The libraries draw from torch's and numpy's global states; these are as before afterwards.
    """
    state, threads = np.random.get_state(), torch.get_num_threads()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        try:
            torch.set_num_threads(1)
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            torch.set_num_threads(threads)
