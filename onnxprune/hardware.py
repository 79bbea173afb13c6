"""From the weights of a model to a blob for hardware, and to the cycles that fetching it takes."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel import blob as swb
from hwmodel.blob import BlobEntry, open_blob, write_blob
from hwmodel.codes import Codes
from hwmodel.encodings.entropy import Entropy
from hwmodel.entropy import entropy_bound_bits
from hwmodel.errors import BlobError as HardwareBlobError
from hwmodel.estimate import dense_cycles, encode_tensor, encoded_cycles
from hwmodel.select import SMALL, share_tables
from hwmodel.tensor import TensorSpec
from onnxprune.design_space import AUTO, Tensor, explore
from onnxprune.errors import BlobError, RecipeError
from onnxprune.files import replacing
from onnxprune.progress import counted
from onnxprune.report import WeightReport
from onnxprune.storage import Storage, choose_encoding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from hwmodel.blob_index import BlobTensor
    from hwmodel.encoding import Encoding
    from hwmodel.estimate import Hardware, TensorCycles
    from hwmodel.memory import Memory
    from onnxprune.design_space import DesignSpace
    from onnxprune.progress import Progress
    from passes.weights import Weight

    FetchCosts = Mapping[str, tuple[TensorCycles, TensorCycles]]


def encoded_bytes(weight: Weight, array: NDArray[Any], storage: Storage) -> int:
    """How many bytes a weight takes in the blob, without its place in the index.

    Args:
        weight: what is encoded.
        array: its values as they would be after pruning.
        storage: how it would be stored.

    Raises:
        RecipeError: when it cannot be stored so.
    """
    spec = _spec_of(weight)
    return choose_encoding(array, spec, storage).size(array, spec).bytes


def fetch_cycles(weight: Weight, array: NDArray[Any], storage: Storage, hardware: Hardware) -> int:
    """Memory clocks until a weight is fetched, and decoded and used where the hardware says how.

    Args:
        weight: what is fetched.
        array: its values as they would be after pruning.
        storage: how it would be stored.
        hardware: from the memory to the compute units.

    Raises:
        RecipeError: when it cannot be stored so.
    """
    spec = _spec_of(weight)
    codes = Codes.of(array, spec)
    encoding = choose_encoding(array, spec, storage)
    return encoded_cycles(encode_tensor(encoding, codes, hardware.decoder), hardware).cycles


def dense_fetch_cycles(weights: Sequence[Weight], hardware: Hardware) -> int:
    """Memory clocks until all weights are fetched as plain arrays."""
    codes = (Codes.of(weight.array(), _spec_of(weight)) for weight in weights)
    return sum(dense_cycles(one, hardware).cycles for one in codes)


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
            encodings = _encodings(counted(weights, "encode", progress), storage)
            write_blob(
                file,
                (
                    BlobEntry(_spec_of(weight), weight.array(), encoding)
                    for weight, encoding in zip(weights, encodings, strict=True)
                ),
            )
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


def fetch_costs(path: Path, space: DesignSpace) -> FetchCosts:
    """What fetching each weight of a blob costs: as a plain array, and as it is stored; by name.

    Args:
        path: of the blob.
        space: of one point.
    """
    explored = explore(blob_tensors(path, []), space)
    return {one.name: (explored.dense[one.name], one.fetch) for one in explored.points[0].weights}


def with_costs(weights: Sequence[WeightReport], costs: FetchCosts) -> tuple[WeightReport, ...]:
    """The weights with what fetching them costs."""
    return tuple(
        replace(
            weight,
            dense_fetch_cycles=costs[weight.name][0].cycles,
            fetch_cycles=costs[weight.name][1].cycles,
            dense_fetch=costs[weight.name][0],
            fetch=costs[weight.name][1],
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


def _encodings(weights: Iterable[Weight], storage: Storage) -> list[Encoding]:
    """How each weight is stored; small ones may share a table where bytes decide."""
    encodings, small = [], {}
    shares = storage.encoding == AUTO and (not storage.decoder or Entropy.name in storage.decoder)
    for number, weight in enumerate(weights):
        array, spec = weight.array(), _spec_of(weight)
        encodings.append(choose_encoding(array, spec, storage))
        if shares and array.size <= SMALL:
            small[number] = array, spec
    shared = share_tables(list(small.values()), [encodings[number] for number in small])
    for number, encoding in zip(small, shared, strict=True):
        encodings[number] = encoding
    return encodings


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


def behind_memory(space: DesignSpace) -> dict[str, Any]:
    """What stands behind the memory, for the report; without a decoder there is nothing."""
    one, accelerator = space.only, space.accelerator
    figures: dict[str, Any] = {}
    if one.decoder:
        known = {"encodings": one.decoder.encodings} if one.decoder.encodings else {}
        figures |= {"decoder_lanes": one.decoder.lanes, "decoder_width": one.decoder.width, **known}
    if one.compute_lanes:
        figures["compute_lanes"] = one.compute_lanes
    if figures:
        figures |= {
            "clock_ratio": accelerator.clock_ratio,
            "buffers": accelerator.buffers,
            "buffer_bytes": accelerator.buffer_bytes,
        }
    return figures


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
