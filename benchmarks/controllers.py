"""Controllers and their parts on known laws: layers of ResNet-20's sizes, interactions and noise.

Each law has tolerances of its own by layer, losses that grow exponentially past them, interactions of
near layers of either sign, a drop that saturates, and the noise of 2,500 samples. Starts are plans of
three rules at four rates: uniform, by size, and one that knows the tolerances but for an error of 0.6 halvings
of density. What is minimised is the number of weights at a drop of at most one point (upper bound), or the
drop at 4.5 x.
Printed are medians and quartiles over the laws of the compression rate reached, or the true drop in
points, after so many trials, starts included; and the controller's own processor time a trial.

    python benchmarks/controllers.py [--laws 5] [--trials 400] [--only NAME ...] [--layers 5 22 88]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import record

from onnxprune.search.controller import Controller
from onnxprune.search.problem import Objective, Problem, Trial
from onnxprune.search.rl import RlController
from onnxprune.search.run import make_controller
from onnxprune.search.space import STEPS_PER_HALVING, Levels, Space, Variable, ladder

SIZES = (432, *[2304] * 6, 4608, 512, *[9216] * 5, 18432, 2048, *[36864] * 5, 640)
LAYERS = len(SIZES)
"""Fewer layers are the first of these, more repeat them."""
SAMPLES = 2500
RATE = 4.5
MAX_DROP = 0.01
CHECKED = (100, 200, 400)

Make = Callable[[Problem, int], Controller]


class Law:
    """How much a plan drops."""

    def __init__(self, seed: int, objective: Objective, layers: int = LAYERS) -> None:
        rng = np.random.default_rng([7, seed])
        sizes, count = np.resize(np.array(SIZES, np.float64), layers), layers
        rungs = [ladder(int(size))[0] for size in sizes]
        self.seed, self.sizes = seed, sizes
        self.space = Space(
            tuple(
                Variable(f"w{i}", {f"w{i}": r}, tuple(map(float, r))) for i, r in enumerate(rungs)
            )
        )
        self.dense = self.space.cost(self.space.dense)
        self.tolerance = 8 * (1.2 + 0.27 * np.log2(sizes / sizes.min()) + rng.normal(0, 0.8, count))
        self.growth = STEPS_PER_HALVING * rng.uniform(0.5, 1, count)
        self.scale = np.exp(rng.normal(0, 0.5, count))
        distance = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
        self.between = np.triu(rng.normal(0, 0.35, (count, count)), 1) * np.exp(-distance / 3)
        starts = self._starts(rng)
        self._calibrate(rng)
        budget = self.dense / RATE if objective == "drop" else None
        self.problem = Problem(self.space, MAX_DROP, starts, objective, budget)

    def drop(self, levels: Levels) -> float:
        """The true one."""
        error = self.scale * np.exp((np.array(levels) - self.tolerance) / self.growth)
        root = np.sqrt(error)
        total = max(0.0, float(error.sum() + 2 * root @ self.between @ root))
        return 0.9 * (1 - np.exp(-(total**0.9))) - 0.001

    def judge(self, levels: Levels) -> Trial:
        """The drop as so many samples show it; the same for the same plan."""
        digest = hashlib.sha256(repr((self.seed, levels)).encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        true = self.drop(levels)
        changed = min(0.99, abs(true) + 0.03)
        error = 0.7 * np.sqrt(changed * (1 - changed) / SAMPLES)
        drop = true + float(rng.normal(0, error))
        return Trial(levels, self.space.cost(levels), drop, drop + 1.645 * error, SAMPLES)

    def _starts(self, rng: np.random.Generator) -> tuple[Levels, ...]:
        sizes = self.sizes
        plans = (
            np.zeros(len(sizes)),
            STEPS_PER_HALVING / 2 * np.log2(sizes / sizes.min()),
            self.tolerance + STEPS_PER_HALVING * rng.normal(0, 0.6, len(sizes)),
        )
        rates = (1.5, 2, 3, 4)
        found = [self.space.within(p.tolist(), self.dense / r) for r in rates for p in plans]
        return tuple(dict.fromkeys(found))

    def _calibrate(self, rng: np.random.Generator) -> None:
        """Scale the losses so that a plan near the tolerances reaches 3 x at 0.6 of the limit."""
        near = self.tolerance + STEPS_PER_HALVING * rng.normal(0, 0.5, len(self.tolerance))
        plan = self.space.within(near.tolist(), self.dense / 3)
        base, low, high = self.scale, -20.0, 6.0
        for _ in range(50):
            middle = (low + high) / 2
            self.scale = base * np.exp(middle)
            low, high = (middle, high) if self.drop(plan) < 0.6 * MAX_DROP else (low, middle)


def run(law: Law, controller: Controller, trials: int) -> tuple[list[float], float]:
    """What was reached after the starts and at each of CHECKED, and own seconds a trial."""
    own, reached = 0.0, []
    for number in range(1, trials + 1):
        began = time.process_time()
        [levels] = controller.ask()
        own += time.process_time() - began
        controller.tell(law.judge(levels))
        if number in (len(law.problem.starts), *CHECKED):
            best = law.problem.best(controller.trials)
            if law.problem.objective == "drop":
                reached.append(100 * law.drop(best.levels) if best else np.nan)
            else:
                reached.append(law.dense / best.cost if best else 1.0)
    return reached, own / trials


def rl(**options: object) -> Make:
    """The controller with other parts."""
    return lambda problem, seed: RlController(problem, seed, **options)  # type: ignore[arg-type]


def by_name(name: str) -> Make:
    """A controller as users get it."""
    return lambda problem, seed: make_controller(name, problem, seed)


CONTENDERS: dict[str, Make] = {
    "random": by_name("random"),
    "evolution": by_name("evolution"),
    "rl": by_name("rl"),
    "rl: ddpg": rl(agent="ddpg"),
    "rl: sac": rl(agent="sac"),
    "rl: ladder, not corrections": rl(scale="ladder"),
    "rl: sparsity, not corrections": rl(scale="sparsity"),
    "rl: the actor's candidates only": rl(near=0.0),
    "rl: none of the actor's": rl(near=1.0),
    "rl: no choice by the critic": rl(near=1.0, screened=1),
    "rl: AMC (ddpg, sparsity, actor alone)": rl(
        agent="ddpg", scale="sparsity", near=0.0, screened=1
    ),
    "bayes": by_name("bayes"),
}


def tables(results: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """A table for each objective and size: median and quartiles over the laws after so many trials."""
    titles = {"cost": "Compression rate reached", "drop": "True drop in points at 4.5 x"}
    made = []
    for key, found in results.items():
        objective, layers = key.split(", ")
        marks = list(dict.fromkeys(mark for row in found.values() for mark in row["trials"]))
        rows = [
            {"controller": name, "laws": row["laws"], "own": row["own_s_per_trial"]}
            | {
                f"at{mark}": record.spread(quartiles)
                for mark, quartiles in zip(row["trials"], row["quartiles"], strict=True)
            }
            for name, row in found.items()
        ]
        forms = {"controller": "{}", "laws": "{}"}
        forms |= {f"at{mark}": f"after {mark} trials|{{}}" for mark in marks}
        forms |= {"own": "own seconds a trial|{:.3f}"}
        made.append(record.table(f"{titles[objective]}, {layers}", rows, forms))
    return made


def main() -> None:
    """Run all, print a table, write JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--laws", type=int, default=5)
    parser.add_argument("--trials", type=int, default=400)
    parser.add_argument("--only", nargs="*", default=list(CONTENDERS))
    parser.add_argument(
        "--objective", choices=["cost", "drop"], nargs="*", default=["cost", "drop"]
    )
    parser.add_argument("--layers", type=int, nargs="*", default=[LAYERS])
    options = parser.parse_args()
    for objective, layers in itertools.product(options.objective, options.layers):
        key = f"{objective}, {layers} layers"
        for name in options.only:
            rows, own = [], 0.0
            for seed in range(options.laws):
                law = Law(seed, objective, layers)
                reached, own = run(law, CONTENDERS[name](law.problem, seed), options.trials)
                rows.append(reached)
            quartiles = np.percentile(np.array(rows), (25, 50, 75), axis=0).round(3).T
            shown = "  ".join(f"{b:6.2f} ({a:.2f} to {c:.2f})" for a, b, c in quartiles)
            print(f"{key:16s} {name:38s} {shown}  {own:.3f} s", flush=True)
            results = record.read(__file__) or {}
            results.setdefault(key, {})[name] = {
                "trials": [len(Law(0, objective, layers).problem.starts), *CHECKED][
                    : len(quartiles)
                ],
                "quartiles": [
                    [None if np.isnan(q) else q for q in row] for row in quartiles.tolist()
                ],
                "own_s_per_trial": round(own, 4),
                "laws": options.laws,
            }
            record.write(__file__, tables(results), results)


if __name__ == "__main__":
    main()
