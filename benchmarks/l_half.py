"""Compression by fine-tuning with the L½ penalty, beside L1, L2 and no penalty at equal budget.

    python benchmarks/l_half.py --mnist FOLDER [--models lenet300] [--penalties l_half l1 l2 none]
                                [--seeds 0 1 2] [--targets 66x 100x] [--ship] [--table-only]

``FOLDER`` holds ``mnist_train.npz`` as ``models/build.py`` takes it. Training images are those that
the shipped models were trained on; the 4,000 that were set apart choose the epoch; the whole MNIST
test set is run once, at the end. Every run is the recipe of ``benchmarks/recipes`` with another
penalty, seed or target, as ``onnxprune finetune`` would do it.

L1 and L2 get the strength at which they pull a weight of 0.05 as hard as L½ does; no strength was
tuned for any but L½. Runs that are in the JSON already are not repeated, so a table can grow over
several calls; a run that was interrupted goes on from its checkpoint.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onnxprune import api
from onnxprune.finetune.penalty import make_penalty
from onnxprune.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "l_half.json"
TABLE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- l_half: begin -->", "<!-- l_half: end -->"
SET_APART, SET_APART_SEED = 4000, 0
TYPICAL = 0.05
PAPER = {"lenet300": 66, "lenet5": 322}
NAMES = {"lenet300": "LeNet-300-100", "lenet5": "LeNet-5"}


def training_images(folder: Path, out: Path) -> None:
    """The training images that the shipped models saw, as data for them."""
    with np.load(folder / "mnist_train.npz") as arrays:
        images, labels = arrays["x"][:, None], arrays["y"].astype(np.int64)
    order = np.random.default_rng(SET_APART_SEED).permutation(len(images))
    ours = np.sort(order[SET_APART:])
    np.savez(out, image=images[ours], labels=labels[ours])


def same_pull(name: str, strength: float) -> float:
    """The strength at which a penalty pulls a typical weight as hard as L½ at ``strength``."""
    ours, theirs = make_penalty("l_half"), make_penalty(name)
    if ours is None or theirs is None:
        return 0.0
    weight = torch.tensor([TYPICAL], dtype=torch.float64)
    return strength * float(ours.gradient(weight) / theirs.gradient(weight))


def run(model: str, penalty: str, seed: int, target: str | None, work: Path) -> dict[str, Any]:
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
        ROOT / "models" / f"{model}.onnx",
        work / "train.npz",
        out,
        recipe,
        validation=ROOT / "models" / f"{model}-data.npz",
        held_out=ROOT / "models" / "mnist-test.npz",
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
        if done % 437 == 0:
            print(f"{label}: {phase} {done}/{total}", flush=True)

    return progress


def ship(model: str, target: str, work: Path) -> None:
    """Copy the L½ result of seed 0 beside the model, with its packed form and its blob."""
    source = work / f"{model}.l_half.{target}.0.onnx"
    out = ROOT / "models" / f"{model}.l_half.onnx"
    out.write_bytes(source.read_bytes())
    api.pack(out, out.with_suffix(".packed.onnx"))
    api.encode(out, out.with_suffix(".swb"))


def table(results: list[dict[str, Any]]) -> str:
    """The results as a table, a line for each model, target and penalty."""
    lines = [
        "| model | target | penalty | seeds | dense | compressed | drop, points | CPU seconds a run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    keys = dict.fromkeys((r["model"], r["target"], r["penalty"]) for r in results)
    for model, target, penalty in sorted(
        keys, key=lambda k: (k[0], float(k[1][:-1]), k[2] != "l_half", k[2])
    ):
        rows = [
            r
            for r in results
            if (r["model"], r["target"], r["penalty"]) == (model, target, penalty)
        ]
        after = np.array([r["compressed"] for r in rows]) * 100
        drop = np.array([r["drop"] for r in rows]) * 100
        spread = f" ({after.min():.2f} to {after.max():.2f})" if len(rows) > 1 else ""
        lines.append(
            f"| {NAMES[model]} | {min(r['rate'] for r in rows):.1f} x | {penalty} | {len(rows)} | "
            f"{rows[0]['dense']:.2%} | {after.mean():.2f}%{spread} | {drop.mean():.2f} | "
            f"{np.mean([r['cpu_s'] for r in rows]):.0f} |"
        )
    return "\n".join(lines)


def write_table(results: list[dict[str, Any]]) -> None:
    """Put the table into ``docs/results.md``, between its marks; the rest of the page stays."""
    text = (
        f"{BEGIN}\n\n## Fine-tuning with the L½ penalty\n\n"
        "Weights counted without biases; accuracy on the whole MNIST test set, epochs chosen on 4,000\n"
        "training images that the dense models never saw; rates published for L½ (Chang and Sha 2019): "
        "66 x and 322 x.\nWritten by `benchmarks/l_half.py`.\n\n"
        f"{table(results)}\n\n{END}\n"
    )
    page = TABLE.read_text(encoding="utf-8") if TABLE.exists() else "# Results\n\n"
    if BEGIN in page and END in page:
        head, rest = page.split(BEGIN, 1)
        page = head + text + rest.split(END, 1)[1].removeprefix("\n")
    else:
        page = page.rstrip("\n") + "\n\n" + text
    TABLE.write_text(page, encoding="utf-8")


def main() -> None:
    """Run what is missing, print the table, write JSON and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path)
    parser.add_argument("--models", nargs="+", choices=sorted(NAMES), default=["lenet300"])
    parser.add_argument("--penalties", nargs="+", default=["l_half", "l1", "l2", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--targets", nargs="+", default=[None], help="the recipe's own by default")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "l_half")
    parser.add_argument("--ship", action="store_true", help="put the results into models/")
    parser.add_argument("--table-only", action="store_true")
    options = parser.parse_args()

    options.work.mkdir(parents=True, exist_ok=True)
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    if not options.table_only:
        if options.mnist is None:
            parser.error("--mnist is needed to train")
        if not (options.work / "train.npz").exists():
            training_images(options.mnist, options.work / "train.npz")
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
            result = run(model, penalty, seed, target, options.work)
            # Another process may have added its own meanwhile.
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
            results.append(result)
            RESULTS.parent.mkdir(parents=True, exist_ok=True)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            if options.ship and penalty == "l_half" and seed == 0:
                ship(model, str(named), options.work)
    print(table(results))
    write_table(results)


if __name__ == "__main__":
    main()
