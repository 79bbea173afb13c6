"""Compression by fine-tuning with the L½ penalty, beside L1, L2 and no penalty at equal budget.

    python benchmarks/l_half.py --data FOLDER [--models lenet300] [--penalties l_half l1 l2 none]
                                [--seeds 0 1 2] [--targets 66x 100x] [--ship] [--table-only]

``FOLDER`` holds ``mnist_train.npz`` as ``models/build.py`` takes it. Training images are those that
the shipped LeNets were trained on; the 4,000 that were set apart choose the epoch; the whole MNIST
test set is run once, at the end. For ``resnet20`` it also holds ``cifar10_train_20k.npz`` and
``cifar10_test_5k.npz`` (``x`` uint8 ``(N, 32, 32, 3)``, ``y``), and ``--resnet20`` names the model
file: the first 2,500 test images choose the epoch, the other 2,500 are reported on. Every run is the
recipe of ``benchmarks/recipes`` with another penalty, seed or target, as ``onnxprune finetune``
would do it.

L1 and L2 get the strength at which they pull a weight of 0.05 as hard as L½ does; no strength was
tuned for any but L½. Runs that are in the JSON already are not repeated, so a table can grow over
several calls; a run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import record
import torch

from onnxprune import api
from onnxprune.finetune.penalty import make_penalty
from onnxprune.recipe import load_recipe

ROOT = Path(__file__).parents[1]
SET_APART, SET_APART_SEED = 4000, 0
TYPICAL = 0.05
NOTE = (
    "Weights counted without biases. LeNets: accuracy on the whole MNIST test set, epochs chosen on 4,000 "
    "training images that the dense models never saw; rates published for L½ (Chang and Sha 2019): 66 x and "
    "322 x. All penalties had the same passes over the data; only L½'s strength was tuned, L1 and L2 pull a "
    "weight of 0.05 as hard."
)
NAMES = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5", "resnet20": "ResNet-20"}


IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32)


def write_data(model: str, folder: Path, work: Path) -> None:
    """The three parts of a model's data, as files in ``work``, where they are not there yet."""
    if (work / f"{model}.train.npz").exists():
        return
    if model == "resnet20":
        train, test = (_cifar(folder / f"cifar10_{name}.npz") for name in ("train_20k", "test_5k"))
        half = len(test[0]) // 2
        parts = {"train": train, "validation": (test[0][:half], test[1][:half])}
        parts["held_out"] = (test[0][half:], test[1][half:])
        for name, (images, labels) in parts.items():
            np.savez(work / f"{model}.{name}.npz", input=images, labels=labels)
        return
    with np.load(folder / "mnist_train.npz") as arrays:
        images, labels = arrays["x"][:, None], arrays["y"].astype(np.int64)
    order = np.random.default_rng(SET_APART_SEED).permutation(len(images))
    ours = np.sort(order[SET_APART:])
    for name, file in (("validation", f"{model}-data.npz"), ("held_out", "mnist-test.npz")):
        (work / f"{model}.{name}.npz").write_bytes((ROOT / "models" / file).read_bytes())
    np.savez(work / f"{model}.train.npz", image=images[ours], labels=labels[ours])


