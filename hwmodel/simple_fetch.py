"""Clocks of memories that serve one request after the other, without banks or refresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwmodel.dram.flow import (
    SENT,
    Pace,
    arrive,
    last_clock,
    new_flow,
    note_sent,
    tile_clocks,
    when_send,
)
from hwmodel.fetch import Fetch, Served
from hwmodel.jit import compiled

if TYPE_CHECKING:
    from hwmodel.fetch import Requester, Tiles
    from hwmodel.memory import Memory
    from hwmodel.ranges import Ints


class Bus(NamedTuple):
    """How a bus brings a request's data.

    Attributes:
        clocks: in which the data of a request occupy it.
        latency: clocks from asking to the data's first; other requests may be under way in them.
        command: clocks in which a command occupies it before the data,
        apart: and between two commands.
        each: 1 when every request needs a command, 0 when only one that does not follow the last.
    """

    clocks: int
    latency: int
    command: int
    apart: int
    each: int


@compiled
def _drive(bus: Bus, pace: Pace, flow: Ints, runs: Ints) -> int:
    """Serve all requests; how many commands were given."""
    free, follows, commands = 0, -1, 0
    for run in range(runs.shape[0]):
        for request in range(runs[run, 0], runs[run, 0] + runs[run, 1]):
            asked, number = when_send(pace, flow), flow[SENT]
            note_sent(pace, flow, asked)
            begin = max(asked + bus.latency, free)
            if bus.command and (bus.each or request != follows):
                begin = max(asked, free + (bus.apart if commands else 0)) + bus.command
                commands += 1
            free = begin + bus.clocks
            follows = request + 1
            arrive(pace, flow, number, free - 1)
    return commands


def serve(memory: Memory, bus: Bus, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
    """Serve runs of requests over such a bus."""
    pace = Pace(
        1,
        max(1, requester.gap),
        requester.slots,
        requester.drain,
        tiles.ends.size,
        tiles.buffers,
    )
    flow = new_flow(pace, requester.start, np.stack([tiles.ends, tiles.work], axis=1))
    commands = _drive(bus, pace, flow, runs)
    origin = requester.start - 1
    requests = int(runs[:, 1].sum())
    cycles = int(last_clock(flow)) - origin
    ready, done = (tile_clocks(pace, flow) - origin).T
    return Served(
        Fetch(cycles, requests, requests * memory.unit_bytes, activates=int(commands)), ready, done
    )
