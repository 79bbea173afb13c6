"""Controllers against each other, against random search, and against plans that need no trial.

    python benchmarks/search.py [--problems resnet20 lenet5 magika] [--controllers bayes ...] [--trials 400]
        [--blocks loss bayes ...]

All of them choose from one database of levels (second-order pruning from unlabelled calibration samples, no
training) and are scored on the search split alone. The limit is a drop of one point there; what is reported
is measured on held-out samples that nothing else sees.

- ``resnet20``: 1,024 calibration images from the training set; search on the first 2,500 test images, held
  out are the other 2,500 (the model was trained on all training images).
- ``lenet5``: the shipped LeNet-5; 512 training images; 5,000 and 5,000 test images.
- ``magika``: agreement with the dense model on files of this Python installation, cut to what it reads.

For each controller: the compression rate (elements / nonzeros) of the best plan after 100, 200 and 400
trials, median and quartiles over seeds, warm-up trials counted; then with the plan pruned once more
(``finish``), as ``onnxprune search`` does by itself, and its held-out drop; for the plans named with
``--blocks`` (rules, or controllers, of which the first seed is taken) also what becomes of that plan where
blocks of layers are trained towards the dense model's values (``prune.reconstruct: blocks``). A trial that any of them made is
looked up when another makes it again. Interrupted runs continue: trials are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record

from onnxprune.data import Dataset
from onnxprune.evaluate import Evaluator
from onnxprune.held_out import HeldOut
from onnxprune.model_io import load_model
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.report import describe_model
from onnxprune.rules import apply_rules
from onnxprune.runtime import Session
from onnxprune.search.finish import WORTH, Finisher
from onnxprune.search.journal import Journal
from onnxprune.search.opening import open_search
from onnxprune.search.problem import Trial
from onnxprune.search.run import CONTROLLERS, make_controller
from onnxprune.study import Study
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnxprune.search.opening import Search
    from onnxprune.search.problem import Problem
    from onnxprune.search.space import Levels

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
MAX_DROP = 0.01
CONFIDENCE = 0.5
"""The limit is kept by the estimate itself: what counts is what is reported, on other samples."""

FINISH = 5
FINISH_BLOCKS = 3
MARKS = (100, 200, 400)
SEEDS = {"resnet20": 3, "lenet5": 5, "magika": 3}
TRIALS = {"resnet20": 400, "lenet5": 400, "magika": 100}


@dataclass(frozen=True)
class Parts:
    """A model and its three parts of data."""

    model: Path
    calibration: Dataset
    search: Dataset
    held_out: Dataset


def resnet20() -> Parts:
    """ResNet-20 on CIFAR-10."""
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    deviation = np.array([0.229, 0.224, 0.225], np.float32)

    def images(name: str, rows: slice) -> Dataset:
        with np.load(SHARED / "data" / name) as data:
            scaled = (data["x"][rows].astype(np.float32) / 255 - mean) / deviation
            x = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
            return Dataset({"input": x}, data["y"][rows])

    return Parts(
        SHARED / "models" / "cifar10_resnet20_folded.onnx",
        images("cifar10_train_20k.npz", slice(1024)),
        images("cifar10_test_5k.npz", slice(2500)),
        images("cifar10_test_5k.npz", slice(2500, 5000)),
    )


def lenet5() -> Parts:
    """The shipped LeNet-5 on MNIST."""
    model = ROOT / "models" / "lenet5.onnx"
    spec = Session(model).inputs[0]

    def images(name: str, rows: slice) -> Dataset:
        with np.load(SHARED / "data" / name) as data:
            x = data["x"][rows].reshape(-1, *(size or 1 for size in spec.shape[1:]))
            return Dataset({spec.name: x.astype(spec.dtype)}, data["y"][rows])

    return Parts(
        model,
        images("mnist_train.npz", slice(512)),
        images("mnist_test.npz", slice(5000)),
        images("mnist_test.npz", slice(5000, 10000)),
    )


def magika() -> Parts:
    """Magika on files of this Python installation: what it is made for, and there on every machine."""
    model = SHARED / "models" / "magika_standard_v2_1.onnx"
    spec = Session(model).inputs[0]
    size = spec.shape[1]
    assert size is not None
    folder = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size >= 256)
    picked = np.random.default_rng(0).permutation(len(files))[:1664]
    rows = []
    for index in picked:
        content = np.frombuffer(files[index].read_bytes().strip(), np.uint8)
        row = np.full(size, 256, np.int64)  # 256 pads, as Magika has it
        half = size // 2
        begin, end = content[:half], content[-half:]
        row[: len(begin)] = begin
        row[size - len(end) :] = end
        rows.append(row)
    x = np.stack(rows).astype(spec.dtype)
    cut = (slice(256), slice(256, 960), slice(960, None))
    return Parts(model, *(Dataset({spec.name: x[rows]}) for rows in cut))


PROBLEMS = {"resnet20": resnet20, "lenet5": lenet5, "magika": magika}


def study_of(parts: Parts) -> Study:
    """The study that ``onnxprune search`` would open, with parts that are given."""
    model = load_model(parts.model)
    order = np.random.default_rng(1).permutation(len(parts.search))
    search = parts.search.take(order)
    dense = Session(parts.model, threads=1)
    return Study(
        path=parts.model,
        model=model,
        ruled=apply_rules(collect_weights(model), Recipe()),
        calibration=parts.calibration,
        search=search,
        held_out=parts.held_out,
        evaluator=Evaluator(dense, search, None, max(16, len(search) // 16)),
        threads=1,
        data_fingerprint=search.fingerprint(),
        described=describe_model(parts.model, model),
    )


class Cached:
    """A tester that looks trials up, and writes them down."""

    def __init__(self, search: Search, path: Path) -> None:
        self.search, self.path = search, path
        self.seconds, self.made = 0.0, 0
        self.known: dict[Levels, Trial] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                fields = json.loads(line)
                fields["levels"] = tuple(fields["levels"])
                self.known[fields["levels"]] = Trial(**fields)

    def __call__(self, levels: Levels) -> Trial:
        """The trial of a candidate."""
        if levels not in self.known:
            start = time.process_time()
            trial = self.search.tester(levels, MAX_DROP)
            self.seconds += time.process_time() - start
            self.made += 1
            self.known[levels] = trial
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(trial)) + "\n")
        return self.known[levels]


def run_controller(
    name: str, problem: Problem, seed: int, trials: int, cached: Cached
) -> dict[str, Any]:
    """The best cost after each mark, the trial that reached it, and the controller's own time."""
    controller = make_controller(name, problem, seed)
    own, best = 0.0, {}
    for number in range(1, trials + 1):
        start = time.process_time()
        asked = controller.ask()
        own += time.process_time() - start
        if not asked:
            break
        controller.tell(cached(asked[0]))
        if number in MARKS:
            best[number] = problem.best(controller.trials)
    done = max(best)
    samples = sum(t.samples for t in controller.trials) / len(controller.trials)
    return {
        "costs": {mark: trial.cost if trial else None for mark, trial in best.items()},
        "best": best[done],
        "own_seconds_a_trial": own / len(controller.trials),
        "samples_a_trial": samples,
    }


