"""Calibration and evaluation data: where they come from, and whether they fit the model.

Data are an ``.npz`` file (an array for each model input by name, first axis = samples, labels under
``labels``; a lone array may stand for a lone input), a folder of such files, ``module:function``
that returns feeds or a ``CalibrationDataReader``, or the same things as Python objects.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from onnxprune.errors import DataError
from onnxprune.npz import read_npz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from onnxprune.runtime import InputSpec

LABELS = "labels"

MAX_CALIBRATION = 1024
"""More calibration samples than these cost memory and time and no longer change the result."""

Feeds = dict[str, "NDArray[Any]"]


@runtime_checkable
class DataReader(Protocol):
    """The duck type of ``onnxruntime.quantization.CalibrationDataReader``."""

    def get_next(self) -> Mapping[str, NDArray[Any]] | None:
        """The next feed, or None when there is none left."""


DataSource = str | Path | DataReader | Mapping[str, Any] | Iterable[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples for a model.

    Attributes:
        inputs: an array for each model input; the first axis counts samples.
        labels: labels of the samples, first axis = samples, or None.
        stacked: by input, True where a sample has all the axes of the model's input (its own batch
            axis too), so that samples are fed one at a time.
    """

    inputs: Mapping[str, NDArray[Any]]
    labels: NDArray[Any] | None = None
    stacked: bool = False

    def __len__(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def take(self, indices: NDArray[np.intp]) -> Dataset:
        """The samples at ``indices``, in that order."""
        inputs = {name: array[indices] for name, array in self.inputs.items()}
        labels = None if self.labels is None else self.labels[indices]
        return Dataset(inputs, labels, self.stacked)

    def drawn(self, most: int, seed: int) -> NDArray[np.intp]:
        """Indices of up to ``most`` samples drawn by seed, rising; all where there are no more."""
        drawn = np.random.default_rng(seed).choice(len(self), min(most, len(self)), replace=False)
        return np.sort(drawn)

    def limited(self, most: int, seed: int) -> Dataset:
        """The samples :meth:`drawn`; the same data set where there are no more."""
        return self if len(self) <= most else self.take(self.drawn(most, seed))

    def fingerprint(self) -> str:
        """SHA-256 over names, dtypes, shapes and values, as hexadecimal digits."""
        digest = hashlib.sha256()
        arrays = dict(self.inputs) if self.labels is None else {**self.inputs, LABELS: self.labels}
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.data)
        return digest.hexdigest()

    def batches(self, size: int) -> Iterator[Feeds]:
        """Feeds of up to ``size`` samples each, in order; one sample each when stacked."""
        if self.stacked:
            for index in range(len(self)):
                yield {name: array[index] for name, array in self.inputs.items()}
            return
        for start in range(0, len(self), size):
            yield {name: array[start : start + size] for name, array in self.inputs.items()}


def load_data(source: DataSource, specs: tuple[InputSpec, ...]) -> Dataset:
    """Read data from any source and check them against the inputs of a model.

    Raises:
        DataError: naming the file or input, what was found and what the model takes.
    """
    arrays, label = _read(source), _label_of(source)
    labels = arrays.pop(LABELS, None) if LABELS not in {spec.name for spec in specs} else None
    if len(specs) == 1 and len(arrays) == 1:
        arrays = {specs[0].name: next(iter(arrays.values()))}
    _check_names(arrays, specs, label)
    _check_counts(arrays, labels, label)
    extra_axes = {_check_input(arrays[spec.name], spec, label) for spec in specs}
    if len(extra_axes) > 1:
        msg = (
            f"{label}: either every input has one axis more than the model's (samples) or none has"
        )
        raise DataError(msg)
    inputs = {spec.name: arrays[spec.name] for spec in specs}
    return Dataset(inputs, labels, stacked=extra_axes == {1})


def random_data(
    specs: tuple[InputSpec, ...],
    samples: int,
    seed: int,
    *,
    size: int = 1,
    whole: int | None = None,
) -> Dataset:
    """Seeded random samples in the shapes that a model takes.

    Floats are standard normal. Integers are 0 or 1, the only values safe for indices, masks and
    sizes; uint8 covers its whole range, for it is an image more often than not.

    Args:
        specs: the inputs.
        samples: how many.
        seed: of all of them.
        size: of axes that the model leaves open.
        whole: the one value of all integers, for models that take sizes as inputs; floats, which
            are penalties and thresholds there, are then positive.
    """
    rng = np.random.default_rng(seed)
    inputs: Feeds = {}
    for spec in specs:
        shape = (samples, *(size if known is None else known for known in spec.shape))
        if spec.dtype.kind == "f" or spec.dtype.name == "bfloat16":
            drawn = rng.standard_normal(shape)
            inputs[spec.name] = (drawn if whole is None else np.abs(drawn)).astype(spec.dtype)
        elif whole is not None and spec.dtype.kind in "iu":
            inputs[spec.name] = np.full(shape, whole, spec.dtype)
        else:
            high = 256 if spec.dtype == np.uint8 else 2
            inputs[spec.name] = rng.integers(0, high, shape).astype(spec.dtype)
    return Dataset(inputs, stacked=True)


