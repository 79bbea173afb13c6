"""What weights cost in each of several memories, encodings and decoders."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.estimate import (
    Hardware,
    cycles_cost,
    dense_cycles,
    encode_tensor,
    encoded_cycles,
)
from hwmodel.pipeline import Accelerator
from hwmodel.select import best_encoding
from onnxprune.errors import RecipeError
from onnxprune.inventory import totals_of
from onnxprune.report import DesignPoint, PointWeight

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.estimate import EncodedTensor, TensorCycles
    from hwmodel.memory import Memory
    from hwmodel.tensor import TensorSpec
    from onnxprune.report import Report

AUTO = "auto"
AUTO_CYCLES = "auto-cycles"
STORED = "as stored"
"""The encoding of a blob's tensors, each as it is."""
CHUNK = 1024
"""Weights of a chunk where a decoder is described: it needs chunks to work on."""


@dataclass(frozen=True)
class DesignSpace:
    """What is compared; every memory with every encoding and every number of lanes.

    Attributes:
        memories: from which weights are fetched.
        encodings: names, ``auto`` (fewest bytes for each weight) or ``auto-cycles`` (fewest cycles).
        decoder_lanes: numbers of lanes; empty leaves decoding out.
        decoder_width: values that a lane places in a clock.
        chunk: weights of a chunk; None takes ``CHUNK`` with a decoder, and one chunk without.
        align: bytes; chunks begin at multiples of it.
        decoder: encodings that it knows, of which ``auto`` and ``auto-cycles`` choose; empty for all.
        compute_lanes: units that take a nonzero weight a clock; 0 leaves them out.
        accelerator: its clock and buffers.
    """

    memories: tuple[Memory, ...]
    encodings: tuple[str, ...] = (AUTO,)
    decoder_lanes: tuple[int, ...] = ()
    decoder_width: int = 1
    chunk: int | None = None
    align: int = 1
    decoder: tuple[str, ...] = ()
    compute_lanes: int = 0
    accelerator: Accelerator = field(default_factory=Accelerator)

    @property
    def chunk_weights(self) -> int:
        """Weights of a chunk; 0 for one chunk."""
        if self.chunk is not None:
            return self.chunk
        return CHUNK if self.decoder_lanes else 0

    @property
    def decoders(self) -> list[DecoderSpec | None]:
        """The decoders, or None alone."""
        width, known = self.decoder_width, self.decoder
        return [DecoderSpec(lanes=n, width=width, encodings=known) for n in self.decoder_lanes] or [
            None
        ]

    @property
    def only(self) -> Hardware:
        """The hardware of a space that has but one."""
        [hardware] = self.hardware()
        return hardware

    def hardware(self) -> Iterator[Hardware]:
        """Each memory with each decoder."""
        for memory in self.memories:
            for decoder in self.decoders:
                yield Hardware(memory, decoder, self.accelerator, self.compute_lanes)


def make_design_space(
    memories: Iterable[Memory],
    *,
    encoding: str = AUTO,
    decoder_lanes: Iterable[int] = (),
    decoder_width: int = 1,
    chunk: int | None = None,
    align: int = 1,
    decoder: tuple[str, ...] = (),
    compute_lanes: int = 0,
    clock_ratio: float = 1.0,
    buffers: int = 2,
    buffer_bytes: int = 4096,
) -> DesignSpace:
    """A design space from what a user wrote; encodings are separated by commas.

    Raises:
        RecipeError: naming the value that cannot be, and what can.
    """
    encodings = tuple(part.strip() for part in encoding.split(","))
    for name in encodings:
        try:
            check_storage(name, align, decoder)
        except ValueError as error:
            raise RecipeError(str(error)) from error
    for option, value, least in (
        ("chunk", chunk or 0, 0),
        ("compute lanes", compute_lanes, 0),
    ):
        if not least <= value <= 1 << 40:
            msg = f"{option} must lie between {least} and 2^40, found {value}"
            raise RecipeError(msg)
    try:
        accelerator = Accelerator(clock_ratio, buffers, buffer_bytes)
        space = DesignSpace(
            tuple(memories),
            encodings,
            tuple(decoder_lanes),
            decoder_width,
            chunk,
            align,
            decoder,
            compute_lanes,
            accelerator,
        )
        assert space.decoders
    except ValueError as error:
        raise RecipeError(str(error)) from error
    return space


@dataclass(frozen=True, eq=False)
class Tensor:
    """A weight: its description, its array, and the encoding it is stored in (None: try others)."""

    spec: TensorSpec
    array: NDArray[Any]
    stored: Encoding | None = None


@dataclass(frozen=True, eq=False)
class Explored:
    """The points in the order memory, encoding, lanes; and the plain arrays, by weight, on the first."""

    points: tuple[DesignPoint, ...]
    dense: dict[str, TensorCycles]


