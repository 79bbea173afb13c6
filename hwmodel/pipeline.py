"""Fetch, decode and compute, tile by tile: what a tensor takes when they overlap.

A tile is fetched into a buffer; once all of it is there the decoder works on it and feeds the
compute units, so that the slower of the two sets the pace; then its buffer is free again. With one
buffer fetching waits for that; with two or more it goes on meanwhile. The memory is simulated
together with the buffers, so refresh, rows and queues are seen as they are: a refresh that falls
into a wait costs nothing. For tiles whose fetches do not touch each other this is the textbook's
``T = F_1 + sum max(F_i+1, max(D_i, P_i)) + tail``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwmodel.fetch import NO_TILES, Requester, Tiles, serve
from hwmodel.ranges import Ints, as_ranges, requests_by_range

if TYPE_CHECKING:
    from hwmodel.memory import Memory


@dataclass(frozen=True)
class Accelerator:
    """What stands behind the memory.

    Attributes:
        clock_ratio: its clocks in one clock of the memory (its frequency over the memory's).
        buffers: tiles that it can hold: 1 single, 2 double buffering, more for deeper prefetch.
        buffer_bytes: of encoded data that a buffer takes; tiles are cut to it where chunks allow.

    Raises:
        ValueError: when a figure is below its least.
    """

    clock_ratio: float = 1.0
    buffers: int = 2
    buffer_bytes: int = 4096

    def __post_init__(self) -> None:
        """Check the figures."""
        if not 1e-6 <= self.clock_ratio <= 1e6:
            msg = f"the clock ratio must lie between 1e-6 and 1e6, found {self.clock_ratio}"
            raise ValueError(msg)
        if not 1 <= self.buffers <= 1 << 20:
            msg = f"the number of buffers must lie between 1 and 2^20, found {self.buffers}"
            raise ValueError(msg)
        if not 1 <= self.buffer_bytes <= 1 << 40:
            msg = f"the bytes of a buffer must lie between 1 and 2^40, found {self.buffer_bytes}"
            raise ValueError(msg)


@dataclass(frozen=True, eq=False)
class TileStream:
    """Tiles in the order in which they are fetched; any encoding can be put so.

    Attributes:
        ranges: bytes to fetch, ``(ranges, 2)``, offset and length.
        range_ends: ranges up to the end of each tile, ``(tiles,)``, rising to their number.
        decode_clocks: of each tile, ``(tiles,)``, in clocks of the accelerator.
        compute_clocks: the same for the compute units.

    Raises:
        ValueError: when lengths do not fit each other.
    """

    ranges: Ints
    range_ends: Ints
    decode_clocks: Ints
    compute_clocks: Ints

    def __post_init__(self) -> None:
        """Check the shapes."""
        tiles = self.range_ends.size
        if self.decode_clocks.size != tiles or self.compute_clocks.size != tiles:
            msg = (
                f"{tiles} tiles need as many decode and compute clocks, found "
                f"{self.decode_clocks.size} and {self.compute_clocks.size}"
            )
            raise ValueError(msg)
        ends = np.concatenate([[0], self.range_ends])
        if (np.diff(ends) < 0).any() or ends[-1] != len(self.ranges):
            msg = f"the ends of tiles must rise from 0 to the number of ranges, {len(self.ranges)}"
            raise ValueError(msg)


@dataclass(frozen=True)
class PipelineCycles:
    """What a tensor takes, in clocks of the memory.

    Attributes:
        cycles: from the first request to the end of the last tile's work.
        memory_cycles: of the fetch alone, with room for everything.
        decode_cycles: in which the decoder works.
        compute_cycles: in which the compute units work.
        stall_cycles: in which neither does, because data are not there yet.
        requests: that the memory served.
        fetched_bytes: that it moved.
        share_of_peak: of the data bus, over the fetch alone.
    """

    cycles: int
    memory_cycles: int
    decode_cycles: int
    compute_cycles: int
    stall_cycles: int
    requests: int
    fetched_bytes: int
    share_of_peak: float


def run_pipeline(memory: Memory, stream: TileStream, accelerator: Accelerator) -> PipelineCycles:
    """Fetch a stream of tiles and work on it.

    Clocks of the accelerator become clocks of the memory once, tile by tile, rounded up.
    """
    runs = requests_by_range(as_ranges(stream.ranges), memory.unit_bytes)
    up_to = np.concatenate([[0], np.cumsum(runs[:, 1])])
    ends = up_to[stream.range_ends]
    decode = _memory_clocks(stream.decode_clocks, accelerator)
    compute = _memory_clocks(stream.compute_clocks, accelerator)
    work = np.maximum(decode, compute)
    alone = serve(memory, runs, Requester(), NO_TILES).fetch
    served = serve(memory, runs, Requester(), Tiles(ends, work, accelerator.buffers))
    peak = memory.peak_bytes_per_clock * alone.cycles
    return PipelineCycles(
        cycles=served.fetch.cycles,
        memory_cycles=alone.cycles,
        decode_cycles=int(decode.sum()),
        compute_cycles=int(compute.sum()),
        stall_cycles=served.fetch.cycles - int(work.sum()),
        requests=alone.requests,
        fetched_bytes=alone.fetched_bytes,
        share_of_peak=alone.fetched_bytes / peak if peak else 0.0,
    )


def _memory_clocks(clocks: Ints, accelerator: Accelerator) -> Ints:
    if accelerator.clock_ratio == 1:
        return clocks.astype(np.int64)
    return np.ceil(clocks / accelerator.clock_ratio - 1e-9).astype(np.int64)
