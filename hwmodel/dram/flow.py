"""How requests come to a memory and data leave it: pace, buffers and consumers.

A requester sends reads in address order, at most so many a clock and at least ``gap`` clocks apart.
Two kinds of consumer can hold it back. Data come in the order in which reads are issued, which need
not be that in which they were sent; so what a consumer does with data is known as soon as their
read is issued, and no clock is walked through.

- A buffer of ``slots`` requests, of which a consumer empties one each ``drain`` clocks.
- ``buffers`` that each hold a tile: a run of requests on which the consumer works for a number of
  clocks, once all of it is there. The buffer of a tile is free when its work is done.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hwmodel.dram.device import NEVER, Ints
from hwmodel.jit import inner


class Pace(NamedTuple):
    """How fast requests come and data go; ``slots`` and ``tiles`` 0: data are taken at once."""

    per_clock: int
    gap: int
    slots: int
    drain: int
    tiles: int
    buffers: int


ISSUED, SENT, NEXT_SEND, LAST_DATA, LAST_TAKEN, TILE_SENDING, TILES_READY, FREED = range(8)
"""Places in the state of the flow; from FREED on, when each slot was last emptied, then the tiles."""
END, WORK, LEFT, READY, DONE = range(5)
"""Of a tile: requests up to its end, clocks of work, requests whose data are not under way yet, when
all its data are there, when it is done."""
TILE = 5
"""How many integers a tile takes."""


def new_flow(pace: Pace, first_clock: int, tiles: Ints) -> Ints:
    """Nothing sent yet.

    Args:
        pace: of the requester and its consumer.
        first_clock: at which the first request may go.
        tiles: ``(pace.tiles, 2)``, requests up to the end of each, and its clocks of work.
    """
    flow = np.zeros(FREED + pace.slots + TILE * pace.tiles, np.int64)
    flow[NEXT_SEND] = first_clock
    flow[LAST_DATA] = first_clock - 1
    flow[LAST_TAKEN] = -NEVER
    rows = flow[FREED + pace.slots :].reshape(-1, TILE)
    rows[:, :LEFT] = tiles
    rows[:, LEFT] = np.diff(tiles[:, END], prepend=0)
    rows[:, READY] = first_clock - 1
    _finish_tiles(pace, flow)
    _next_tile(pace, flow)
    return flow


def tile_clocks(pace: Pace, flow: Ints) -> Ints:
    """``(tiles, 2)``: the clock at which each tile's data were there, and its work done."""
    return flow[FREED + pace.slots :].reshape(-1, TILE)[:, READY:]


@inner
def arrive(pace: Pace, flow: Ints, number: int, done: int) -> None:
    """Data of a request will be complete at clock ``done``; the consumer takes them after that."""
    flow[LAST_DATA] = max(flow[LAST_DATA], done)
    if pace.slots:
        taken = max(done, flow[LAST_TAKEN] + pace.drain)
        flow[LAST_TAKEN] = taken
        flow[FREED + flow[ISSUED] % pace.slots] = taken
    flow[ISSUED] += 1
    if pace.tiles:
        place = FREED + pace.slots + TILE * _tile_of(pace, flow, number)
        flow[place + LEFT] -= 1
        flow[place + READY] = done
        _finish_tiles(pace, flow)


@inner
def _tile_of(pace: Pace, flow: Ints, number: int) -> int:
    """The tile of a request, one of those whose data are awaited."""
    low, high = flow[TILES_READY], flow[TILE_SENDING]
    while low < high:
        middle = (low + high) // 2
        if flow[FREED + pace.slots + TILE * middle + END] <= number:
            low = middle + 1
        else:
            high = middle
    return low


@inner
def _finish_tiles(pace: Pace, flow: Ints) -> None:
    """Let the consumer work, in order, on the tiles whose last data are under way."""
    tile = flow[TILES_READY]
    place = FREED + pace.slots + TILE * tile
    while tile < pace.tiles and flow[place + LEFT] == 0:
        if tile:
            # A tile without requests of its own has its data from the one before it.
            flow[place + READY] = max(flow[place + READY], flow[place + READY - TILE])
            start = max(flow[place + READY], flow[place + DONE - TILE])
        else:
            start = flow[place + READY]
        flow[place + DONE] = start + flow[place + WORK]
        flow[LAST_TAKEN] = flow[place + DONE]
        tile += 1
        place += TILE
    flow[TILES_READY] = tile


@inner
def _next_tile(pace: Pace, flow: Ints) -> None:
    first = FREED + pace.slots
    tile = flow[TILE_SENDING]
    while tile < pace.tiles and flow[first + TILE * tile + END] <= flow[SENT]:
        tile += 1
    flow[TILE_SENDING] = tile


@inner
def when_send(pace: Pace, flow: Ints) -> int:
    """First clock at which the next request may be sent; NEVER while that is not known yet."""
    when = flow[NEXT_SEND]
    if pace.slots and flow[SENT] >= pace.slots:
        if flow[SENT] - flow[ISSUED] >= pace.slots:
            return NEVER
        when = max(when, flow[FREED + flow[SENT] % pace.slots] + 1)
    if pace.tiles:
        needed = flow[TILE_SENDING] - pace.buffers
        if needed >= flow[TILES_READY]:
            return NEVER
        if needed >= 0:
            when = max(when, flow[FREED + pace.slots + TILE * needed + DONE] + 1)
    return when


@inner
def note_sent(pace: Pace, flow: Ints, clock: int) -> None:
    """A request was accepted."""
    flow[SENT] += 1
    flow[NEXT_SEND] = clock + pace.gap
    if pace.tiles:
        _next_tile(pace, flow)


@inner
def last_clock(flow: Ints) -> int:
    """When all is done: data there, or taken by the consumer."""
    return max(flow[LAST_DATA], flow[LAST_TAKEN])