def explore(tensors: Iterable[Tensor], space: DesignSpace) -> Explored:
    """Every point of the space. Tensors are looked at one after the other, and not kept.

    Raises:
        RecipeError: when an encoding cannot hold a weight.
    """
    hardware = list(space.hardware())
    found: dict[tuple[int, str], list[PointWeight]] = defaultdict(list)
    dense: list[list[TensorCycles]] = [[] for _ in hardware]
    names, labels = [], dict.fromkeys(space.encodings)
    for tensor in tensors:
        codes = Codes.of(tensor.array, tensor.spec)
        names.append(tensor.spec.name)
        labels = dict.fromkeys((STORED,)) if tensor.stored else labels
        for index, one in enumerate(hardware):
            dense[index].append(dense_cycles(codes, one))
        for label in labels:
            kept: tuple[Encoding, EncodedTensor] | None = None
            for index, one in enumerate(hardware):
                if kept is None or label == AUTO_CYCLES:
                    kept = _encoded(tensor, codes, label, one, space)
                cycles = encoded_cycles(kept[1], one)
                size = kept[1].layout.size.bytes
                found[index, label].append(
                    PointWeight(tensor.spec.name, kept[0].name, size, cycles)
                )
    lanes = len(space.decoders)
    points = tuple(
        _point(hardware[index], label, found[index, label], dense[index])
        for start in range(0, len(hardware), lanes)
        for label in labels
        for index in range(start, start + lanes)
    )
    return Explored(points, dict(zip(names, dense[0], strict=True)))


def _encoded(
    tensor: Tensor, codes: Codes, label: str, hardware: Hardware, space: DesignSpace
) -> tuple[Encoding, EncodedTensor]:
    shared = {"chunk": space.chunk_weights, "align": space.align}
    try:
        if tensor.stored:
            encoding = tensor.stored
        elif label in (AUTO, AUTO_CYCLES):
            cost = cycles_cost(codes, hardware) if label == AUTO_CYCLES else None
            known = DecoderSpec(encodings=space.decoder)
            encoding = best_encoding(tensor.array, tensor.spec, decoder=known, cost=cost, **shared)
        else:
            encoding = get_encoding(label, shared)
        return encoding, encode_tensor(encoding, codes, hardware.decoder)
    except ValueError as error:
        msg = f"weight '{tensor.spec.name}' cannot be stored as {label}: {error}"
        raise RecipeError(msg) from error


def check_storage(encoding: str, align: int, decoder: tuple[str, ...]) -> None:
    """Check names of encodings and the alignment against each other.

    Raises:
        ValueError: naming the value that cannot be, and what can.
    """
    for name, known in (
        (encoding, (AUTO, AUTO_CYCLES, *encoding_names())),
        *((name, encoding_names()) for name in decoder),
    ):
        if name not in known:
            msg = f"there is no encoding '{name}'; known are {', '.join(known)}"
            raise ValueError(msg)
    if decoder and encoding in encoding_names() and encoding not in decoder:
        msg = f"the decoder knows {', '.join(decoder)}, not '{encoding}'; take one of them, or auto"
        raise ValueError(msg)
    if not 1 <= align <= 1 << 16 or align & (align - 1):
        msg = f"chunks are aligned to bytes that are a power of two up to 65536, found {align}"
        raise ValueError(msg)


def _point(
    hardware: Hardware, label: str, weights: list[PointWeight], dense: list[TensorCycles]
) -> DesignPoint:
    fetches = [weight.fetch for weight in weights]
    cycles = sum(fetch.cycles for fetch in fetches)
    memory_cycles = sum(fetch.memory_cycles for fetch in fetches)
    fetched = sum(fetch.fetched_bytes for fetch in fetches)
    memory = hardware.memory
    return DesignPoint(
        memory=memory.name,
        encoding=label,
        encoded_bytes=sum(weight.encoded_bytes for weight in weights),
        fetched_bytes=fetched,
        memory_cycles=memory_cycles,
        decode_cycles=sum(fetch.decode_cycles for fetch in fetches),
        compute_cycles=sum(fetch.compute_cycles for fetch in fetches),
        stall_cycles=sum(fetch.stall_cycles for fetch in fetches),
        fetch_cycles=cycles,
        dense_fetch_cycles=sum(one.cycles for one in dense),
        share_of_peak=fetched / (memory.peak_bytes_per_clock * max(1, memory_cycles)),
        microseconds=cycles * memory.tCK_ns / 1000,
        weights=tuple(weights),
        decoder_lanes=hardware.decoder.lanes if hardware.decoder else None,
        energy_pJ=memory.energy_pJ(fetched),
    )


def with_points(report: Report, explored: Explored, space: DesignSpace) -> Report:
    """A report with the points of a design space; with a single one its figures by weight, too.

    Args:
        report: whose weights are those that were explored, in the same order.
        explored: the points.
        space: that they are of.
    """
    points = explored.points
    if len(points) > 1:
        memories = tuple(memory.describe() for memory in space.memories)
        return replace(report, points=points, memories=memories)
    weights = tuple(
        replace(
            weight,
            encoding=at_point.encoding,
            encoded_bytes=at_point.encoded_bytes,
            dense_fetch_cycles=explored.dense[weight.name].cycles,
            fetch_cycles=at_point.fetch.cycles,
            dense_fetch=explored.dense[weight.name],
            fetch=at_point.fetch,
        )
        for weight, at_point in zip(report.weights or (), points[0].weights, strict=True)
    )
    return replace(
        report,
        weights=weights,
        totals=totals_of(weights),
        memory=space.memories[0].describe(),
        points=points,
    )
