"""From the weights of a model to a blob for hardware, and to the cycles that fetching it takes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel import blob as swb
from hwmodel.blob import BlobEntry, open_blob, write_blob
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.entropy import entropy_bound_bits
from hwmodel.errors import BlobError as HardwareBlobError
from hwmodel.fetch import fetch_stream
from hwmodel.select import best_encoding
from hwmodel.tensor import TensorSpec
from onnxprune.design_space import Tensor
from onnxprune.errors import BlobError, RecipeError
from onnxprune.files import replacing
from onnxprune.progress import counted
from onnxprune.report import WeightReport
from onnxprune.storage import Storage, choose_encoding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hwmodel.blob_index import BlobTensor
    from hwmodel.encoding import Encoding
    from hwmodel.memory import Memory
    from onnxprune.progress import Progress
    from passes.weights import Weight

AUTO = "auto"


def check_encoding(name: str) -> None:
    """Check the name of an encoding.

    Raises:
        RecipeError: naming those there are.
    """
    if name != AUTO and name not in encoding_names():
        msg = f"there is no encoding '{name}'; known are {', '.join((AUTO, *encoding_names()))}"
        raise RecipeError(msg)


def encoding_of(array: NDArray[Any], spec: TensorSpec, name: str) -> Encoding:
    """The encoding by that name, or with ``auto`` the one of fewest bytes."""
    return best_encoding(array, spec) if name == AUTO else get_encoding(name)


def encoded_bytes(weight: Weight, array: NDArray[Any], name: str) -> int:
    """How many bytes a weight takes in the blob, without its place in the header.

    Args:
        weight: what is encoded.
        array: its values as they would be after pruning.
        name: of the encoding, or ``auto``.
    """
    spec = _spec_of(weight)
    return encoding_of(array, spec, name).size(array, spec).bytes


def cycles_of(fetched_bytes: int, memory: Memory) -> int:
    """Memory clock cycles that fetching so many bytes in one stream takes."""
    return fetch_stream(memory, fetched_bytes).cycles


def write_weights(
    weights: Sequence[Weight], path: Path, storage: Storage, progress: Progress | None = None
) -> None:
    """Write all weights into one blob, stored as asked for.

    Raises:
        RecipeError: when a weight cannot be stored so.
        OutputError: when it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        try:
            chosen = counted(weights, "encode", progress)
            write_blob(file, (_entry(weight, storage) for weight in chosen))
        except ValueError as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError(str(error)) from error


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """All weights of a blob, decoded, by name.

    Raises:
        BlobError: when the blob is missing, damaged or hostile.
    """
    with blob_errors(path), open_blob(path) as blob:
        return {tensor.spec.name: blob.read(tensor.spec.name) for tensor in blob.tensors}


def with_blob(weights: Sequence[WeightReport], path: Path) -> tuple[WeightReport, ...]:
    """The weights with the encoding and the bytes that each really has in a blob."""
    with blob_errors(path), open_blob(path) as blob:
        stored = {tensor.spec.name: tensor for tensor in blob.tensors}
    return tuple(
        replace(
            weight,
            encoding=stored[weight.name].encoding.name,
            encoded_bytes=stored[weight.name].bytes,
        )
        for weight in weights
    )


def with_fetch(weights: Sequence[WeightReport], memory: Memory) -> tuple[WeightReport, ...]:
    """The weights with the cycles that fetching them takes, encoded and dense."""
    return tuple(
        replace(
            weight,
            dense_fetch_cycles=cycles_of(weight.dense_bytes, memory),
            fetch_cycles=cycles_of(weight.encoded_bytes or weight.dense_bytes, memory),
        )
        for weight in weights
    )


def same_bits(left: Mapping[str, NDArray[Any]], right: Mapping[str, NDArray[Any]]) -> bool:
    """Whether two sets of arrays have the same names, dtypes, shapes and bits."""
    return left.keys() == right.keys() and all(
        left[name].dtype == array.dtype
        and left[name].shape == array.shape
        and left[name].tobytes() == array.tobytes()
        for name, array in right.items()
    )


def _entry(weight: Weight, storage: Storage) -> BlobEntry:
    array, spec = weight.array(), _spec_of(weight)
    return BlobEntry(spec, array, choose_encoding(array, spec, storage))


def _spec_of(weight: Weight) -> TensorSpec:
    dtype = weight.array().dtype.name
    return TensorSpec(weight.name, weight.layout.shape, dtype, weight.common_zero_point)


@contextlib.contextmanager
def blob_errors(path: Path) -> Iterator[None]:
    """Errors of reading a blob as those that users see, with its path."""
    try:
        yield
    except HardwareBlobError as error:
        msg = f"'{path}': {error}"
        raise BlobError(msg) from error
    except FileNotFoundError:
        msg = f"there is no file '{path}'; check the path to the blob"
        raise BlobError(msg) from None
    except OSError as error:
        msg = f"cannot read '{path}': {error.strerror}"
        raise BlobError(msg) from error


def describe(memory: Memory) -> dict[str, Any]:
    """A memory's specification, for the report."""
    return memory.describe()


def is_blob(path: Path) -> bool:
    """Whether a file is a weight blob.

    Raises:
        BlobError: when it cannot be read.
    """
    with blob_errors(path):
        return swb.is_blob(path)


def tensor_of(weight: Weight) -> Tensor:
    """A weight as a design space sees it."""
    return Tensor(_spec_of(weight), weight.array())


def blob_tensors(
    path: Path,
    weights: list[WeightReport],
    progress: Progress | None = None,
    step: str = "estimate",
) -> Iterator[Tensor]:
    """What a blob holds, tensor by tensor; the figures of each are appended to ``weights``.

    Raises:
        BlobError: when the blob is missing, damaged or hostile.
    """
    with blob_errors(path), open_blob(path) as blob:
        for tensor in counted(blob.tensors, step, progress):
            array = blob.read(tensor.spec.name)
            weights.append(_blob_weight(tensor, array))
            yield Tensor(tensor.spec, array, tensor.encoding)


def _blob_weight(tensor: BlobTensor, array: NDArray[Any]) -> WeightReport:
    nonzeros = int(np.count_nonzero(array != tensor.spec.zero_point))
    bound = entropy_bound_bits(array.size, nonzeros, tensor.spec.value_bits)
    return WeightReport(
        name=tensor.spec.name,
        nodes=(),
        op_types=(),
        shape=tensor.spec.shape,
        dtype=tensor.spec.dtype,
        elements=array.size,
        nonzeros=nonzeros,
        sparsity=1 - nonzeros / max(1, array.size),
        dense_bytes=array.nbytes,
        entropy_bound_bytes=round(bound / 8),
        encoding=tensor.encoding.name,
        encoded_bytes=tensor.bytes,
    )


def write_npz(arrays: Mapping[str, NDArray[Any]], path: Path) -> None:
    """Write arrays by name; dtypes that numpy lacks are written as unsigned integers of their bits.

    Raises:
        OutputError: when the file cannot be written.
    """
    plain = {
        name: array if array.dtype.isbuiltin == 1 else array.view(f"u{array.itemsize}")
        for name, array in arrays.items()
    }
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **plain)