def by_rule(search: Search, rule: Any, cached: Cached) -> Trial | None:
    """The sparsest plan of a rule that keeps the limit: bisected, not searched."""
    low, high, best = 0.0, 0.995, None
    for _ in range(10):
        middle = (low + high) / 2
        trial = cached(search.plans.at(rule, middle))
        if search.problem.feasible(trial):
            low = middle
            best = trial if best is None or trial.cost < best.cost else best
        else:
            high = middle
    return best


def finished(
    search: Search, best: Trial, held_out: HeldOut, folder: Path, *, blocks: bool
) -> dict[str, Any]:
    """What becomes of a plan: as it was tried and pruned once more, on held-out samples."""
    keep = search.problem.space.keep(best.levels)
    dense = search.problem.space.cost(search.problem.space.dense)
    candidates = search.tester.candidates
    stitched = held_out.quality(candidates.session(search.tester.constants(best.levels), threads=1))
    result = {"rate": dense / best.cost, "drop": stitched.drop, "drop_ci95": stitched.drop_ci95}
    for name, recipe in (("finished", search.recipe), ("blocks", by_blocks(search.recipe))):
        if name == "blocks" and not blocks:
            break
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            journal = Journal(Path(temporary) / "journal.jsonl", {}, resume=False)
            finisher = Finisher(search.study, recipe, search.tester, journal, search.cost)
            made = finisher.run(0, keep, lambda *_: None)
        if made is not None and made.finish is not None and made.finish.cost <= best.cost * WORTH:
            quality = held_out.quality(candidates.session(made.constants, threads=1))
            result |= {
                f"{name}_rate": dense / made.finish.cost,
                f"{name}_drop": quality.drop,
                f"{name}_drop_ci95": quality.drop_ci95,
            }
            keep = made.keep
    return result


def by_blocks(recipe: Recipe) -> Recipe:
    """The recipe with reconstruction by blocks, and as many tries as that leaves time for."""
    prune = recipe.prune.model_copy(update={"reconstruct": "blocks"})
    search = recipe.search.model_copy(update={"finish": FINISH_BLOCKS})
    return recipe.model_copy(update={"prune": prune, "search": search})


