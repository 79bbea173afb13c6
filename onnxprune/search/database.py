"""Every weight pruned to every level of its ladder, once, on disk: trials put levels together.

A database is a folder with, for each weight, an array of its levels (``0003.npy``, levels first) and one
of the biases that go with them (``0003.bias.npy``), both memory-mapped when read, and ``0003.json``, written
last, with what is known of each level. So a build that was killed goes on with the weights that are
missing. ``levels.json`` says what the database is of; another model, data or method is refused.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np

from onnxprune.errors import RunError
from onnxprune.files import output_error, replacing, write_text
from passes.levels import prune_levels
from passes.saliency import magnitude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from passes.layers import Layer
    from passes.methods import Method
    from passes.moments import Moments
    from passes.patterns import Pattern
    from passes.weights import Weight

HEADER = "levels.json"
STEPS = 15
"""Of ADMM at each level; the final model is pruned anew, with more."""


@dataclass(frozen=True)
class Request:
    """One weight's levels to be built.

    Attributes:
        weight: dense.
        keeps: elements to keep at each level, falling; all of them need no level.
        layer: what is known of the node that reads it, or None where that cannot be watched: then it
            is pruned by magnitude.
        moments: of the layer's inputs.
        pattern: the shape of masks.
        method: that prunes.
        damping: of the Hessian.
    """

    weight: Weight
    keeps: tuple[int, ...]
    layer: Layer | None
    moments: Moments | None
    pattern: Pattern
    method: Method
    damping: float


@dataclass(frozen=True)
class _Built:
    """One level as it is written."""

    constants: Mapping[str, NDArray[Any]]
    kept: int
    error: float
    method: str


@dataclass(frozen=True)
class Entry:
    """What is known of one weight's levels.

    Attributes:
        keeps: asked for at each level.
        kept: mask elements that were kept at each level; a pattern may keep fewer.
        errors: of its outputs as a share of their variance, at each level.
        bias: name of the bias that goes with it, or None.
        method: how it was pruned, in words.
        dtypes: of the weight and of the bias.
    """

    keeps: tuple[int, ...]
    kept: tuple[int, ...]
    errors: tuple[float, ...]
    bias: str | None
    method: str
    dtypes: tuple[str, str]


@final
class LevelDatabase:
    """The levels of all weights.

    Args:
        folder: made when missing.
        header: what identifies the levels (JSON values).

    Raises:
        RunError: when the folder holds the levels of something else, or is damaged.
        OutputError: when it cannot be written.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]) -> None:
        self.folder = folder
        self.entries: dict[str, Entry] = {}
        self._numbers: dict[str, int] = {}
        self._arrays: dict[str, tuple[NDArray[Any], NDArray[Any] | None]] = {}
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise output_error(folder, error) from error
        path = folder / HEADER
        if path.exists():
            found = _read(path)
            changed = sorted(key for key in {*found, *header} if found.get(key) != header.get(key))
            if changed:
                msg = (
                    f"'{folder}' holds levels of another search: {', '.join(changed)} changed; name "
                    "another folder, or delete it"
                )
                raise RunError(msg)
        else:
            write_text(path, json.dumps(dict(header), indent=1) + "\n")

    def build(
        self,
        requests: Sequence[Request],
        run: Callable[[Sequence[tuple[Request, Path]]], Iterable[Any]],
        progress: Callable[[int, int], None],
    ) -> None:
        """Build the levels that are missing.

        Args:
            requests: of all weights.
            run: calls :func:`build_levels` for each pair that it is given, and may do so in parallel;
                yields when one is done.
            progress: told of weights done and in all.
        """
        jobs = [(request, self.folder / f"{number:04d}") for number, request in enumerate(requests)]
        todo = [(request, stem) for request, stem in jobs if not _done(stem)]
        progress(len(jobs) - len(todo), len(jobs))
        for number, _ in enumerate(run(todo)):
            progress(len(jobs) - len(todo) + number + 1, len(jobs))
        for number, (request, stem) in enumerate(jobs):
            fields = _read(stem.with_suffix(".json"))
            self.entries[request.weight.name] = Entry(
                tuple(fields["keeps"]),
                tuple(fields["kept"]),
                tuple(fields["errors"]),
                fields["bias"],
                fields["method"],
                tuple(fields["dtypes"]),
            )
            self._numbers[request.weight.name] = number

    def has(self, number: int) -> bool:
        """Whether the levels of the weight of that number are there."""
        return _done(self._stem(number))

    @property
    def names(self) -> set[str]:
        """All constants that a level may change: weights and their biases."""
        return {*self.entries} | {e.bias for e in self.entries.values() if e.bias is not None}

    def kept(self, name: str, keep: int) -> int:
        """How many elements a weight's mask keeps where ``keep`` are asked for."""
        entry = self.entries[name]
        return entry.kept[entry.keeps.index(keep)] if keep in entry.keeps else keep

    def array(self, name: str, keep: int) -> NDArray[Any]:
        """A weight in stored form at one of its levels; memory-mapped."""
        level = self.entries[name].keeps.index(keep)
        found: NDArray[Any] = self._mapped(name)[0][level]
        return found

    def constants(self, keep: Mapping[str, int]) -> dict[str, NDArray[Any]]:
        """What to put in the model's place for a candidate, by initializer name.

        Args:
            keep: elements to keep by weight; each one of the weight's levels, or all of them.
        """
        made: dict[str, NDArray[Any]] = {}
        for name, count in keep.items():
            entry = self.entries[name]
            if count in entry.keeps:
                level = entry.keeps.index(count)
                weights, biases = self._mapped(name)
                made[name] = weights[level]
                if entry.bias is not None and biases is not None:
                    made[entry.bias] = biases[level]
        return made

    def remove(self) -> None:
        """Delete the folder."""
        self._arrays.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _stem(self, number: int) -> Path:
        return self.folder / f"{number:04d}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    def _mapped(self, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
        if name not in self._arrays:
            stem, entry = self._stem(self._numbers[name]), self.entries[name]
            bias = None
            if entry.bias is not None:
                bias = _mapped(stem.with_suffix(".bias.npy"), entry).view(entry.dtypes[1])
            self._arrays[name] = (
                _mapped(stem.with_suffix(".npy"), entry).view(entry.dtypes[0]),
                bias,
            )
        return self._arrays[name]


