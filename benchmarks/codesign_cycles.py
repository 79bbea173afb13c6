"""What it takes to fetch and decode whole models: plans of least bytes, of least cycles, and with a pattern of the lanes.

    python benchmarks/codesign_cycles.py [--models resnet20 lenet5 vit] [--work FOLDER]

The hardware: a memory of those named below; behind it an accelerator of 200 MHz with 1, 4, 16 or 64 decoder
lanes, each of which has room for 64 weights and places one a clock; eight buffers of a chunk for each lane.

Three plans, all of least cost at a drop of at most one point of the search part (for the transformer: of
agreement with the dense model), found alike: by dynamic programming over the levels of each layer, bisected
until the limit is just kept.

- ``least bytes``: sparsities and encodings of fewest bytes, which no hardware is asked for;
- ``least cycles``: of fewest cycles on this hardware;
- ``segments``: the same with weights pruned to ``segments:Lx64``, L the lanes.

Weights are pruned by second-order updates from unlabelled samples, without training; drops that are reported
are those of search and held-out samples together (5,000 images; 10,000 of MNIST). Below that, without any model: what the pattern is worth by density, lanes and
memory (a layer of 1024 x 1024 float32, magnitudes of a normal distribution), and where it ends.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import codesign_plot
import numpy as np
import one_shot_models
import record
import search

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings.bitmask import Bitmask
from hwmodel.estimate import Hardware, dense_cycles, encode_tensor, encoded_cycles
from hwmodel.memory import load_memory
from hwmodel.pipeline import Accelerator
from hwmodel.select import candidates
from hwmodel.tensor import TensorSpec
from onnxprune.candidates import Candidates
from onnxprune.data import Dataset
from onnxprune.evaluate import Evaluator
from onnxprune.paired import paired_drop
from onnxprune.recipe import Recipe, load_recipe
from onnxprune.runtime import Session
from onnxprune.search.groups import group_weights, levels_of
from onnxprune.search.levels import open_levels, watch
from onnxprune.search.plans import level_losses
from passes.allocation import least_loss
from passes.patterns import Burst, Segments, Unstructured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from onnxprune.search.database import LevelDatabase
    from onnxprune.study import Study

    Costs = dict[str, NDArray[np.float64]]

ROOT = Path(__file__).parents[1]
MEMORIES = {
    "DDR4-2400": "ddr4-2400",
    "LPDDR4-2400": "lpddr4-2400",
    "octal flash": "octal-flash-200",
}
LANES = (1, 4, 16, 64)
CHUNK = 64
MHZ = 200
KNOWN = ("dense", "bitmask", "two_level", "segments", "run_length", "elias_fano", "rice", "entropy")
"""Encodings of runs of weights, whatever rows they belong to: those whose chunks lanes can be dealt."""

MAX_DROP = 0.01
STEPS = 9
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02)
NOTE = (
    "Thousands of memory clocks until all weights are fetched and decoded; dense: the fetch of the plain arrays "
    "alone. All plans lose at most one point on the search part; the last columns say what they lose on it and the "
    "held-out part together. An accelerator of 200 MHz; each lane takes 64 weights at a time and places one a clock. "
    "Ratio: segments over least bytes."
)


def vit() -> search.Parts:
    """A vision transformer on CIFAR-10 images, by agreement with its dense self."""
    case = one_shot_models.vit()
    images = one_shot_models.resnet20().held_out["input"]  # the same images, in another scale
    mean, deviation = (np.array(x, np.float32)[:, None, None] for x in RESNET)
    pixels = images * deviation + mean
    mean, deviation = (np.array(x, np.float32)[:, None, None] for x in VIT)
    scaled = ((pixels - mean) / deviation).astype(np.float32)
    parts = (Dataset({"input": scaled[part]}) for part in (slice(2500), slice(2500, 5000)))
    return search.Parts(case.path, Dataset(case.calibration), *parts)


RESNET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
VIT = ([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010])
MODELS = {"resnet20": search.resnet20, "lenet5": search.lenet5, "vit": vit}
NAMES = {"resnet20": "ResNet-20", "lenet5": "LeNet-5", "vit": "ViT"}


@cache
def hardware(memory: str, lanes: int) -> Hardware:
    """A memory and the accelerator behind it."""
    found = load_memory(memory)
    # One buffer is a chunk for each lane: tiles are never cut below that.
    accelerator = Accelerator(clock_ratio=found.tCK_ns * MHZ / 1000, buffers=8, buffer_bytes=1)
    return Hardware(found, DecoderSpec(lanes=lanes, encodings=KNOWN), accelerator)


ALL = [(memory, lanes) for memory in MEMORIES.values() for lanes in LANES]


def costs_of(
    array: NDArray[Any], spec: TensorSpec, where: Sequence[tuple[str, int]]
) -> tuple[int, list[int], list[int]]:
    """Least bytes of an array; for each hardware its cycles in that encoding, and least cycles in any."""
    codes = Codes.of(array, spec)
    best, by_bytes, least = -1, [0] * len(where), [0] * len(where)
    for plain in candidates(codes):
        if plain.name not in KNOWN:
            continue
        encoding = type(plain)(**plain.to_config() | {"chunk": CHUNK})
        tensor = encode_tensor(encoding, codes, DecoderSpec())
        cycles = [encoded_cycles(tensor, hardware(*one)).cycles for one in where]
        size = tensor.layout.size.bytes
        if best < 0 or size < best:
            best, by_bytes = size, cycles
        least = [min(old or new, new) for old, new in zip(least, cycles, strict=True)]
    return best, by_bytes, least


@dataclass(frozen=True)
class Ladder:
    """All levels of a model's weights under one pattern.

    Attributes:
        database: of the levels.
        keeps: elements kept at each level, by weight.
        losses: what each level costs the model, by weight.
        candidates: to run the model with any of them.
    """

    database: LevelDatabase
    keeps: Mapping[str, tuple[int, ...]]
    losses: Mapping[str, NDArray[np.float64]]
    candidates: Candidates


def ladder(study: Study, pattern: str, folder: Path) -> Ladder:
    """Build them, or read them again."""
    recipe = load_recipe(None, {"prune": {"pattern": pattern}})
    ruled = study.ruled_by(recipe)
    keeps: dict[str, tuple[int, ...]] = {}
    for _, members in group_weights(ruled.ruled, Recipe().search.groups):
        keeps |= levels_of(members, [ruled.ruled])[0]
    watched = watch(ruled, recipe, (recipe,))
    assert watched is not None
    database = open_levels(
        ruled, recipe, keeps, watched, {}, folder, workers=1, progress=lambda *_: None
    )
    losses = level_losses(
        ruled.collection.weights, database, watched.output_error(), lambda *_: None
    )
    return Ladder(database, keeps, losses, Candidates(study.path, database.names))


def measured(
    study: Study, one: Ladder, where: Sequence[tuple[str, int]], path: Path
) -> dict[str, list[tuple[int, list[int], list[int]]]]:
    """:func:`costs_of` each level of each weight; kept in a file, for that takes minutes."""
    if path.exists():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    made = {}
    for weight in study.collection.weights:
        spec = TensorSpec(weight.name, weight.layout.shape, weight.array().dtype.name)
        entry = one.database.entries[weight.name]
        arrays = [
            one.database.array(weight.name, keep) if keep in entry.keeps else weight.array()
            for keep in one.keeps[weight.name]
        ]
        made[weight.name] = [costs_of(np.ascontiguousarray(x), spec, where) for x in arrays]
    with path.open("w") as file:
        json.dump(made, file)
    return made


class Bench:
    """One model: its plans, and what they lose."""

    def __init__(self, name: str, work: Path) -> None:
        self.name, self.work = name, work
        self.study = search.study_of(MODELS[name]())
        held_out = self.study.held_out
        self.held_out = Evaluator(Session(self.study.path, threads=1), held_out, None, 250)
        self.known = work / f"{name}.drops.json"
        self.drops: dict[str, float] = {}
        if self.known.exists():
            self.drops = json.loads(self.known.read_text())

    def drop(
        self, one: Ladder, pattern: str, levels: Mapping[str, int], *, whole: bool = False
    ) -> float:
        """What a plan loses on the search part, or on that and the held-out part together."""
        key = json.dumps([pattern, whole, list(levels.values())])
        if key not in self.drops:
            keep = {name: one.keeps[name][level] for name, level in levels.items()}
            session = one.candidates.session(one.database.constants(keep), threads=1)
            evaluators = [self.study.evaluator, *([self.held_out] if whole else [])]
            baseline, scores = (
                np.concatenate([score(evaluator) for evaluator in evaluators])
                for score in (lambda e: e.baseline, lambda e: e.scores(session))
            )
            self.drops[key] = paired_drop(baseline, scores).mean
            with self.known.open("w") as file:
                json.dump(self.drops, file)
        return self.drops[key]

    def cheapest(
        self, one: Ladder, pattern: str, costs: Costs, also: Sequence[Mapping[str, int]] = ()
    ) -> dict[str, int]:
        """The plan of least cost that keeps the limit: the budget of least loss, bisected.

        Args:
            one: the levels.
            pattern: of theirs.
            costs: by weight, of each level.
            also: other plans that keep the limit, to start from.
        """
        costs = {name: np.minimum.accumulate(cost) for name, cost in costs.items()}
        total = {name: float(cost[0]) for name, cost in costs.items()}
        low = sum(float(cost.min()) for cost in costs.values()) / sum(total.values())
        high, best = 1.0, dict.fromkeys(costs, 0)
        known = [*also]
        for _ in range(STEPS):
            share = float(np.sqrt(low * high))
            plan = least_loss(costs, one.losses, share * sum(total.values()))
            if self.drop(one, pattern, plan) <= MAX_DROP:
                high = share
                known.append(plan)
            else:
                low = share

        def cost(plan: Mapping[str, int]) -> float:
            return sum(float(costs[name][level]) for name, level in plan.items())

        return dict(min([best, *known], key=cost))

    def run(self) -> list[dict[str, Any]]:
        """A row for each hardware."""
        plain = ladder(self.study, "unstructured", self.work / f"{self.name}.levels")
        known = measured(self.study, plain, ALL, self.work / f"{self.name}.costs.json")
        sizes = {
            name: np.array([level[0] for level in levels], float) for name, levels in known.items()
        }
        small = self.cheapest(plain, "unstructured", sizes)
        rows = []
        for number, (memory, lanes) in enumerate(ALL):
            by_bytes = sum(known[name][level][1][number] for name, level in small.items())
            costs = {
                name: np.array([x[2][number] for x in levels], float)
                for name, levels in known.items()
            }
            fast = self.cheapest(plain, "unstructured", costs, [small])
            row = {
                "model": self.name,
                "memory": memory,
                "lanes": lanes,
                "dense": self.dense(memory, lanes),
                "bytes": by_bytes,
                "cycles": sum(int(costs[name][level]) for name, level in fast.items()),
                "size": sum(int(sizes[name][level]) for name, level in small.items()),
                "bytes_drop": self.drop(plain, "unstructured", small, whole=True),
                "cycles_drop": self.drop(plain, "unstructured", fast, whole=True),
            }
            if lanes > 1:
                row |= self.patterned(memory, lanes)
            print(row, flush=True)
            rows.append(row)
        return rows

    def patterned(self, memory: str, lanes: int) -> dict[str, Any]:
        """The plan of least cycles with the pattern of so many lanes."""
        pattern = f"segments:{lanes}x{CHUNK}"
        one = patterned_ladder(self, lanes)
        where = [(other, lanes) for other in MEMORIES.values()]
        known = measured(self.study, one, where, self.work / f"{self.name}.{lanes}.costs.json")
        number = where.index((memory, lanes))
        costs = {
            name: np.array([x[2][number] for x in levels], float) for name, levels in known.items()
        }
        plan = self.cheapest(one, pattern, costs)
        return {
            "segments": sum(int(costs[name][level]) for name, level in plan.items()),
            "segments_drop": self.drop(one, pattern, plan, whole=True),
        }

    def dense(self, memory: str, lanes: int) -> int:
        """Cycles of the plain arrays."""
        total = 0
        for weight in self.study.collection.weights:
            spec = TensorSpec(weight.name, weight.layout.shape, weight.array().dtype.name)
            total += dense_cycles(Codes.of(weight.array(), spec), hardware(memory, lanes)).cycles
        return total


@cache
def patterned_ladder(bench: Bench, lanes: int) -> Ladder:
    """The levels of a model under the pattern of so many lanes."""
    pattern = f"segments:{lanes}x{CHUNK}"
    return ladder(bench.study, pattern, bench.work / f"{bench.name}.{lanes}.levels")


def layer_rows() -> list[dict[str, Any]]:
    """One layer at each density, on each hardware: how much of the cycles are left with the pattern."""
    size = 1 << 20
    values = np.random.default_rng(0).standard_normal((1, 1024, 1024)).astype(np.float32)
    spec = TensorSpec("w", values.shape[1:], "float32")
    rows = []
    for density in DENSITIES:
        keep = int(size * density)
        plain = Unstructured().mask(np.abs(values), keep)
        _, by_bytes, least = costs_of(np.where(plain, values, 0)[0], spec, ALL)
        for number, (memory, lanes) in enumerate(ALL):
            mask = Segments(lanes=lanes, chunk=CHUNK).mask(np.abs(values), keep)
            array = np.where(mask, values, 0)[0]
            _, _, [even] = costs_of(array, spec, [(memory, lanes)])
            rows.append(
                {
                    "memory": memory,
                    "lanes": lanes,
                    "density": density,
                    "bytes": by_bytes[number],
                    "cycles": least[number],
                    "segments": even,
                    "kept": float((values**2 * mask).sum() / (values**2 * plain).sum()),
                }
            )
            print(rows[-1], flush=True)
    return rows


def burst_rows() -> list[dict[str, Any]]:
    """The same layer as masks and values in chunks that begin at bursts, with the pattern and without."""
    values = np.random.default_rng(0).standard_normal((1, 1024, 1024)).astype(np.float32)
    spec = TensorSpec("w", values.shape[1:], "float32")
    rows = []
    for label, name in MEMORIES.items():
        memory = load_memory(name)
        pattern = Burst(burst=memory.unit_bytes, chunk=1024)
        for density in DENSITIES:
            made = {}
            for which in (Unstructured(), pattern):
                mask = which.mask(np.abs(values), int(values.size * density))
                codes = Codes.of(np.where(mask, values, 0)[0], spec)
                tensor = encode_tensor(Bitmask(chunk=1024, align=memory.unit_bytes), codes, None)
                cycles = encoded_cycles(tensor, Hardware(memory))
                made[which is pattern] = cycles, float((values**2 * mask).sum())
            rows.append(
                {
                    "memory": label,
                    "burst": memory.unit_bytes,
                    "density": density,
                    "padding": made[False][0].padding_bytes / made[False][0].fetched_bytes,
                    "padding_left": made[True][0].padding_bytes / made[True][0].fetched_bytes,
                    "cycles": made[True][0].cycles / made[False][0].cycles,
                    "kept": made[True][1] / made[False][1],
                }
            )
    return rows


def shown_bursts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of bursts."""
    forms = {"memory": "{}", "burst": "burst, bytes|{}", "density": "{:.0%}"}
    forms |= {"padding": "fetched for nothing|{:.1%}", "padding_left": "with burst|{:.1%}"}
    forms |= {"cycles": "cycles, with over without|{:.3f}", "kept": "squares kept|{:.4f}"}
    note = (
        "A layer of 1024 x 1024 float32 as bit masks and values, in chunks of 1024 that each begin at a burst: what "
        "`burst:MEMORY` makes of the bytes that only fill bursts up, at the same number of weights."
    )
    return record.table("Chunks that fill their bursts", rows, forms, note)


