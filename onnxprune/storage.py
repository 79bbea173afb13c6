"""How a blob is to be stored: in which encodings, in what chunks, for which hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings import get_encoding
from hwmodel.estimate import cycles_cost
from hwmodel.select import best_encoding
from onnxprune.design_space import AUTO, AUTO_CYCLES, CHUNK, check_storage
from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.estimate import Hardware
    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class Storage:
    """How weights are stored.

    Attributes:
        encoding: a name, ``auto`` (fewest bytes for each weight) or ``auto-cycles`` (fewest cycles).
        chunk: weights of a chunk that decodes on its own; 0 for one chunk.
        align: bytes; chunks begin at multiples of it.
        decoder: encodings that the hardware can decode; empty for all.
        hardware: on which ``auto-cycles`` counts; it needs one.
    """

    encoding: str = AUTO
    chunk: int = 0
    align: int = 1
    decoder: tuple[str, ...] = ()
    hardware: Hardware | None = None

    @property
    def described(self) -> str:
        """In a few words, for the report."""
        chunks = f"chunks of {self.chunk} weights" if self.chunk else "one chunk a weight"
        aligned = f", aligned to {self.align} bytes" if self.align > 1 else ""
        known = f", of those that the decoder knows ({', '.join(self.decoder)})"
        return f"{self.encoding}, {chunks}{aligned}{known if self.decoder else ''}"


def make_storage(
    encoding: str = AUTO,
    *,
    chunk: int | None = None,
    align: int = 1,
    decoder: tuple[str, ...] = (),
    hardware: Hardware | None = None,
) -> Storage:
    """How weights are stored, from what a user wrote.

    Args:
        encoding: a name, ``auto`` or ``auto-cycles``.
        chunk: weights of a chunk, 0 for one; None for 1024 with ``auto-cycles``, else one.
        align: of chunks, in bytes.
        decoder: names of the encodings that the hardware knows; empty for all.
        hardware: on which ``auto-cycles`` counts cycles.

    Raises:
        RecipeError: naming the value that cannot be, and what can.
    """
    try:
        check_storage(encoding, align, decoder)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    if encoding == AUTO_CYCLES and hardware is None:
        msg = "auto-cycles needs a memory: the fewest cycles from which one?"
        raise RecipeError(msg)
    if chunk is None:
        chunk = CHUNK if encoding == AUTO_CYCLES else 0
    if not 0 <= chunk <= 1 << 40:
        msg = f"weights of a chunk must lie between 0 and 2^40, found {chunk}"
        raise RecipeError(msg)
    return Storage(encoding, chunk, align, decoder, hardware)


def choose_encoding(array: NDArray[Any], spec: TensorSpec, storage: Storage) -> Encoding:
    """The encoding of a weight.

    Raises:
        RecipeError: when none that the decoder knows can hold it.
    """
    shared = {"chunk": storage.chunk, "align": storage.align}
    if storage.encoding not in (AUTO, AUTO_CYCLES):
        return get_encoding(storage.encoding, shared)
    known = DecoderSpec(encodings=storage.decoder)
    cost = None
    if storage.encoding == AUTO_CYCLES:
        assert storage.hardware is not None
        cost = cycles_cost(Codes.of(array, spec), storage.hardware)
    try:
        return best_encoding(array, spec, decoder=known, cost=cost, **shared)
    except ValueError as error:
        raise RecipeError(str(error)) from error