def build_levels(request: Request, stem: Path) -> None:
    """Prune one weight to all its levels and write them.

    Raises:
        OutputError: when they cannot be written.
    """
    name = request.weight.name
    levels = list(_levels(request))
    others = [other for other in levels[0].constants if other != name] if levels else []
    bias = others[0] if others else None
    _save(stem.with_suffix(".npy"), [level.constants[name] for level in levels])
    if bias is not None:
        _save(stem.with_suffix(".bias.npy"), [level.constants[bias] for level in levels])
    fields = {
        "keeps": request.keeps,
        "kept": [level.kept for level in levels],
        "errors": np.maximum.accumulate([level.error for level in levels] or [0.0]).tolist(),
        "bias": bias,
        "method": levels[0].method if levels else request.method,
        "dtypes": [str(request.weight.dtype), str(levels[0].constants[bias].dtype) if bias else ""],
    }
    write_text(stem.with_suffix(".json"), json.dumps(fields) + "\n")


def _levels(request: Request) -> Iterator[_Built]:
    weight = request.weight
    if request.layer is not None and request.moments is not None:
        for level in prune_levels(
            request.layer,
            request.moments,
            request.pattern,
            request.keeps,
            method=request.method,
            damping=request.damping,
            steps=STEPS,
        ):
            yield _Built(level.constants, level.kept, level.error, level.method)
        return
    dense = weight.matrices()
    power = (dense.astype(np.float64)) ** 2
    total = max(float(power.sum()), np.finfo(np.float64).tiny)
    scores = magnitude(dense)
    for keep in request.keeps:
        mask = request.pattern.mask(scores, keep)
        error = 1 - float(power[mask].sum()) / total
        yield _Built({weight.name: weight.masked(mask)}, int(mask.sum()), error, "magnitude")


def _save(path: Path, arrays: Sequence[NDArray[Any]]) -> None:
    """Write arrays one after the other; dtypes that numpy's format does not know as plain bits."""
    stacked = np.stack(arrays) if arrays else np.zeros((0,))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, stacked.view(_stored(stacked.dtype)), allow_pickle=False)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return dtype if dtype.isbuiltin == 1 else np.dtype(f"u{dtype.itemsize}")


def _mapped(path: Path, entry: Entry) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        msg = f"'{path}' is damaged ({error}); delete its folder and search again"
        raise RunError(msg) from error
    if len(array) != len(entry.keeps):
        msg = f"'{path}' holds {len(array)} levels, its weight has {len(entry.keeps)}; delete its folder"
        raise RunError(msg)
    return array


def _done(stem: Path) -> bool:
    return stem.with_suffix(".json").exists()


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        msg = f"'{path}' is damaged ({error}); delete its folder and search again"
        raise RunError(msg) from error
