"""A controller with one buffer of reads that serves the oldest ready one (as Ramulator 2 has it).

In each clock one command is given: to a request that has opened its row, else for a refresh that is
due, else to the oldest request in the buffer whose next command may come. A request that opened a
row leaves the buffer and keeps its bank open until it is served. While a refresh waits no other
request starts. With ``hits_first`` a row is not closed while an older request hits it.

LPDDR5 opens a row with two commands, the second at most ``split_activate`` clocks after the first
and before only if nothing else is ready; and it synchronises a data clock with one command before a
read that comes later than ``clock_hold`` clocks after the last data.

Notations as in :mod:`hwmodel.dram.device`. A request has its bank, its row and its age (its number,
counted through all channels).
"""

from __future__ import annotations

from hwmodel.dram.device import (
    CONTROLLER,
    MAX_BANKS,
    NEVER,
    OPEN_ROW,
    RANK_PRECHARGE_ALL,
    RANK_REFRESH,
    REFRESH_DUE,
    REFRESH_RANK,
    REFRESH_WAITING,
    Ints,
    Timing,
    activate,
    note_due_refresh,
    precharge,
    precharge_all,
    read,
    refresh,
    when_activate,
    when_precharge,
    when_read,
)
from hwmodel.dram.flow import Pace, arrive
from hwmodel.jit import inner

NOTHING, READ, ACTIVATE, PRECHARGE = range(4)

HELD = CONTROLLER
"""How many are in the buffer."""
OPENED = HELD + 1
"""How many have opened their row and wait to be read."""
HALF_BANK = OPENED + 1
"""Bank whose activation is half done, -1 when there is none; its request's age; its deadline."""
HALF_AGE = HALF_BANK + 1
HALF_UNTIL = HALF_AGE + 1
SYNCED = HALF_UNTIL + 1
"""Place of the read for which the data clock was just started, -1 when there is none."""
CLOCK_UNTIL = SYNCED + 1
"""Clock at which the data clock stops."""
OPENED_IN = CLOCK_UNTIL + 1
"""How many opened requests each bank has."""
REQUESTS = OPENED_IN + MAX_BANKS
"""Banks of the buffer and behind it of the opened requests; in the same order rows; then ages."""


def buffer_size(t: Timing) -> int:
    """How many integers the state of this controller takes."""
    return REQUESTS - CONTROLLER + 3 * _stride(t)


def start_buffer(state: Ints) -> None:
    """Mark in the state of all channels what is not there yet."""
    state[:, HALF_BANK] = -1
    state[:, SYNCED] = -1


@inner
def _stride(t: Timing) -> int:
    return t.requests + t.banks + 2


@inner
def has_room(t: Timing, s: Ints) -> bool:
    """Whether the buffer takes another request."""
    return s[HELD] < t.requests


@inner
def accept(t: Timing, s: Ints, b: int, row: int, number: int) -> None:
    """Take a request into the buffer."""
    _put(t, s, s[HELD], b, row, number)
    s[HELD] += 1


@inner
def tick(t: Timing, pace: Pace, s: Ints, flow: Ints, clock: int) -> int:
    """Do what the channel does in this clock; the next clock at which it may do something."""
    note_due_refresh(t, s, clock)
    if s[SYNCED] >= 0:
        place = s[SYNCED]
        s[SYNCED] = -1
        _read(t, pace, s, flow, place, clock)
        return clock + 1
    if s[HALF_BANK] >= 0 and s[HALF_UNTIL] <= clock:
        _finish_activation(t, s)
        return clock + 1
    place, wake = _oldest_opened(t, s, clock)
    command = READ if place >= 0 else NOTHING
    if command == NOTHING and s[REFRESH_WAITING]:
        when = _advance_refresh(t, s, clock)
        if when <= clock:
            return clock + 1
        wake = min(wake, when)
    elif command == NOTHING:
        command, place, when = _oldest_ready(t, s, clock)
        wake = min(wake, when)
    if command != NOTHING:
        _give(t, pace, s, flow, command, place, clock)
        return clock + 1
    if s[HALF_BANK] >= 0:
        _finish_activation(t, s)
        return clock + 1
    return min(wake, s[REFRESH_DUE])


@inner
def _oldest_opened(t: Timing, s: Ints, clock: int) -> tuple[int, int]:
    """Place of the oldest opened request that may be read now (-1: none), and when one may be."""
    best, oldest, wake = -1, NEVER, NEVER
    for place in range(t.requests, t.requests + s[OPENED]):
        when = when_read(t, s, s[REQUESTS + place])
        wake = min(wake, when)
        age = s[REQUESTS + 2 * _stride(t) + place]
        if when <= clock and age < oldest:
            best, oldest = place, age
    return best, wake


