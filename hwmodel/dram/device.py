"""What a DRAM channel allows: for each bank the first clock at which each command may come.

The rules are those of the JEDEC standards, kept as "not before" clocks of banks, bank groups and
ranks, so that a command updates a handful of numbers and readiness is a maximum of a few.

Notations: ``t`` is what is fixed (:class:`Timing`); ``s`` the state of one channel, a row of
integers in which the constants below name places; ``b`` a bank, counted through ranks and bank
groups, so that ``b // banks_per_group`` is its bank group and that ``// bank_groups`` its rank.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hwmodel.jit import inner

Ints: TypeAlias = NDArray[np.int64]

NEVER = 1 << 60
"""A clock that does not come."""

MAX_BANKS = 128
MAX_GROUPS = 64
MAX_RANKS = 16

OPEN_ROW = 0
"""Of each bank, -1 when closed."""
BANK_READ = OPEN_ROW + MAX_BANKS
BANK_ACTIVATE = BANK_READ + MAX_BANKS
BANK_PRECHARGE = BANK_ACTIVATE + MAX_BANKS
GROUP_READ = BANK_PRECHARGE + MAX_BANKS
GROUP_ACTIVATE = GROUP_READ + MAX_GROUPS
RANK_READ = GROUP_ACTIVATE + MAX_GROUPS
RANK_ACTIVATE = RANK_READ + MAX_RANKS
RANK_PRECHARGE = RANK_ACTIVATE + MAX_RANKS
RANK_PRECHARGE_ALL = RANK_PRECHARGE + MAX_RANKS
RANK_REFRESH = RANK_PRECHARGE_ALL + MAX_RANKS
LAST_ACTIVATIONS = RANK_REFRESH + MAX_RANKS
"""Of each rank the last four."""
READS = LAST_ACTIVATIONS + 4 * MAX_RANKS
"""How many commands of each kind were given, from here on."""
ACTIVATES = READS + 1
PRECHARGES = ACTIVATES + 1
REFRESHES = PRECHARGES + 1
REFRESH_DUE = REFRESHES + 1
"""Clock at which the next refresh falls due, the rank that is next, and how many wait."""
REFRESH_RANK = REFRESH_DUE + 1
REFRESH_WAITING = REFRESH_RANK + 1
CONTROLLER = REFRESH_WAITING + 1
"""Where the state of the controller begins."""


class Timing(NamedTuple):
    """Clocks between commands and the shape of a channel; names in capitals are data sheets'."""

    read_latency: int
    tRCD: int
    tRP: int
    tRP_all: int
    tRAS: int
    tRC: int
    tRTP: int
    read_same_group: int
    read_same_rank: int
    read_other_rank: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tPPD: int
    tRFC: int
    refresh_interval: int
    ranks_at_once: int
    ranks: int
    bank_groups: int
    banks_per_group: int
    banks_per_rank: int
    banks: int
    requests: int
    bank_requests: int
    two_commands: int
    hits_first: int
    split_activate: int
    clock_hold: int


def new_state(timing: Timing, channels: int, controller_size: int) -> Ints:
    """State of all channels, one a row: banks closed, anything allowed from clock 0 on."""
    state = np.zeros((channels, CONTROLLER + controller_size), np.int64)
    state[:, OPEN_ROW : OPEN_ROW + MAX_BANKS] = -1
    state[:, LAST_ACTIVATIONS : LAST_ACTIVATIONS + 4 * MAX_RANKS] = -NEVER
    state[:, REFRESH_DUE] = timing.refresh_interval
    return state


