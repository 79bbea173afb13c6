"""What a search works on: one model, its weights, its data in three parts, and its dense scores."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.evaluate import Evaluator, split
from onnxprune.model_io import data_files, load_model, save_model
from onnxprune.paired import Drop, paired_drop
from onnxprune.plan import masks_of
from onnxprune.runtime import Session
from onnxprune.selection import select
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from onnxprune.data import Dataset, DataSource
    from onnxprune.recipe import Recipe
    from passes.weights import Collection, Weight

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
        by_name = {weight.name: weight for weight in self.collection.weights}
        overrides = {
            name: by_name[name].masked(mask)
            for name, mask in masks_of(self.collection.weights, keep).items()
        }
        return paired_drop(self.evaluator.baseline, self.evaluator.scores(self._session(overrides)))

    def _session(self, arrays: Mapping[str, NDArray[Any]]) -> Session:
        """The model with other arrays in the place of some weights.

        onnxruntime takes them as they are for initializers of the main graph; for weights in
        Constant nodes, bodies and functions the model is written with them.
        """
        by_name = {weight.name: weight for weight in self.collection.weights}
        if all(_is_main_initializer(by_name[name], self.model) for name in arrays):
            return Session(self.path, overrides=arrays, threads=self.threads)
        changed = load_model(self.path)
        for weight in collect_weights(changed, embeddings=True).weights:
            if weight.name in arrays:
                weight.assign(arrays[weight.name])
        with tempfile.TemporaryDirectory() as folder:
            candidate = Path(folder) / "candidate.onnx"
            save_model(changed, candidate)
            return Session(candidate, threads=self.threads)

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """What a journal must match to be resumed: model, data, and all that shapes the search."""
        settings = recipe.model_dump(mode="json")
        del settings["search"]["trials"]  # a search may be continued with more trials
        return {
            "model": _fingerprint([self.path, *data_files(self.model)]),
            "data": self.data_fingerprint,
            **{f"recipe.{name}": json.dumps(value) for name, value in settings.items()},
        }


def _is_main_initializer(weight: Weight, model: ir.Model) -> bool:
    return weight.place == "initializer" and weight.graph is model.graph


def _fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 over the bytes of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()


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