@inner
def _oldest_ready(t: Timing, s: Ints, clock: int) -> tuple[int, int, int]:
    """Command and place of the oldest request that is ready; else when the first one will be."""
    wake = NEVER
    for place in range(s[HELD]):
        b = s[REQUESTS + place]
        open_row = s[OPEN_ROW + b]
        if b == s[HALF_BANK]:
            continue
        if open_row == s[REQUESTS + _stride(t) + place]:
            command, when = READ, when_read(t, s, b)
        elif open_row < 0:
            if s[HALF_BANK] >= 0:
                continue
            command, when = ACTIVATE, when_activate(t, s, b)
        else:
            if s[OPENED_IN + b] or (t.hits_first and _older_hit(t, s, place)):
                continue
            command, when = PRECHARGE, when_precharge(t, s, b)
        if when <= clock:
            return command, place, when
        wake = min(wake, when)
    return NOTHING, -1, wake


@inner
def _older_hit(t: Timing, s: Ints, place: int) -> bool:
    """Whether an older request hits the open row of the bank that the one at ``place`` needs."""
    b = s[REQUESTS + place]
    for older in range(REQUESTS, REQUESTS + place):
        if s[older] == b and s[older + _stride(t)] == s[OPEN_ROW + b]:
            return True
    return False


@inner
def _advance_refresh(t: Timing, s: Ints, clock: int) -> int:
    """Close the rank that is due, or refresh it, if that may be now; the clock at which it may be."""
    rank = s[REFRESH_RANK]
    closed = True
    for b in range(rank * t.banks_per_rank, (rank + 1) * t.banks_per_rank):
        if s[OPENED_IN + b] or b == s[HALF_BANK]:
            return NEVER
        closed = closed and s[OPEN_ROW + b] < 0
    if not closed:
        when = s[RANK_PRECHARGE_ALL + rank]
        if when <= clock:
            precharge_all(t, s, rank, clock)
        return when
    when = s[RANK_REFRESH + rank]
    if when <= clock:
        refresh(t, s, clock)
    return when


@inner
def _give(t: Timing, pace: Pace, s: Ints, flow: Ints, command: int, place: int, clock: int) -> None:
    """Give the command that the request at ``place`` needs."""
    b = s[REQUESTS + place]
    if command == READ:
        if not t.split_activate or clock < s[CLOCK_UNTIL]:
            _read(t, pace, s, flow, place, clock)
        elif s[HALF_BANK] >= 0 and s[HALF_UNTIL] <= clock + 1:
            _finish_activation(t, s)
        else:
            s[SYNCED] = place
    elif command == PRECHARGE:
        precharge(t, s, b, clock)
    else:
        activate(t, s, b, s[REQUESTS + _stride(t) + place], clock)
        s[HALF_BANK] = b
        s[HALF_AGE] = s[REQUESTS + 2 * _stride(t) + place]
        s[HALF_UNTIL] = clock + t.split_activate
        s[HELD] -= 1
        _close_gap(t, s, place, s[HELD])
        if not t.split_activate:
            _finish_activation(t, s)


@inner
def _finish_activation(t: Timing, s: Ints) -> None:
    """The row is open: its request waits to be read."""
    b = s[HALF_BANK]
    _put(t, s, t.requests + s[OPENED], b, s[OPEN_ROW + b], s[HALF_AGE])
    s[OPENED] += 1
    s[OPENED_IN + b] += 1
    s[HALF_BANK] = -1


@inner
def _read(t: Timing, pace: Pace, s: Ints, flow: Ints, place: int, clock: int) -> None:
    """Read for the request at ``place`` and let it go."""
    b = s[REQUESTS + place]
    read(t, s, b, clock)
    arrive(pace, flow, s[REQUESTS + 2 * _stride(t) + place], clock + t.read_latency)
    s[CLOCK_UNTIL] = clock + t.read_latency + t.clock_hold
    if place < t.requests:
        s[HELD] -= 1
        _close_gap(t, s, place, s[HELD])
    else:
        s[OPENED] -= 1
        s[OPENED_IN + b] -= 1
        _close_gap(t, s, place, t.requests + s[OPENED])


@inner
def _put(t: Timing, s: Ints, place: int, b: int, row: int, age: int) -> None:
    s[REQUESTS + place] = b
    s[REQUESTS + _stride(t) + place] = row
    s[REQUESTS + 2 * _stride(t) + place] = age


@inner
def _close_gap(t: Timing, s: Ints, place: int, last: int) -> None:
    for field in range(3):
        start = REQUESTS + field * _stride(t)
        for behind in range(start + place, start + last):
            s[behind] = s[behind + 1]
