"""How a blob is to be stored: in which encodings, in what chunks, for which hardware."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.estimate import Hardware, encode_tensor, encoded_cycles
from hwmodel.select import best_encoding
from onnxprune.design_space import AUTO, AUTO_CYCLES, CHUNK
from onnxprune.errors import RecipeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.layout import Layout
    from hwmodel.memory import Memory
    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class Storage:
    """How weights are stored.

    Attributes:
        encoding: a name, ``auto`` (fewest bytes for each weight) or ``auto-cycles`` (fewest cycles).
        chunk: weights of a chunk that decodes on its own; 0 for one chunk.
        align: bytes; chunks begin at multiples of it.
        decoder: what the hardware can decode, and how fast.
        memory: from which it fetches; ``auto-cycles`` needs one.
    """

    encoding: str = AUTO
    chunk: int = 0
    align: int = 1
    decoder: DecoderSpec = field(default_factory=DecoderSpec)
    memory: Memory | None = None


def make_storage(
    encoding: str = AUTO,
    *,
    chunk: int | None = None,
    align: int = 1,
    decoder: tuple[str, ...] = (),
    decoder_lanes: int = 1,
    decoder_width: int = 1,
    memory: Memory | None = None,
) -> Storage:
    """How weights are stored, from what a user wrote.

    Args:
        encoding: a name, ``auto`` or ``auto-cycles``.
        chunk: weights of a chunk, 0 for one; None for 1024 with ``auto-cycles``, else one.
        align: of chunks, in bytes.
        decoder: names of the encodings that the hardware knows; empty for all.
        decoder_lanes: decoders side by side.
        decoder_width: values that a lane places in a clock.
        memory: from which weights are fetched.

    Raises:
        RecipeError: naming the value that cannot be, and what can.
    """
    for name in (encoding, *decoder):
        known = encoding_names() if name in decoder else (AUTO, AUTO_CYCLES, *encoding_names())
        if name not in known:
            msg = f"there is no encoding '{name}'; known are {', '.join(known)}"
            raise RecipeError(msg)
    if decoder and encoding in encoding_names() and encoding not in decoder:
        msg = f"the decoder knows {', '.join(decoder)}, not '{encoding}'; take one of them, or auto"
        raise RecipeError(msg)
    if encoding == AUTO_CYCLES and memory is None:
        msg = "auto-cycles needs a memory: the fewest cycles from which one?"
        raise RecipeError(msg)
    if chunk is None:
        chunk = CHUNK if encoding == AUTO_CYCLES else 0
    if not 0 <= chunk <= 1 << 40:
        msg = f"weights of a chunk must lie between 0 and 2^40, found {chunk}"
        raise RecipeError(msg)
    if not 1 <= align <= 1 << 16 or align & (align - 1):
        msg = f"chunks are aligned to bytes that are a power of two up to 65536, found {align}"
        raise RecipeError(msg)
    try:
        spec = DecoderSpec(decoder_lanes, decoder_width, encodings=decoder)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return Storage(encoding, chunk, align, spec, memory)


def choose_encoding(array: NDArray[Any], spec: TensorSpec, storage: Storage) -> Encoding:
    """The encoding of a weight.

    Raises:
        RecipeError: when none that the decoder knows can hold it.
    """
    shared = {"chunk": storage.chunk, "align": storage.align}
    if storage.encoding not in (AUTO, AUTO_CYCLES):
        return get_encoding(storage.encoding, shared)
    codes = Codes.of(array, spec)

    def cycles(encoding: Encoding, layout: Layout) -> float:
        assert storage.memory is not None
        tensor = encode_tensor(encoding, codes, storage.decoder, layout)
        return encoded_cycles(tensor, Hardware(storage.memory, storage.decoder)).cycles

    cost = cycles if storage.encoding == AUTO_CYCLES else None
    try:
        return best_encoding(array, spec, decoder=storage.decoder, cost=cost, **shared)
    except ValueError as error:
        raise RecipeError(str(error)) from error
