"""A controller with a transaction queue and one command queue a bank (as DRAMsim3 has it).

Each clock the oldest transaction whose bank queue has room moves there. Bank queues are served round
robin; in a queue the first request whose next command may come is served. Only the oldest request
of a bank may close its row, and only when none that waits hits the row or the row has had
``HIT_LIMIT`` hits. A refresh takes a rank out of service, closes its banks one a clock, and comes
when they are closed; the other ranks go on. HBM takes a row and a column command in one clock.

Notations as in :mod:`hwmodel.dram.device`.
"""

from __future__ import annotations

from hwmodel.dram.device import (
    CONTROLLER,
    MAX_BANKS,
    NEVER,
    OPEN_ROW,
    RANK_REFRESH,
    REFRESH_DUE,
    REFRESH_RANK,
    REFRESH_WAITING,
    Ints,
    Timing,
    activate,
    note_due_refresh,
    precharge,
    read,
    refresh,
    when_activate,
    when_precharge,
    when_read,
)
from hwmodel.dram.flow import Pace, arrive
from hwmodel.jit import inner

HIT_LIMIT = 4
NOTHING, ROW, COLUMN = range(3)

TURN = CONTROLLER
"""Bank that was served last."""
WAITING = TURN + 1
"""How many transactions wait for a bank queue."""
QUEUED = WAITING + 1
"""How many requests each bank queue holds."""
HITS = QUEUED + MAX_BANKS
"""How often each open row was read."""
QUEUES = HITS + MAX_BANKS
"""Transactions: rows, then banks, then numbers; bank queues: rows of all, then numbers of all."""


def queues_size(t: Timing) -> int:
    """How many integers the state of this controller takes."""
    return QUEUES - CONTROLLER + 3 * t.requests + 2 * t.banks * t.bank_requests


@inner
def _queue(t: Timing, b: int) -> int:
    """Place of the first row in a bank's queue."""
    return QUEUES + 3 * t.requests + b * t.bank_requests


@inner
def has_room(t: Timing, s: Ints) -> bool:
    """Whether the transaction queue takes another request."""
    return s[WAITING] < t.requests


@inner
def accept(t: Timing, s: Ints, b: int, row: int, number: int) -> None:
    """Take a request into the transaction queue."""
    s[QUEUES + s[WAITING]] = row
    s[QUEUES + t.requests + s[WAITING]] = b
    s[QUEUES + 2 * t.requests + s[WAITING]] = number
    s[WAITING] += 1


@inner
def tick(t: Timing, pace: Pace, s: Ints, flow: Ints, clock: int) -> int:
    """Do what the channel does in this clock; the next clock at which it may do something."""
    note_due_refresh(t, s, clock)
    wake = s[REFRESH_DUE]
    issued, out_of_service, waiting = NOTHING, -1, s[REFRESH_WAITING]
    if waiting:
        out_of_service = s[REFRESH_RANK]
        issued, when = _advance_refresh(t, s, clock)
        wake = min(wake, when)
        if s[REFRESH_WAITING] < waiting:
            out_of_service = -1
    if issued == NOTHING:
        issued, when = _serve(t, pace, s, flow, clock, out_of_service, NOTHING)
        wake = min(wake, when)
    if issued != NOTHING and t.two_commands:
        _serve(t, pace, s, flow, clock, out_of_service, issued)
    if _move(t, s) or issued != NOTHING:
        return clock + 1
    return wake


@inner
def _advance_refresh(t: Timing, s: Ints, clock: int) -> tuple[int, int]:
    """Close a bank of the rank that is due, or refresh it; else when that may be."""
    rank = s[REFRESH_RANK]
    wake, closed = NEVER, True
    for b in range(rank * t.banks_per_rank, (rank + 1) * t.banks_per_rank):
        if s[OPEN_ROW + b] >= 0:
            closed = False
            when = when_precharge(t, s, b)
            if when <= clock:
                precharge(t, s, b, clock)
                s[HITS + b] = 0
                return ROW, clock
            wake = min(wake, when)
    if closed:
        wake = s[RANK_REFRESH + rank]
        if wake <= clock:
            refresh(t, s, clock)
            return ROW, clock
    return NOTHING, wake


@inner
def _serve(
    t: Timing, pace: Pace, s: Ints, flow: Ints, clock: int, out_of_service: int, before: int
) -> tuple[int, int]:
    """Give the first command that is ready, round robin; else when the first one will be.

    ``out_of_service`` is a rank that takes no command; ``before`` the kind of command that this
    clock has already seen. A second one of that kind is not given, though the turn moves on.
    """
    wake = NEVER
    b = s[TURN]
    for _ in range(t.banks):
        b = b + 1 if b + 1 < t.banks else 0
        if not s[QUEUED + b] or b // t.banks_per_rank == out_of_service:
            continue
        kind, place, when = _candidate(t, s, b, clock)
        if when > clock:
            wake = min(wake, when)
            continue
        s[TURN] = b
        if kind != before:
            _give(t, pace, s, flow, clock, b, place)
            return kind, clock
        break
    return NOTHING, wake


@inner
def _candidate(t: Timing, s: Ints, b: int, clock: int) -> tuple[int, int, int]:
    """Kind of the next command of a bank, for which of its requests, and when it may come."""
    row = s[OPEN_ROW + b]
    if row < 0:
        return ROW, -1, when_activate(t, s, b)
    first = _queue(t, b)
    hit = -1
    for place in range(s[QUEUED + b]):
        if s[first + place] == row:
            hit = place
            break
    if hit == 0:
        return COLUMN, 0, when_read(t, s, b)
    may_close = when_precharge(t, s, b)
    if hit < 0:
        return ROW, -1, may_close
    may_read = when_read(t, s, b)
    if s[HITS + b] >= HIT_LIMIT and (may_close <= clock or may_close < may_read):
        return ROW, -1, may_close
    return COLUMN, hit, may_read


@inner
def _give(t: Timing, pace: Pace, s: Ints, flow: Ints, clock: int, b: int, place: int) -> None:
    """Read for the request at ``place`` of a bank's queue; below 0, open or close its row."""
    first = _queue(t, b)
    if place >= 0:
        numbers = t.banks * t.bank_requests
        read(t, s, b, clock)
        arrive(pace, flow, s[first + numbers + place], clock + t.read_latency)
        s[HITS + b] += 1
        s[QUEUED + b] -= 1
        for behind in range(first + place, first + s[QUEUED + b]):
            s[behind] = s[behind + 1]
            s[behind + numbers] = s[behind + numbers + 1]
    elif s[OPEN_ROW + b] < 0:
        activate(t, s, b, s[first], clock)
    else:
        precharge(t, s, b, clock)
        s[HITS + b] = 0


@inner
def _move(t: Timing, s: Ints) -> bool:
    """Move the oldest transaction whose bank queue has room there."""
    for row_at in range(QUEUES, QUEUES + s[WAITING]):
        b = s[row_at + t.requests]
        if s[QUEUED + b] < t.bank_requests:
            last = _queue(t, b) + s[QUEUED + b]
            s[last] = s[row_at]
            s[last + t.banks * t.bank_requests] = s[row_at + 2 * t.requests]
            s[QUEUED + b] += 1
            s[WAITING] -= 1
            for behind in range(row_at, QUEUES + s[WAITING]):
                for field in range(0, 3 * t.requests, t.requests):
                    s[behind + field] = s[behind + field + 1]
            return True
    return False
