"""How many clocks of a memory it takes to fetch ranges of bytes, exact to the clock.

The clocks are those from the one in which the first request is offered up to and including the one
that delivers the last data. Banks are closed at the start, and refresh counts from clock 0.
``docs/explanation/fetch-cycles.md`` says what is modelled and how well it agrees with cycle-accurate simulators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hwmodel.ranges import Ints, as_ranges, requests_by_line, requests_by_range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hwmodel.memory import Memory


@dataclass(frozen=True)
class Requester:
    """Who asks for the bytes, and how fast it can take them.

    Attributes:
        gap: least clocks from one accepted request to the next; 0 leaves it to the memory.
        slots: requests whose data the requester can hold; a request is sent only when one is free.
            0 when it takes everything at once.
        drain: clocks in which the consumer empties a slot.
        line_bytes: when it asks in lines of this size, each anew; None when it asks for ranges.
        start: clocks after which the first request comes; refresh goes on before it.

    Raises:
        ValueError: for a negative number.
    """

    gap: int = 0
    slots: int = 0
    drain: int = 0
    line_bytes: int | None = None
    start: int = 0

    def __post_init__(self) -> None:
        """Check the figures."""
        for name in ("gap", "slots", "drain", "start"):
            if not 0 <= getattr(self, name) < 1 << 32:
                msg = f"{name} of a requester must lie between 0 and 2^32, found {getattr(self, name)}"
                raise ValueError(msg)
        if self.line_bytes is not None and self.line_bytes < 1:
            msg = f"line_bytes of a requester must be at least 1, found {self.line_bytes}"
            raise ValueError(msg)


@dataclass(frozen=True)
class Fetch:
    """What a fetch takes.

    Attributes:
        cycles: memory clocks.
        requests: how many the memory served.
        fetched_bytes: what it moved; more than was wanted where ranges do not fill requests.
        activates: rows that were opened.
        refreshes: that stood in the way or went on beside.
    """

    cycles: int
    requests: int
    fetched_bytes: int
    activates: int = 0
    refreshes: int = 0


@dataclass(frozen=True, eq=False)
class Tiles:
    """Work that waits for data: tile i works for ``work[i]`` clocks once its requests are there.

    Attributes:
        ends: requests up to the end of each tile, ``(tiles,)``, rising.
        work: memory clocks, ``(tiles,)``.
        buffers: tiles that there is room for: 1 fetches and works in turn, 2 at the same time.
    """

    ends: Ints
    work: Ints
    buffers: int


NO_TILES = Tiles(np.zeros(0, np.int64), np.zeros(0, np.int64), 0)


@dataclass(frozen=True, eq=False)
class Served:
    """A fetch with the clocks of its tiles, counted as cycles are: ``ready`` and ``done``."""

    fetch: Fetch
    ready: Ints
    done: Ints


def fetch_ranges(
    memory: Memory,
    ranges: Sequence[tuple[int, int]] | Ints,
    requester: Requester | None = None,
) -> Fetch:
    """Fetch ranges of bytes, ``(offset, length)``, in this order.

    Raises:
        ValueError: for a negative offset or length.
    """
    requester = requester or Requester()
    wanted = as_ranges(ranges)
    if requester.line_bytes is None:
        runs = requests_by_range(wanted, memory.unit_bytes)
    else:
        runs = requests_by_line(wanted, requester.line_bytes, memory.unit_bytes)
    return serve(memory, runs, requester, NO_TILES).fetch


def fetch_stream(memory: Memory, length: int, offset: int = 0) -> Fetch:
    """Fetch ``length`` bytes that follow each other."""
    return fetch_ranges(memory, [(offset, length)])


def serve(memory: Memory, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
    """Let a memory serve runs of requests, ``(runs, 2)``: first request, number of requests."""
    runs = np.ascontiguousarray(runs[runs[:, 1] > 0])
    requests = int(runs[:, 1].sum())
    if not requests:
        done = np.cumsum(tiles.work)
        return Served(Fetch(int(done[-1]) if done.size else 0, 0, 0), np.zeros_like(done), done)
    return memory.serve(runs, requester, tiles)
