"""What a search works on: one model, its weights, its data in three parts, and its dense scores."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.evaluate import Evaluator, split
from onnxprune.files import sha256_of
from onnxprune.memories import find_memory
from onnxprune.model_io import data_files, load_model
from onnxprune.report import ModelReport, describe_model
from onnxprune.rules import Ruled, apply_rules
from onnxprune.runtime import Session
from passes.weights import collect_weights

if TYPE_CHECKING:
    from pathlib import Path

    import onnx_ir as ir

    from onnxprune.data import Dataset, DataSource
    from onnxprune.recipe import Recipe
    from passes.weights import Collection

MIN_SAMPLES = 10

FEEDS = 16
"""The search split is fed in about so many pieces, so that a race can stop between them ..."""
FEED_SAMPLES = (32, 256)
"""... of no fewer and no more samples than these."""

NOT_OF_THE_SEARCH = ("trials", "minutes", "workers", "backend", "scheduler")
"""What may change when a search is resumed."""


@dataclass(frozen=True, eq=False)
class Study:
    """A model and its data, ready to be searched.

    Attributes:
        path: of the dense model.
        model: the model read; passes may change it after the search.
        ruled: what is pruned, as the recipe selects it, and what its rules settle beforehand.
        calibration, search, held_out: the three parts of the data.
        evaluator: scores candidates on the search part.
        threads: of onnxruntime.
        data_fingerprint: of the whole data.
        described: the dense model, for the report.
    """

    path: Path
    model: ir.Model
    ruled: Ruled
    calibration: Dataset
    search: Dataset
    held_out: Dataset
    evaluator: Evaluator
    threads: int | None
    data_fingerprint: str
    described: ModelReport

    def model_fingerprint(self) -> str:
        """SHA-256 of the model's file and its data files."""
        return sha256_of(self.path, *data_files(self.model))

    @property
    def collection(self) -> Collection:
        """What is pruned."""
        return self.ruled.collection

    def ruled_by(self, recipe: Recipe) -> Study:
        """The same study as another recipe selects and rules; its weights are the same."""
        return replace(self, ruled=apply_rules(collect_weights(self.model), recipe))

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """What a journal must match to be resumed: model, data, and all that shapes the search."""
        settings = recipe.model_dump(mode="json")
        for name in NOT_OF_THE_SEARCH:  # a search may be continued with more trials, or elsewhere
            del settings["search"][name]
        del settings["finetune"]  # a search does not train
        if recipe.unit == "cycles":  # a file's content, not its path
            settings["memory"] = find_memory(recipe.estimate.memory).describe()
        return {
            "model": self.model_fingerprint(),
            "data": self.data_fingerprint,
            **{f"recipe.{name}": json.dumps(value) for name, value in settings.items()},
        }


def open_study(
    path: Path,
    data: DataSource,
    recipe: Recipe,
    *,
    threads: int | None = None,
    label: str | None = None,
) -> Study:
    """Read model and data, deal the data by the recipe's seed, and score the dense model.

    Raises:
        ModelError, DataError, RecipeError: when one of them cannot be used.
    """
    model = load_model(path)
    ruled = apply_rules(collect_weights(model), recipe)
    dense = Session(path, threads=threads)
    samples = load_data(data, dense.inputs)
    if len(samples) < MIN_SAMPLES:
        msg = f"a search needs at least {MIN_SAMPLES} samples, found {len(samples)}; give more data"
        raise DataError(msg)
    parts = split(
        len(samples), recipe.seed, calibration=recipe.data.calibration, search=recipe.data.search
    )
    # In random order: a race looks at the first samples first.
    order = np.random.default_rng([recipe.seed, 1]).permutation(parts.search)
    search = samples.take(order)
    size = int(np.clip(len(search) // FEEDS, *FEED_SAMPLES))
    return Study(
        path=path,
        model=model,
        ruled=ruled,
        calibration=samples.take(parts.calibration),
        search=search,
        held_out=samples.take(parts.held_out),
        evaluator=Evaluator(dense, search, recipe.data.metric, size),
        threads=threads,
        data_fingerprint=samples.fingerprint(),
        described=replace(describe_model(path, model), path=label or str(path)),
    )