def shown(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of models."""
    labels = {name: label for label, name in MEMORIES.items()}
    lines = []
    for row in rows:
        line = {
            key: row[key] / 1000 for key in ("dense", "bytes", "cycles", "segments") if key in row
        }
        line |= {key: 100 * value for key, value in row.items() if key.endswith("_drop")}
        ratio = {"ratio": row["segments"] / row["bytes"]} if "segments" in row else {}
        lines.append(
            {"model": NAMES[row["model"]], "memory": labels[row["memory"]], "lanes": row["lanes"]}
            | line
            | ratio
        )
    forms = {"model": "{}", "memory": "{}", "lanes": "{}", "dense": "{:.1f}"}
    forms |= {"bytes": "least bytes|{:.1f}", "cycles": "least cycles|{:.1f}", "segments": "{:.1f}"}
    forms |= {"ratio": "{:.2f}", "bytes_drop": "points lost, bytes|{:.2f}"}
    forms |= {"cycles_drop": "cycles|{:.2f}", "segments_drop": "with segments|{:.2f}"}
    return record.table("Fetch cycles of whole models at equal accuracy", lines, forms, NOTE)


def shown_layer(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The table of one layer: the pattern's cycles over those of least bytes, by density."""
    labels = {name: label for label, name in MEMORIES.items()}
    lines = []
    for memory, lanes in ALL:
        line: dict[str, Any] = {"memory": labels[memory], "lanes": lanes}
        for row in rows:
            if (row["memory"], row["lanes"]) == (memory, lanes):
                line[f"{row['density']:.0%}"] = row["segments"] / row["bytes"]
                line[f"{row['density']:.0%} kept"] = row["kept"]
        lines.append(line)
    forms = {"memory": "{}", "lanes": "{}"}
    forms |= {f"{density:.0%}": f"{density:.0%} dense|{{:.2f}}" for density in DENSITIES}
    forms |= {"10% kept": "squares kept at 10%|{:.3f}"}
    note = (
        "A layer of 1024 x 1024: cycles with `segments:Lx64` in the encoding of least cycles, over those without "
        "a pattern in the encoding of least bytes, at the same number of weights. Last: the squares of what "
        "the pattern keeps at 10 %, over those of the largest weights."
    )
    return record.table("Where a pattern for the lanes pays", lines, forms, note)


def main() -> None:
    """Measure, print the tables, write JSON and the page's part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=list(MODELS))
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "codesign_cycles")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    figures = record.read(__file__) or {"models": [], "layer": []}
    figures["memories"] = {name: label for label, name in MEMORIES.items()}
    for name in options.models:
        rows = Bench(name, options.work).run()
        others = [row for row in figures["models"] if row["model"] != name]
        figures["models"] = sorted(others + rows, key=lambda row: list(MODELS).index(row["model"]))
        record.write(__file__, [shown(figures["models"])], figures)
    figures |= {"layer": layer_rows(), "bursts": burst_rows()}
    tables = [
        shown(figures["models"]),
        shown_layer(figures["layer"]),
        shown_bursts(figures["bursts"]),
    ]
    record.write(__file__, tables, figures)
    codesign_plot.PLOT.write_text(codesign_plot.plot(), encoding="utf-8")
    for one in tables:
        for line in one["rows"]:
            print("  ".join(line))


if __name__ == "__main__":
    main()
