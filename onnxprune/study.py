"""What a search works on: one model, its weights, its data in three parts, and its dense scores."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.evaluate import Evaluator, split
from onnxprune.model_io import load_model, model_bytes
from onnxprune.paired import Drop, paired_drop
from onnxprune.plan import masks_of
from onnxprune.runtime import Session
from onnxprune.selection import select
from passes.apply import ApplyMasksPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import onnx_ir as ir

    from onnxprune.data import Dataset, DataSource
    from onnxprune.recipe import Recipe
    from passes.weights import Collection

MIN_SAMPLES = 10


@dataclass(frozen=True, eq=False)
class Study:
    """A model and its data, ready to be searched.

    Attributes:
        path: of the dense model.
        model: the model read; passes may change it after the search.
        collection: what can be pruned, as the recipe selects it.
        calibration, search, held_out: the three parts of the data.
        evaluator: scores candidates on the search part.
        threads: of onnxruntime.
        data_fingerprint: of the whole data.
    """

    path: Path
    model: ir.Model
    collection: Collection
    calibration: Dataset
    search: Dataset
    held_out: Dataset
    evaluator: Evaluator
    threads: int | None
    data_fingerprint: str

    def drop_of(self, keep: Mapping[str, int]) -> Drop:
        """The drop on the search part when each weight keeps so many elements by magnitude."""
        pruned = self.model.clone()
        ApplyMasksPass(masks_of(self.collection.weights, keep))(pruned)
        candidate = Session(model_bytes(pruned), threads=self.threads)
        return paired_drop(self.evaluator.baseline, self.evaluator.scores(candidate))

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """What a journal must match to be resumed: model, data, and all that shapes the search."""
        settings = recipe.model_dump(mode="json")
        del settings["search"]["trials"]  # a search may be continued with more trials
        del settings["finetune"]  # a search does not train
        return {
            "model": hashlib.sha256(self.path.read_bytes()).hexdigest(),
            "data": self.data_fingerprint,
            **{f"recipe.{name}": json.dumps(value) for name, value in settings.items()},
        }


def open_study(
    path: Path, data: DataSource, recipe: Recipe, *, threads: int | None = None
) -> Study:
    """Read model and data, deal the data by the recipe's seed, and score the dense model.

    Raises:
        ModelError, DataError, RecipeError: when one of them cannot be used.
    """
    model = load_model(path)
    collection = select(
        collect_weights(model), recipe.prune.nodes_to_exclude, recipe.prune.op_types_to_prune
    )
    dense = Session(path, threads=threads)
    samples = load_data(data, dense.inputs)
    if len(samples) < MIN_SAMPLES:
        msg = f"a search needs at least {MIN_SAMPLES} samples, found {len(samples)}; give more data"
        raise DataError(msg)
    parts = split(
        len(samples), recipe.seed, calibration=recipe.data.calibration, search=recipe.data.search
    )
    search = samples.take(parts.search)
    return Study(
        path=path,
        model=model,
        collection=collection,
        calibration=samples.take(parts.calibration),
        search=search,
        held_out=samples.take(parts.held_out),
        evaluator=Evaluator(dense, search, recipe.data.metric),
        threads=threads,
        data_fingerprint=samples.fingerprint(),
    )
