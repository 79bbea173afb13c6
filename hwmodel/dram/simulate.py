"""Feed a stream of reads to the channels of a memory, from event to event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel.dram import bank_queues, read_buffer
from hwmodel.dram.device import ACTIVATES, NEVER, REFRESHES, Ints, Timing, new_state
from hwmodel.dram.flow import (
    ISSUED,
    SENT,
    Pace,
    last_clock,
    new_flow,
    note_sent,
    tile_clocks,
    when_send,
)
from hwmodel.dram.mapping import BANK, BANK_GROUP, CHANNEL, RANK, ROW, AddressMapping, locate
from hwmodel.fetch import Fetch, Served
from hwmodel.jit import compiled, inner

if TYPE_CHECKING:
    from hwmodel.dram.specification import Dram
    from hwmodel.fetch import Requester, Tiles


@compiled
def drive(
    t: Timing, mapping: AddressMapping, pace: Pace, state: Ints, flow: Ints, runs: Ints
) -> int:
    """Send all requests and let the memory serve them; the clock at which the last one is done.

    Requests go in order through one queue, which waits when the channel of its first has no room.
    Whenever nothing can happen, time moves to the next clock at which something may.

    Args:
        t: of the memory.
        mapping: of its addresses.
        pace: of the requester and the consumer.
        state: (channels, n) of the controllers and the device, changed.
        flow: of requests and data, changed.
        runs: (runs, 2) numbers of first requests, and how many follow each other from there.
    """
    wakes = np.zeros(state.shape[0], np.int64)
    place = np.zeros(6, np.int64)
    total = left = runs[:, 1].sum()
    run, in_run = _next_run(runs, 0, 0)
    if left:
        locate(mapping, runs[run, 0], place)
    clock = 0
    while flow[ISSUED] < total:
        accepted = 0
        while left and accepted < pace.per_clock and when_send(pace, flow) <= clock:
            c = place[CHANNEL]
            if not _offer(t, state[c], place, flow[SENT]):
                break
            note_sent(pace, flow, clock)
            wakes[c] = clock
            accepted += 1
            left -= 1
            if left:
                run, in_run = _next_run(runs, run, in_run + 1)
                locate(mapping, runs[run, 0] + in_run, place)
        soonest = NEVER
        for c in range(wakes.shape[0]):
            if wakes[c] <= clock:
                wakes[c] = _tick(t, pace, state[c], flow, clock)
            soonest = min(soonest, wakes[c])
        if left and soonest > clock + 1 and _has_room(t, state[place[CHANNEL]]):
            soonest = min(soonest, max(clock + 1, when_send(pace, flow)))
        clock = soonest
    return last_clock(flow)


@inner
def _next_run(runs: Ints, run: int, in_run: int) -> tuple[int, int]:
    """The run and the place in it, past the ends of runs."""
    while run < runs.shape[0] and in_run >= runs[run, 1]:
        run, in_run = run + 1, 0
    return run, in_run


@inner
def _offer(t: Timing, s: Ints, place: Ints, number: int) -> bool:
    b = (place[RANK] * t.bank_groups + place[BANK_GROUP]) * t.banks_per_group + place[BANK]
    if not _has_room(t, s):
        return False
    if t.bank_requests:
        bank_queues.accept(t, s, b, place[ROW], number)
    else:
        read_buffer.accept(t, s, b, place[ROW], number)
    return True


@inner
def _has_room(t: Timing, s: Ints) -> bool:
    return bank_queues.has_room(t, s) if t.bank_requests else read_buffer.has_room(t, s)


@inner
def _tick(t: Timing, pace: Pace, s: Ints, flow: Ints, clock: int) -> int:
    if t.bank_requests:
        return bank_queues.tick(t, pace, s, flow, clock)
    return read_buffer.tick(t, pace, s, flow, clock)


def serve(memory: Dram, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
    """Serve runs of requests by the event model.

    Clocks are those of the simulators that the model was checked against: the controller with bank
    queues looks at a request in the clock after the one in which it was offered. The one with a
    read buffer counts clocks from 1, sees its first request in the third, and counts them all.
    """
    t, queues = memory.timing, memory.timing.bank_requests > 0
    lead, tail = (0, 1) if queues else (2, 0)
    first = requester.start + lead
    pace = Pace(
        memory.requests_accepted_per_clock,
        requester.gap,
        requester.slots,
        requester.drain,
        tiles.ends.size,
        tiles.buffers,
    )
    size = bank_queues.queues_size(t) if queues else read_buffer.buffer_size(t)
    state = new_state(t, memory.channels, size)
    if not queues:
        read_buffer.start_buffer(state)
    flow = new_flow(pace, first, np.stack([tiles.ends, tiles.work], axis=1))
    last = drive(t, memory.mapping, pace, state, flow, runs)
    origin = requester.start - tail
    requests = int(runs[:, 1].sum())
    fetch = Fetch(
        cycles=int(last) - origin,
        requests=requests,
        fetched_bytes=requests * memory.unit_bytes,
        activates=int(state[:, ACTIVATES].sum()),
        refreshes=int(state[:, REFRESHES].sum()),
    )
    ready, done = (tile_clocks(pace, flow) - origin).T
    return Served(fetch, ready, done)
