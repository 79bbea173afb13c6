"""What a search works on: one model, its weights, its data in three parts, and its dense scores."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxprune.data import load_data
from onnxprune.errors import DataError
from onnxprune.evaluate import Evaluator, split
from onnxprune.model_io import data_files, load_model, model_bytes, save_model
from onnxprune.paired import Drop, paired_drop
from onnxprune.plan import masks_of
from onnxprune.report import ModelReport, describe_model
from onnxprune.rules import Ruled, apply_rules
from onnxprune.runtime import Session
from passes.apply import ApplyMasksPass
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import onnx_ir as ir

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

    @property
    def collection(self) -> Collection:
        """What is pruned."""
        return self.ruled.collection

    def drop_of(self, keep: Mapping[str, int]) -> Drop:
        """The drop on the search part when each weight keeps so many elements by magnitude."""
        pruned = self.model.clone()
        ApplyMasksPass(masks_of(self.collection.weights, keep, self.ruled.patterns))(pruned)
        scores = self.evaluator.scores(self._session(pruned))
        return paired_drop(self.evaluator.baseline, scores)

    def _session(self, model: ir.Model) -> Session:
        """A changed model, loaded; through a file where its data need one."""
        if not data_files(self.model):
            return Session(model_bytes(model), threads=self.threads)
        with tempfile.TemporaryDirectory() as folder:
            candidate = Path(folder) / "candidate.onnx"
            save_model(model, candidate)
            return Session(candidate, threads=self.threads)

    def identity(self, recipe: Recipe) -> dict[str, str]:
        """What a journal must match to be resumed: model, data, and all that shapes the search."""
        settings = recipe.model_dump(mode="json")
        del settings["search"]["trials"]  # a search may be continued with more trials
        del settings["finetune"]  # a search does not train
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
    search = samples.take(parts.search)
    return Study(
        path=path,
        model=model,
        ruled=ruled,
        calibration=samples.take(parts.calibration),
        search=search,
        held_out=samples.take(parts.held_out),
        evaluator=Evaluator(dense, search, recipe.data.metric),
        threads=threads,
        data_fingerprint=samples.fingerprint(),
        described=replace(describe_model(path, model), path=label or str(path)),
    )
