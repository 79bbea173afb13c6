"""From a study and a recipe to the database of levels of its weights."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from onnxprune.blas import blas_threads
from onnxprune.calibrating import Calibration, calibration
from onnxprune.errors import RecipeError
from onnxprune.search.database import LevelDatabase, Request, build_levels
from passes.layers import find_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from onnxprune.recipe import Recipe
    from onnxprune.study import Study
    from passes.moments import Moments


def watch(study: Study, recipe: Recipe, variants: Sequence[Recipe]) -> Calibration | None:
    """The calibration part of the data, ready to be run; None where no method needs it.

    Args:
        study: the model and its data.
        recipe: all settings.
        variants: of it, whose methods are asked.

    Raises:
        RecipeError: when a method needs data and the recipe leaves no part for calibration.
    """
    methods = [variant.prune.method for variant in variants]
    needing = [method for method in methods if method != "magnitude"]
    if not needing:
        return None
    if not len(study.calibration):
        msg = (
            f"prune.method {needing[0]} needs calibration data: set data.calibration above 0, "
            "or prune.method=magnitude"
        )
        raise RecipeError(msg)
    return calibration(study.model, study.calibration, threads=study.threads, seed=recipe.seed)


def open_levels(
    study: Study,
    recipe: Recipe,
    keeps: Mapping[str, tuple[int, ...]],
    watched: Calibration | None,
    known: dict[str, Moments],
    folder: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None],
) -> LevelDatabase:
    """The database of all levels, built where it is not there yet.

    Args:
        study: the model and its data.
        recipe: method, damping, pattern and seed.
        keeps: by weight, elements kept at each level, falling.
        watched: of :func:`watch`.
        known: moments of layers' inputs by weight; those that are missing are taken, and added.
        folder: of the database.
        workers: weights that are pruned at the same time, in threads.
        progress: told of weights done and in all.

    Raises:
        RunError: when the folder holds other levels.
        DataError: when an activation holds NaN or infinity.
        OutputError: when it cannot be written.
    """
    database = LevelDatabase(folder, _header(study, recipe, keeps))
    weights = study.collection.weights
    plain = recipe.prune.method == "magnitude"
    layers = {} if plain else {x.name: x for x in find_layers(study.model.graph, weights)}
    missing = [
        layers[weight.name]
        for number, weight in enumerate(weights)
        if weight.name in layers and not database.has(number) and weight.name not in known
    ]
    if watched is not None and missing:
        known |= watched.moments(missing)
    requests = [
        Request(
            weight,
            tuple(dict.fromkeys(keep for keep in keeps[weight.name] if keep < weight.elements)),
            layers.get(weight.name),
            known.get(weight.name),
            study.ruled.patterns[weight.name],
            recipe.prune.method,
            recipe.prune.damping,
        )
        for weight in weights
    ]

    def run(todo: Sequence[tuple[Request, Path]]) -> Iterator[None]:
        # Many small systems: one thread of linear algebra for each weight is faster than several for
        # one, and the same bits come out on every machine.
        with blas_threads(1), ThreadPoolExecutor(workers) as pool:
            yield from pool.map(build_levels, *zip(*todo, strict=True)) if todo else ()

    database.build(requests, run, progress)
    return database


def _header(
    study: Study, recipe: Recipe, keeps: Mapping[str, tuple[int, ...]]
) -> dict[str, str | float]:
    settings = {
        "prune": recipe.prune.model_dump(mode="json", exclude={"reconstruct"}),
        "rules": [rule.model_dump(mode="json") for rule in recipe.rules],
        "data": recipe.data.model_dump(mode="json"),
        "seed": recipe.seed,
        "keeps": {name: list(counts) for name, counts in keeps.items()},
    }
    return {
        "model": study.model_fingerprint(),
        "data": study.data_fingerprint,
        "method": recipe.prune.method,
        "settings": hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest(),
    }
