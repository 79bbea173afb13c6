"""Train an agent of your own on the environment that the controller `rl` walks."""

import tempfile
from pathlib import Path

from stable_baselines3 import SAC

import onnxprune

MODELS = Path(__file__).parent.parent / "models"


def main(episodes: int = 200) -> float:
    """Let soft actor-critic prune LeNet-5 to a tenth of its weights, and say what that cost."""
    recipe = onnxprune.load_recipe(
        None, {"target": "10x", "search.objective": "drop", "prune.method": "magnitude"}
    )
    with tempfile.TemporaryDirectory() as folder:
        env = onnxprune.pruning_env(
            MODELS / "lenet5.onnx",
            MODELS / "lenet5-data.npz",
            Path(folder) / "levels",
            recipe,
            reward="error",
        )
        layers = env.problem.space.dimensions
        agent = SAC("MlpPolicy", env, gamma=1.0, learning_starts=4 * layers, seed=0, device="cpu")
        agent.learn(episodes * layers)
        seen, _ = env.reset()
        ended = False
        while not ended:
            action, _ = agent.predict(seen, deterministic=True)
            seen, _, ended, _, info = env.step(action)
    trial = info["trial"]
    for name, kept in env.problem.space.keep(trial.levels).items():
        print(f"{name} keeps {kept:,} weights")
    print(f"{100 * trial.drop:.2f} points lost")
    return float(trial.drop)


if __name__ == "__main__":
    main()