def _read(source: DataSource) -> Feeds:
    if isinstance(source, str) and ":" in source and not Path(source).exists():
        return _concatenate(_feeds(_call(source)), source)
    if isinstance(source, (str, Path)):
        return _read_path(Path(source))
    if isinstance(source, Mapping):
        return {str(name): np.asarray(array) for name, array in source.items()}
    return _concatenate(_feeds(source), "the data")


def _read_path(path: Path) -> Feeds:
    if not path.is_dir():
        return read_npz(path)
    files = sorted(path.glob("*.npz"))
    if not files:
        msg = f"the folder '{path}' holds no .npz file"
        raise DataError(msg)
    return _concatenate((read_npz(file) for file in files), str(path))


def _call(target: str) -> Any:
    module_name, _, function_name = target.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        msg = f"cannot load data from '{target}': {error}; give a file, a folder or module:function"
        raise DataError(msg) from error
    return function()


def _feeds(source: Any) -> Iterator[Feeds]:
    if isinstance(source, DataReader):
        while (feed := source.get_next()) is not None:
            yield {str(name): np.asarray(array) for name, array in feed.items()}
        return
    if not isinstance(source, Iterable):
        msg = f"data must be feeds or a CalibrationDataReader, found {type(source).__name__}"
        raise DataError(msg)
    for feed in source:
        if not isinstance(feed, Mapping):
            msg = f"each feed must map input names to arrays, found {type(feed).__name__}"
            raise DataError(msg)
        yield {str(name): np.asarray(array) for name, array in feed.items()}


def _concatenate(parts: Iterable[Feeds], label: str) -> Feeds:
    collected: dict[str, list[NDArray[Any]]] = {}
    count = 0
    for part in parts:
        count += 1
        for name, array in part.items():
            collected.setdefault(name, []).append(array)
    if not count:
        msg = f"{label} gave no samples"
        raise DataError(msg)
    for name, arrays in collected.items():
        shapes = {(array.shape[1:], array.dtype) for array in arrays}
        if len(arrays) != count or len(shapes) > 1:
            msg = f"{label}: '{name}' must be in every feed with one shape (but for the first axis)"
            raise DataError(msg)
    return {name: np.concatenate(arrays) for name, arrays in collected.items()}


def _label_of(source: DataSource) -> str:
    return f"'{source}'" if isinstance(source, (str, Path)) else "the data"


def _check_names(arrays: Feeds, specs: tuple[InputSpec, ...], label: str) -> None:
    expected, found = [spec.name for spec in specs], list(arrays)
    missing = [name for name in expected if name not in arrays]
    unknown = [name for name in found if name not in expected]
    if missing or unknown:
        msg = (
            f"{label} holds arrays {found}, but the model's inputs are {expected}; "
            f"name one array for each input, and labels '{LABELS}'"
        )
        raise DataError(msg)


def _check_counts(arrays: Feeds, labels: NDArray[Any] | None, label: str) -> None:
    everything = dict(arrays) if labels is None else {**arrays, LABELS: labels}
    for name, array in everything.items():
        if array.ndim == 0:
            msg = f"{label}: array '{name}' is a single number; its first axis must count samples"
            raise DataError(msg)
    counts = {name: len(array) for name, array in everything.items()}
    if len(set(counts.values())) > 1:
        msg = f"{label}: the arrays differ in their number of samples: {counts}"
        raise DataError(msg)
    if not next(iter(counts.values())):
        msg = f"{label} holds no samples"
        raise DataError(msg)


def _check_input(array: NDArray[Any], spec: InputSpec, label: str) -> int:
    """Check one input; return how many axes it has beyond the model's (0 or 1)."""
    if array.dtype != spec.dtype:
        msg = (
            f"{label}: '{spec.name}' is {array.dtype}, but the model takes {spec.dtype}; convert it"
        )
        raise DataError(msg)
    extra = array.ndim - len(spec.shape)
    # Without an extra axis the model's own first axis counts samples, whatever its size.
    expected = spec.shape if extra == 1 else (None, *spec.shape[1:])
    found = array.shape[1:] if extra == 1 else array.shape
    fits = extra in {0, 1} and all(
        want in {None, have} for want, have in zip(expected, found, strict=True)
    )
    if not fits:
        sizes = ", ".join("any" if size is None else str(size) for size in spec.shape)
        msg = f"{label}: '{spec.name}' has shape {array.shape}, but the model takes [{sizes}]"
        raise DataError(msg)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        msg = f"{label}: '{spec.name}' holds NaN or infinity; remove those samples"
        raise DataError(msg)
    return extra
