"""How many weights pruning errs about, with the L½ penalty before it and without.

    python benchmarks/pruned_wrongly.py --data FOLDER [--models lenet300 lenet5] [--seeds 0 1 2]

A shipped LeNet is trained on for the passes that its recipe in ``benchmarks/recipes`` has for sparsifying: under
L½, under L1 that pulls a weight of 0.05 as hard, and under no penalty, all else equal. Then the smallest weights
are set to zero, over all layers together, and the accuracy is taken right away. Then all weights are
trained once more for as many passes, the zeros free to grow, without a penalty: what is now among the largest
again, as many as were kept, was pruned wrongly. The data are those of ``l_half.py``; accuracies are those of the
whole MNIST test set.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import l_half
import numpy as np
import record

from onnxprune import api
from onnxprune.data import load_data
from onnxprune.evaluate import Evaluator
from onnxprune.model_io import load_model
from onnxprune.one_shot import OneShot
from onnxprune.recipe import load_recipe
from onnxprune.runtime import Session
from passes.weights import collect_weights

ROOT = Path(__file__).parents[1]
PENALTIES = ("l_half", "l1", "none")
RATES = (5, 10, 20, 40)
NOTE = (
    "Training on under a penalty (or none) for the passes that the recipes sparsify for, then the smallest weights "
    "of all layers set to zero: accuracy on the MNIST test set before and right after, without any further "
    "training. Pruned wrongly: of the weights that were kept, how many others displace when all are trained on "
    "for as many passes, zeros free to grow. Means over seeds."
)


def accuracy(path: Path, held_out: Path) -> float:
    """On held-out data."""
    session = Session(path, threads=1)
    data = load_data(held_out, session.inputs)
    return float(Evaluator(session, data, None, 250).baseline.mean())


def largest(path: Path, keep: int) -> np.ndarray:
    """Which weights of a model are the largest ones, over all layers, flat."""
    weights = collect_weights(load_model(path)).weights
    sizes = np.concatenate([np.abs(weight.values()).ravel() for weight in weights])
    found = np.zeros(sizes.size, np.bool_)
    found[np.argsort(-sizes, kind="stable")[:keep]] = True
    return found


def trained(source: Path, out: Path, model: str, penalty: str, seed: int, work: Path) -> None:
    """Train all weights of a model on, for the passes that its recipe sparsifies for."""
    path = ROOT / "benchmarks" / "recipes" / f"{model}.yaml"
    section = load_recipe(path, {}).finetune
    recipe = load_recipe(
        path,
        {
            "seed": seed,
            "finetune.phases.prune": 0,
            "finetune.phases.recover": 0,
            "finetune.keep_zeros": False,
            "finetune.penalty.name": penalty,
            "finetune.penalty.strength": l_half.same_pull(penalty, section.penalty.strength),
        },
    )
    recipe = recipe.model_copy(update={"target": None})  # nothing is to be cut
    api.finetune(
        source,
        work / f"{model}.train.npz",
        out,
        recipe,
        teacher=ROOT / "models" / f"{model}.onnx",
        validation=work / f"{model}.validation.npz",
        held_out=work / f"{model}.held_out.npz",
        threads=1,
    )


def run(model: str, penalty: str, seed: int, work: Path) -> list[dict[str, Any]]:
    """All rates of one training."""
    dense, held_out = ROOT / "models" / f"{model}.onnx", work / f"{model}.held_out.npz"
    sparsified = work / "sparsified.onnx"
    trained(dense, sparsified, model, penalty, seed, work)
    elements = sum(weight.elements for weight in collect_weights(load_model(dense)).weights)
    rows = []
    for rate in RATES:
        pruned, free = work / "pruned.onnx", work / "free.onnx"
        options = OneShot(method="magnitude", allocation="global")
        api.prune(sparsified, pruned, sparsity=1 - 1 / rate, options=options)
        kept = largest(pruned, round(elements / rate))
        trained(pruned, free, model, "none", seed, work)
        again = largest(free, int(kept.sum()))
        rows.append(
            {
                "model": model,
                "penalty": penalty,
                "seed": seed,
                "rate": rate,
                "dense": accuracy(dense, held_out),
                "before": accuracy(sparsified, held_out),
                "after": accuracy(pruned, held_out),
                "wrong": float((again & ~kept).sum() / kept.sum()),
            }
        )
        print(rows[-1], flush=True)
    return rows


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A line for each model, rate and penalty."""
    rows = []
    keys = dict.fromkeys((r["model"], r["rate"], r["penalty"]) for r in results)
    for model, rate, penalty in sorted(keys, key=lambda k: (k[0], k[1], PENALTIES.index(k[2]))):
        own = [
            r for r in results if (r["model"], r["rate"], r["penalty"]) == (model, rate, penalty)
        ]
        means = {
            key: float(np.mean([r[key] for r in own]))
            for key in ("dense", "before", "after", "wrong")
        }
        label = {"l_half": "L½", "l1": "L1", "none": "none"}[penalty]
        rows.append(
            {"model": l_half.NAMES[model], "rate": rate, "penalty": label, "seeds": len(own)}
            | means
        )
    forms = {"model": "{}", "rate": "{} x", "penalty": "{}", "seeds": "{}", "dense": "{:.2%}"}
    forms |= {
        "before": "trained on|{:.2%}",
        "after": "right after pruning|{:.2%}",
        "wrong": "pruned wrongly|{:.1%}",
    }
    return record.table(
        "What pruning errs about, with a penalty before it and without", rows, forms, NOTE
    )


def main() -> None:
    """Run what is missing, print the table, write JSON and the page's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with mnist_train.npz")
    parser.add_argument("--models", nargs="+", choices=("lenet300", "lenet5"), default=["lenet300"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        work = Path(folder)
        for model in options.models:
            l_half.write_data(model, options.data, work)
            for seed in options.seeds:
                for penalty in PENALTIES:
                    results: list[dict[str, Any]] = record.read(__file__) or []
                    if (model, penalty, seed) in {
                        (r["model"], r["penalty"], r["seed"]) for r in results
                    }:
                        continue
                    results += run(model, penalty, seed, work)
                    record.write(__file__, [table(results)], results)
    for line in table(record.read(__file__) or [])["rows"]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