def _cifar(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with np.load(path) as arrays:
        images = (arrays["x"].astype(np.float32) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        return images.transpose(0, 3, 1, 2), arrays["y"].astype(np.int64)


def same_pull(name: str, strength: float) -> float:
    """The strength at which a penalty pulls a typical weight as hard as L½ at ``strength``."""
    ours, theirs = make_penalty("l_half"), make_penalty(name)
    if ours is None or theirs is None:
        return 0.0
    weight = torch.tensor([TYPICAL], dtype=torch.float64)
    return strength * float(ours.gradient(weight) / theirs.gradient(weight))


def run(
    model: str, file: Path, penalty: str, seed: int, target: str | None, work: Path
) -> dict[str, Any]:
    """Fine-tune once."""
    path = ROOT / "benchmarks" / "recipes" / f"{model}.yaml"
    base = load_recipe(path, {"target": target})
    section = base.finetune.penalty
    recipe = load_recipe(
        path,
        {
            "target": target,
            "seed": seed,
            "finetune.penalty.name": penalty,
            "finetune.penalty.strength": same_pull(penalty, section.strength),
            "finetune.penalty.prune_strength": same_pull(penalty, float(section.prune_strength)),
        },
    )
    out = work / f"{model}.{penalty}.{recipe.target}.{seed}.onnx"
    checkpoint = out.with_name(f"{out.name}.checkpoint")
    wall, cpu = time.perf_counter(), time.process_time()
    report = api.finetune(
        file,
        work / f"{model}.train.npz",
        out,
        recipe,
        validation=work / f"{model}.validation.npz",
        held_out=work / f"{model}.held_out.npz",
        checkpoint=checkpoint,
        resume=checkpoint.exists(),
        threads=1,
        progress=_printed(f"{model} {penalty} {recipe.target} seed {seed}"),
    )
    quality, totals = report.quality, report.totals
    assert quality is not None
    assert totals is not None
    return {
        "model": model,
        "penalty": penalty,
        "target": recipe.target,
        "seed": seed,
        "rate": totals.compression_rate,
        "nonzeros": {w.name: w.nonzeros for w in report.weights or ()},
        "dense": quality.baseline,
        "compressed": quality.compressed,
        "drop": quality.drop,
        "drop_ci95": list(quality.drop_ci95),
        "training": (report.methods or {}).get("training", ""),
        "epochs": sum(recipe.finetune.phases.model_dump().values()),
        "wall_s": round(time.perf_counter() - wall),
        "cpu_s": round(time.process_time() - cpu),
        "machine": f"{platform.machine()}, 1 thread",
    }


def _printed(label: str) -> Any:
    def progress(phase: str, done: int, total: int) -> None:
        if done % 437 == 0 or done == total:
            print(f"{label}: {phase} {done}/{total}", flush=True)

    return progress


def ship(model: str, target: str, work: Path) -> None:
    """Copy the L½ result of seed 0 beside the model, with its packed form and its blob."""
    source = work / f"{model}.l_half.{target}.0.onnx"
    out = ROOT / "models" / f"{model}.l_half.onnx"
    out.write_bytes(source.read_bytes())
    api.pack(out, out.with_suffix(".packed.onnx"))
    api.encode(out, out.with_suffix(".swb"))


def table(results: list[dict[str, Any]]) -> dict[str, Any]:
    """A line for each model, target and penalty, over its seeds."""
    rows = []
    keys = dict.fromkeys((r["model"], r["target"], r["penalty"]) for r in results)
    for model, target, penalty in sorted(
        keys, key=lambda k: (k[0], float(k[1][:-1]), k[2] != "l_half", k[2])
    ):
        found = [
            r
            for r in results
            if (r["model"], r["target"], r["penalty"]) == (model, target, penalty)
        ]
        after = np.array([r["compressed"] for r in found]) * 100
        spread = f" ({after.min():.2f} to {after.max():.2f})" if len(found) > 1 else ""
        rows.append(
            {
                "model": NAMES[model],
                "target": min(r["rate"] for r in found),
                "penalty": penalty,
                "seeds": len(found),
                "dense": found[0]["dense"],
                "compressed": f"{after.mean():.2f} %{spread}",
                "drop": float(np.mean([r["drop"] for r in found])) * 100,
                "cpu": float(np.mean([r["cpu_s"] for r in found])),
            }
        )
    forms = {"model": "{}", "target": "{:.1f} x", "penalty": "{}", "seeds": "{}"}
    forms |= {"dense": "{:.2%}", "compressed": "{}", "drop": "points lost|{:.2f}"}
    forms |= {"cpu": "CPU seconds a run|{:.0f}"}
    return record.table("Accuracy at the rates published for L½", rows, forms, NOTE)


def main() -> None:
    """Run what is missing, print the table, write JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with the data sets")
    parser.add_argument("--resnet20", type=Path, help="cifar10_resnet20_bn.onnx")
    parser.add_argument("--models", nargs="+", choices=sorted(NAMES), default=["lenet300"])
    parser.add_argument("--penalties", nargs="+", default=["l_half", "l1", "l2", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", default=[None], help="the recipe's own by default")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "l_half")
    parser.add_argument("--ship", action="store_true", help="put the results into models/")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()

    options.work.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = record.read(__file__) or []
    if not options.table_only:
        if options.data is None:
            parser.error("--data is needed to train")
        if "resnet20" in options.models and options.resnet20 is None:
            parser.error("--resnet20 must name the model")
        wanted = [
            (m, p, s, t)
            for s in options.seeds
            for m in options.models
            for t in options.targets
            for p in options.penalties
        ]
        for model, penalty, seed, target in wanted:
            named = (
                target or load_recipe(ROOT / "benchmarks" / "recipes" / f"{model}.yaml", {}).target
            )
            known = {(r["model"], r["penalty"], r["seed"], r["target"]) for r in results}
            if (model, penalty, seed, named) in known:
                continue
            write_data(model, options.data, options.work)
            file = options.resnet20 if model == "resnet20" else ROOT / "models" / f"{model}.onnx"
            result = run(model, file, penalty, seed, target, options.work)
            # Another process may have added its own meanwhile.
            results = [*(record.read(__file__) or []), result]
            record.write(__file__, [table(results)], results)
            if options.ship and penalty == "l_half" and seed == 0:
                ship(model, str(named), options.work)
    for line in table(results)["rows"]:
        print("  ".join(line))


if __name__ == "__main__":
    main()
