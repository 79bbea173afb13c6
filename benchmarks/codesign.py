"""The whole method in one run: hyper-parameters of every training step found by controllers, beside those set by hand.

    python benchmarks/codesign.py --data FOLDER [--models lenet300 lenet5] [--finders hand random bayes rl]
                                  [--seeds 0 1 2] [--trials 12]

``FOLDER`` holds ``mnist_train.npz`` as ``models/build.py`` takes it. ``hand`` are the values of
``benchmarks/recipes``; every other finder is a controller that gets the ranges below and nothing else, and the
budget of ``--trials`` trials, which successive halving stops early. All sparsify, prune in training and
recover to the size published for L½, on the images that the shipped LeNets were trained on. Trials are compared on
the 4,000 training images that the dense models never saw; the whole MNIST test set is run once, on what was
found. Steps of training are counted over all trials, so that budgets can be compared. Runs that are in the JSON
already are not repeated; one that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import record

from onnxprune.data import Dataset
from onnxprune.evaluate import Evaluator
from onnxprune.model_io import load_model
from onnxprune.pipeline.run import run_steps
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.report import describe_model
from onnxprune.rules import apply_rules
from onnxprune.run_folder import open_run
from onnxprune.runtime import Session
from onnxprune.study import Study
from passes.weights import collect_weights

ROOT = Path(__file__).parents[1]
SET_APART, SET_APART_SEED = 4000, 0
NAMES = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5"}
MAX_DROP = 0.003
NOTE = (
    "Points lost on the whole MNIST test set at the size published for L½ (66 x and 322 x), mean over seeds "
    "(least to most). Passes over the training images are those of all trials together."
)

RANGES: dict[str, list[Any]] = {
    "sparsify.penalty.strength": [1.0e-5, 1.0e-3, "log"],
    "gradual.penalty.strength": [1.0e-6, 3.0e-4, "log"],
    "gradual.saliency": ["fisher", "magnitude", "lamp"],
    "gradual.schedule": ["log_linear", "cubic"],
    "learning_rate": [3.0e-4, 1.0e-2, "log"],
    "recover.optimizer.learning_rate": [3.0e-4, 1.0e-2, "log"],
}
"""What the controllers may choose from: wide ranges, the same for both models. Passes are those set by hand."""


def study_of(model: str, folder: Path) -> Study:
    """The shipped dense model with its images: to train on, never seen by it, and the whole test set."""
    path = ROOT / "models" / f"{model}.onnx"
    loaded, dense = load_model(path), Session(path, threads=1)
    name = dense.inputs[0].name
    with np.load(folder / "mnist_train.npz") as arrays:
        images, labels = arrays["x"][:, None], arrays["y"].astype(np.int64)
    order = np.random.default_rng(SET_APART_SEED).permutation(len(images))
    ours, apart = np.sort(order[SET_APART:]), np.sort(order[:SET_APART])
    with np.load(ROOT / "models" / "mnist-test.npz") as arrays:
        images_of_test, labels_of_test = (arrays[key] for key in sorted(arrays.files))
    search = Dataset({name: images[apart]}, labels[apart])
    return Study(
        path=path,
        model=loaded,
        ruled=apply_rules(collect_weights(loaded), Recipe()),
        calibration=Dataset({name: images[ours]}, labels[ours]),
        search=search,
        held_out=Dataset({name: images_of_test}, labels_of_test),
        evaluator=Evaluator(dense, search, None, 250),
        threads=1,
        data_fingerprint=search.fingerprint(),
        described=replace(describe_model(path, loaded), path=path.name),
    )


def steps_by_hand(model: str) -> tuple[str, list[dict[str, Any]]]:
    """Target and steps that do what ``benchmarks/recipes`` has ``finetune`` do."""
    recipe = load_recipe(ROOT / "benchmarks" / "recipes" / f"{model}.yaml", {})
    hand, passes = recipe.finetune, recipe.finetune.phases
    shared = {
        "optimizer": hand.optimizer.model_dump(),
        "loss": hand.loss.model_dump(),
        "augment": hand.augment,
    }
    strengths = hand.penalty.strength, hand.penalty.prune_strength
    name = hand.penalty.name
    gradual = {
        "passes": passes.prune,
        "penalty": {"name": name, "strength": strengths[1]},
        "saliency": hand.saliency,
        "schedule": hand.schedule,
    }
    return str(recipe.target), [
        {
            "step": "sparsify",
            "passes": passes.sparsify,
            "penalty": {"name": name, "strength": strengths[0]},
            **shared,
        },
        {"step": "prune", "gradual": gradual | shared},
        {"step": "recover", "passes": passes.recover, **shared},
    ]


def recipe_of(model: str, finder: str, seed: int, trials: int) -> Recipe:
    """The steps with the values set by hand, or with ranges in their place."""
    target, steps = steps_by_hand(model)
    search: dict[str, Any] = {}
    if finder != "hand":
        search = {"controller": finder, "trials": trials}
        marks = {name: {"search": values} for name, values in RANGES.items()}
        steps = json.loads(json.dumps(steps))
        sparsify, prune, recover = steps
        gradual = prune["gradual"]
        sparsify["penalty"]["strength"] = marks["sparsify.penalty.strength"]
        sparsify["optimizer"]["learning_rate"] = marks["learning_rate"]
        gradual["penalty"]["strength"] = marks["gradual.penalty.strength"]
        gradual["saliency"] = marks["gradual.saliency"]
        gradual["schedule"] = marks["gradual.schedule"]
        gradual["optimizer"]["learning_rate"] = marks["learning_rate"]
        recover["optimizer"]["learning_rate"] = marks["recover.optimizer.learning_rate"]
    fields = {"target": target, "seed": seed, "max_drop": MAX_DROP, "search": search}
    return load_recipe(None, fields | {"steps": steps})


def passes_of(folder: Path, recipe: Recipe) -> int:
    """Passes over the training images of all trials, from how far each came."""
    sections = [step.gradual if step.step == "prune" else step for step in recipe.steps]
    each = [section.passes for section in sections]
    rungs = folder / "rungs.jsonl"
    if not rungs.exists():
        return sum(each)
    last: dict[str, int] = {}
    total = 0
    for line in rungs.read_text().splitlines():
        levels, rung, *_ = json.loads(line)
        share, number = rung.split("/")
        if float(share) < 1:
            total += sum(max(1, round(passes * float(share))) for passes in each)
        else:
            last[str(levels)] = max(last.get(str(levels), 0), int(number))
    return total + sum(sum(each[: number + 1]) for number in last.values())


def run(
    model: str, finder: str, seed: int, trials: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One finder with one seed."""
    recipe = recipe_of(model, finder, seed, trials)
    folder = open_run(options.work / f"{model}.{finder}.{seed}.{trials if finder != 'hand' else 0}")
    study, start = study_of(model, options.data), time.process_time()

    def progress(step: str, done: int, total: int) -> None:
        if step == "tune":
            print(f"{model} {finder} seed {seed}: {done} of {total} trials", flush=True)

    report = run_steps(study, folder, recipe, progress, resume=True)
    assert report.quality is not None
    assert report.totals is not None
    return {
        "model": model,
        "finder": finder,
        "seed": seed,
        "trials": trials if finder != "hand" else 0,
        "rate": report.totals.compression_rate,
        "dense": report.quality.baseline,
        "drop": report.quality.drop,
        "drop_ci95": list(report.quality.drop_ci95),
        "chosen": {} if report.search is None else dict(report.search.chosen),
        "found_drop": None if report.search is None else report.search.best[0].drop,
        "passes": passes_of(folder.path, recipe),
        "cpu_s": round(time.process_time() - start),
    }


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A line for each model and finder, over its seeds."""
    rows = []
    for model, finder, trials in dict.fromkeys(
        (r["model"], r["finder"], r["trials"]) for r in results
    ):
        found = [
            r for r in results if (r["model"], r["finder"], r["trials"]) == (model, finder, trials)
        ]
        drops = np.array([r["drop"] for r in found]) * 100
        spread = f" ({drops.min():.2f} to {drops.max():.2f})" if len(found) > 1 else ""
        rows.append(
            {
                "model": NAMES[model],
                "values": "set by hand" if finder == "hand" else f"found by {finder}",
                "trials": trials or None,
                "seeds": len(found),
                "rate": float(np.min([r["rate"] for r in found])),
                "dense": found[0]["dense"],
                "drop": f"{drops.mean():.2f}{spread}",
                "passes": float(np.mean([r["passes"] for r in found])),
            }
        )
    forms = {"model": "{}", "values": "{}", "trials": "{}", "seeds": "{}", "rate": "{:.1f} x"}
    forms |= {"dense": "{:.2%}", "drop": "points lost|{}", "passes": "passes|{:.0f}"}
    return record.table("Hyper-parameters of training: set by hand, and found", rows, forms, NOTE)


def main() -> None:
    """Run what is missing, print the table, write JSON and the page's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist_train.npz")
    parser.add_argument("--models", nargs="+", choices=sorted(NAMES), default=["lenet300"])
    parser.add_argument("--finders", nargs="+", default=["hand", "random", "bayes", "rl"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "codesign")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        for seed in options.seeds:
            for finder in options.finders:
                trials = 0 if finder == "hand" else options.trials
                results: list[dict[str, Any]] = record.read(__file__) or []
                known = {(r["model"], r["finder"], r["seed"], r["trials"]) for r in results}
                if (model, finder, seed, trials) in known:
                    continue
                made = run(model, finder, seed, options.trials, options)
                # Another process may have added its own meanwhile.
                results = [*(record.read(__file__) or []), made]
                record.write(__file__, [table(results)], results)
    for line in table(record.read(__file__) or [])["rows"]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
