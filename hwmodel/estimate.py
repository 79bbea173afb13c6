"""What a tensor in an encoding costs on given hardware: bytes and cycles, memory to compute units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from hwmodel.pipeline import Accelerator, run_pipeline
from hwmodel.tiling import lane_clocks, single_tile, tiles_of_chunks, tiles_of_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from hwmodel.codes import Codes
    from hwmodel.decoding import DecoderSpec
    from hwmodel.encoding import Encoding
    from hwmodel.layout import Layout
    from hwmodel.memory import Memory
    from hwmodel.pipeline import TileStream
    from hwmodel.ranges import Ints


@dataclass(frozen=True)
class Hardware:
    """From the memory to the compute units.

    Attributes:
        memory: from which weights are fetched.
        decoder: what stands behind it; None leaves decoding out, and reports the fetch alone.
        accelerator: its clock and buffers.
        compute_lanes: units that take a nonzero weight a clock each; 0 leaves computing out.
    """

    memory: Memory
    decoder: DecoderSpec | None = None
    accelerator: Accelerator = field(default_factory=Accelerator)
    compute_lanes: int = 0


@dataclass(frozen=True)
class TensorCycles:
    """What fetching a tensor, and working on it, takes. Cycles are clocks of the memory.

    Attributes:
        payload_bytes: fetched for values,
        metadata_bytes: for coordinates, pointers and tables,
        padding_bytes: for nothing: alignment, and what rounds up to whole requests.
        fetched_bytes: the sum.
        memory_cycles: of the fetch alone.
        decode_cycles: in which the decoder works.
        compute_cycles: in which the compute units work.
        stall_cycles: in which neither does, waiting for data.
        cycles: until all is done; where nothing works on the data, those of the fetch.
        share_of_peak: of the memory's bandwidth, that the fetch alone reaches.
        energy_pJ: of the fetch; None where the memory names no figure.
    """

    payload_bytes: int
    metadata_bytes: int
    padding_bytes: int
    fetched_bytes: int
    memory_cycles: int
    decode_cycles: int
    compute_cycles: int
    stall_cycles: int
    cycles: int
    share_of_peak: float
    energy_pJ: float | None = None  # noqa: N815 - the unit


@dataclass(frozen=True, eq=False)
class EncodedTensor:
    """A tensor in an encoding: where its chunks lie, and what each is to decode.

    Attributes:
        layout: of the encoding.
        decode_clocks: of each chunk in one lane, ``(chunks,)``; empty without a decoder.
        nonzero: which weights are not zero, flat, in stored order.
    """

    layout: Layout
    decode_clocks: Ints
    nonzero: np.ndarray[tuple[int], np.dtype[np.bool_]]


def encode_tensor(
    encoding: Encoding, codes: Codes, decoder: DecoderSpec | None, layout: Layout | None = None
) -> EncodedTensor:
    """What :func:`encoded_cycles` needs of a tensor, once for all memories and lanes.

    Raises:
        ValueError: when the encoding cannot hold the tensor.
    """
    stored = codes.transposed if encoding.chunked_by == "columns" else codes
    return EncodedTensor(
        layout or encoding.layout(codes),
        encoding.decode_cycles(codes, decoder) if decoder else np.zeros(0, np.int64),
        stored.numbers.ravel() != 0,
    )


def encoded_cycles(tensor: EncodedTensor, hardware: Hardware) -> TensorCycles:
    """Bytes and cycles of a tensor in an encoding."""
    size = tensor.layout.size
    payload = -(-size.payload_bits // 8)
    metadata = min(-(-size.metadata_bits // 8), size.bytes - payload)
    return _cycles(_tiles(tensor, hardware), payload, metadata, hardware)


def cycles_cost(codes: Codes, hardware: Hardware) -> Callable[[Encoding, Layout], float]:
    """What an encoding of a tensor costs in cycles: for :func:`hwmodel.select.best_encoding`."""

    def cost(encoding: Encoding, layout: Layout) -> float:
        tensor = encode_tensor(encoding, codes, hardware.decoder, layout)
        return encoded_cycles(tensor, hardware).cycles

    return cost


def dense_cycles(codes: Codes, hardware: Hardware) -> TensorCycles:
    """The same for the plain array, which needs no decoder and leaves out no zero."""
    length = -(-codes.size * codes.bits // 8)
    clocks = -(-codes.size // hardware.compute_lanes) if hardware.compute_lanes else 0
    piece = hardware.accelerator.buffer_bytes
    return _cycles(tiles_of_stream(length, 0, clocks, piece), length, 0, hardware)


def _cycles(stream: TileStream, payload: int, metadata: int, hardware: Hardware) -> TensorCycles:
    result = run_pipeline(hardware.memory, stream, hardware.accelerator)
    works = result.decode_cycles + result.compute_cycles > 0
    return TensorCycles(
        payload_bytes=payload,
        metadata_bytes=metadata,
        padding_bytes=result.fetched_bytes - payload - metadata,
        fetched_bytes=result.fetched_bytes,
        memory_cycles=result.memory_cycles,
        decode_cycles=result.decode_cycles,
        compute_cycles=result.compute_cycles,
        stall_cycles=result.stall_cycles if works else 0,
        cycles=result.cycles if works else result.memory_cycles,
        share_of_peak=result.share_of_peak,
        energy_pJ=hardware.memory.energy_pJ(result.fetched_bytes),
    )


def _tiles(tensor: EncodedTensor, hardware: Hardware) -> TileStream:
    layout, decoder = tensor.layout, hardware.decoder
    starts = layout.chunk_starts
    head = sum(layout.segment_bytes.values()) - int(starts[-1])
    length = head + int(starts[-1])
    chunks = layout.chunk_elements.size
    decode = tensor.decode_clocks if decoder else np.zeros(chunks, np.int64)
    compute = np.zeros(chunks, np.int64)
    if not decoder and not hardware.compute_lanes:
        return single_tile(length, 0, 0)
    piece = hardware.accelerator.buffer_bytes
    if chunks <= 1:
        if hardware.compute_lanes:
            compute = lane_clocks(tensor.nonzero, hardware.compute_lanes, piece)
        return tiles_of_stream(length, int(decode.sum()), int(compute.sum()), piece)
    if hardware.compute_lanes:
        compute = lane_clocks(tensor.nonzero, hardware.compute_lanes, int(layout.chunk_elements[0]))
    lanes = decoder.lanes if decoder else 1
    rounds = piece // max(1, int(np.diff(starts).max()) * lanes)
    return tiles_of_chunks(
        head, starts, decode, compute, lanes=lanes, chunks_per_tile=lanes * max(1, rounds)
    )