@inner
def when_read(t: Timing, s: Ints, b: int) -> int:
    """First clock at which an open bank may be read."""
    group = b // t.banks_per_group
    when = max(s[BANK_READ + b], s[GROUP_READ + group])
    return max(when, s[RANK_READ + group // t.bank_groups])


@inner
def when_activate(t: Timing, s: Ints, b: int) -> int:
    """First clock at which a closed bank may open a row."""
    group = b // t.banks_per_group
    rank = group // t.bank_groups
    when = max(s[BANK_ACTIVATE + b], s[GROUP_ACTIVATE + group])
    return max(when, s[RANK_ACTIVATE + rank], s[LAST_ACTIVATIONS + 4 * rank] + t.tFAW)


@inner
def when_precharge(t: Timing, s: Ints, b: int) -> int:
    """First clock at which an open bank may close its row."""
    return max(s[BANK_PRECHARGE + b], s[RANK_PRECHARGE + b // t.banks_per_rank])


@inner
def not_before(s: Ints, place: int, clock: int) -> None:
    """Put off what stands at ``place`` to ``clock``, unless it is later already."""
    s[place] = max(s[place], clock)


@inner
def read(t: Timing, s: Ints, b: int, clock: int) -> None:
    """Read a burst from the open row of a bank."""
    group = b // t.banks_per_group
    rank = group // t.bank_groups
    s[READS] += 1
    not_before(s, BANK_PRECHARGE + b, clock + t.tRTP)
    not_before(s, GROUP_READ + group, clock + t.read_same_group)
    for other in range(t.ranks):
        gap = t.read_same_rank if other == rank else t.read_other_rank
        not_before(s, RANK_READ + other, clock + gap)
    not_before(s, RANK_PRECHARGE_ALL + rank, clock + t.tRTP)


@inner
def activate(t: Timing, s: Ints, b: int, row: int, clock: int) -> None:
    """Open a row of a closed bank."""
    group = b // t.banks_per_group
    rank = group // t.bank_groups
    s[ACTIVATES] += 1
    s[OPEN_ROW + b] = row
    not_before(s, BANK_READ + b, clock + t.tRCD)
    not_before(s, BANK_PRECHARGE + b, clock + t.tRAS)
    not_before(s, BANK_ACTIVATE + b, clock + t.tRC)
    not_before(s, GROUP_ACTIVATE + group, clock + t.tRRD_L)
    not_before(s, RANK_ACTIVATE + rank, clock + t.tRRD_S)
    not_before(s, RANK_PRECHARGE_ALL + rank, clock + t.tRAS)
    not_before(s, RANK_REFRESH + rank, clock + t.tRC)
    window = LAST_ACTIVATIONS + 4 * rank
    for older in range(3):
        s[window + older] = s[window + older + 1]
    s[window + 3] = clock


@inner
def precharge(t: Timing, s: Ints, b: int, clock: int) -> None:
    """Close the row of a bank."""
    rank = b // t.banks_per_rank
    s[PRECHARGES] += 1
    s[OPEN_ROW + b] = -1
    not_before(s, BANK_ACTIVATE + b, clock + t.tRP)
    not_before(s, RANK_REFRESH + rank, clock + t.tRP)
    not_before(s, RANK_PRECHARGE + rank, clock + t.tPPD)
    not_before(s, RANK_PRECHARGE_ALL + rank, clock + t.tPPD)


@inner
def precharge_all(t: Timing, s: Ints, rank: int, clock: int) -> None:
    """Close all rows of a rank with one command."""
    s[PRECHARGES] += 1
    for b in range(rank * t.banks_per_rank, (rank + 1) * t.banks_per_rank):
        s[OPEN_ROW + b] = -1
    not_before(s, RANK_ACTIVATE + rank, clock + t.tRP_all)
    not_before(s, RANK_REFRESH + rank, clock + t.tRP)
    not_before(s, RANK_PRECHARGE + rank, clock + t.tPPD)
    not_before(s, RANK_PRECHARGE_ALL + rank, clock + t.tPPD)


@inner
def refresh(t: Timing, s: Ints, clock: int) -> None:
    """Refresh the rank that is next, whose banks must be closed."""
    rank = s[REFRESH_RANK]
    s[REFRESHES] += 1
    s[REFRESH_WAITING] -= 1
    s[REFRESH_RANK] = (rank + 1) % t.ranks
    not_before(s, RANK_REFRESH + rank, clock + t.tRFC)
    not_before(s, RANK_ACTIVATE + rank, clock + t.tRFC)
    not_before(s, RANK_PRECHARGE_ALL + rank, clock + t.tRFC)


@inner
def note_due_refresh(t: Timing, s: Ints, clock: int) -> None:
    """Remember a refresh that falls due in this clock."""
    if clock == s[REFRESH_DUE]:
        s[REFRESH_WAITING] += t.ranks_at_once
        s[REFRESH_DUE] += t.refresh_interval