def measure(name: str, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    """All rows of one problem."""
    folder = arguments.cache / name
    folder.mkdir(parents=True, exist_ok=True)
    study = study_of(PROBLEMS[name]())
    recipe = load_recipe(
        None, {"max_drop": MAX_DROP, "search.confidence": CONFIDENCE, "search.finish": FINISH}
    )
    clock = time.process_time()
    search = open_search(study, recipe, folder / "levels", lambda *_: None)
    built = time.process_time() - clock
    cached = Cached(search, folder / "trials.jsonl")
    held_out = HeldOut(study, recipe)
    dense = search.problem.space.cost(search.problem.space.dense)
    session = Session(study.path, threads=1)
    clock = time.process_time()
    study.evaluator.scores(session)
    bare = time.process_time() - clock
    clock = time.process_time()
    search.tester(search.problem.space.dense, 1.0)
    whole = time.process_time() - clock
    rows: dict[str, Any] = results.setdefault(name, {})
    rows["setting"] = {
        "samples": [len(study.calibration), len(study.search), len(study.held_out)],
        "variables": search.problem.space.dimensions,
        "database_cpu_seconds": round(built, 1),
        "bare_inference_cpu_seconds": round(bare, 3),
        "whole_trial_of_bare_inference": round(whole / bare, 3),
    }
    print(f"\n{name}: {rows['setting']}")
    for rule in search.plans.rules:
        best = by_rule(search, rule, cached)
        if best is not None and (rule not in rows or arguments.again):
            blocks = rule in arguments.blocks
            rows[rule] = finished(search, best, held_out, folder, blocks=blocks)
            print(f"  {rule:10} {_shown(rows[rule])}", flush=True)
            _save(results, arguments.output)
    for controller in arguments.controllers:
        runs = []
        for seed in range(arguments.seeds or SEEDS[name]):
            key = f"{controller} seed {seed}"
            if key not in rows or arguments.again:
                made = run_controller(
                    controller,
                    replace(search.problem),
                    seed,
                    min(arguments.trials, TRIALS[name]),
                    cached,
                )
                best = made.pop("best")
                rates = {mark: cost and dense / cost for mark, cost in made.pop("costs").items()}
                blocks = controller in arguments.blocks and seed == 0
                after = (
                    {} if best is None else finished(search, best, held_out, folder, blocks=blocks)
                )
                rows[key] = {"rates": rates, **made, **after}
                print(f"  {key:18} {rates} {_shown(after)}", flush=True)
                _save(results, arguments.output)
            runs.append(rows[key])
        rows[controller] = _summary(runs)
        print(f"  {controller:10} {rows[controller]}", flush=True)
    _save(results, arguments.output)


def _summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    marks = sorted({int(mark) for run in runs for mark in run["rates"]})

    def quartiles(values: list[float]) -> list[float]:
        return [round(float(x), 3) for x in np.percentile(values, [25, 50, 75])]

    at = {
        mark: quartiles([r["rates"].get(mark, r["rates"].get(str(mark))) or 1.0 for r in runs])
        for mark in marks
    }
    summary: dict[str, Any] = {"rates": at}
    for key in ("drop", "finished_rate", "finished_drop", "own_seconds_a_trial", "samples_a_trial"):
        found = [run[key] for run in runs if key in run]
        if found:
            summary[key] = quartiles(found)
    return summary


def _shown(row: Mapping[str, Any]) -> str:
    text = f"{row.get('rate', 0):5.2f} x, held-out drop {100 * row.get('drop', 0):5.2f}"
    for name in ("finished", "blocks"):
        if f"{name}_rate" in row:
            drop = 100 * row[f"{name}_drop"]
            text += f"; {name} {row[f'{name}_rate']:5.2f} x, drop {drop:5.2f} points"
    return text


def _save(results: dict[str, Any], path: Path | None) -> None:
    record.write(__file__, tables(results), results, path)


def tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table for each problem: rules, seeds, and controllers over their seeds."""
    forms = {"plan": "{}", "trials": "rate after so many trials|{}", "rate": "rate|{}"}
    forms |= {"drop": "points lost|{}", "finished_rate": "finished: rate|{}"}
    forms |= {"finished_drop": "points lost|{}", "blocks_rate": "by blocks: rate|{}"}
    forms |= {"blocks_drop": "points lost|{}"}
    made = []
    for problem in (name for name in PROBLEMS if name in results):
        rows = []
        for plan, found in results[problem].items():
            if plan != "setting":
                rates = found.get("rates", {})
                shown = {
                    "plan": plan,
                    "trials": "; ".join(f"{mark}: {_number(rate)}" for mark, rate in rates.items()) or None,
                }  # fmt: skip
                for key in [key for key in forms if key not in ("plan", "trials")]:
                    scale = 100 if key.endswith("drop") else 1
                    shown[key] = _number(found[key], scale) if key in found else None
                rows.append(shown)
        setting = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in results[problem]["setting"].items())  # fmt: skip
        if rows:
            made.append(record.table(problem, rows, forms, f"{setting}."))
    return made


def _number(value: Any, scale: float = 1) -> str:
    if isinstance(value, list):
        return record.spread([scale * one for one in value])
    return "-" if value is None else f"{scale * value:.2f}"


def main() -> None:
    """Print the tables and write the JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--controllers", nargs="+", default=list(CONTROLLERS))
    parser.add_argument("--seeds", type=int, help="instead of each problem's own number")
    parser.add_argument("--trials", type=int, default=max(MARKS))
    parser.add_argument("--blocks", nargs="+", default=["loss", "uniform", "bayes"])
    parser.add_argument("--again", action="store_true", help="rows that are there already, too")
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "search-benchmark")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if not SHARED.exists():
        sys.exit("benchmarks/search.py needs the models and data of ../shared")
    results = record.read(__file__, arguments.output) or {}
    for name in arguments.problems:
        measure(name, arguments, results)


if __name__ == "__main__":
    main()
