"""How many memory clocks it takes to fetch a stream of bytes: the closed form.

Bursts follow each other at the pace that column timing allows; now and then a refresh stops them.
Bytes over peak bandwidth, as simple models have it, misses the same streams by up to 20 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.memory import MemorySpec


@dataclass(frozen=True)
class FetchEstimate:
    """What a fetch takes.

    Attributes:
        cycles: memory clocks from the first request to the last data.
        bursts: how many are read.
        refreshes: how many stand in the way.
    """

    cycles: int
    bursts: int
    refreshes: int


def estimate_fetch(memory: MemorySpec, fetched_bytes: int) -> FetchEstimate:
    """A sequential stream from an aligned address, banks closed before.

    ``T = L0 + m s + refreshes R`` with m bursts, ``L0 = tRCD + CL + BL/2 + 2`` and
    ``R = tRTP + tRP + tRFC + tRCD``; the number of refreshes is a fixed point. The pace s is
    ``max(BL/2, tCCD_S)`` where bank groups interleave; elsewhere tCCD_L rules inside a row, but for
    the bursts near a row's end that the controller's look-ahead overlaps with the next bank group.
    """
    if fetched_bytes <= 0:
        return FetchEstimate(0, 0, 0)
    bursts = -(-fetched_bytes // memory.burst_bytes)
    half = memory.BL / 2
    first = memory.tRCD + memory.CL + half + 2
    refresh = memory.tRTP + memory.tRP + memory.tRFC + memory.tRCD
    streaming = first + bursts * _pace(memory)
    refreshes = 0
    while True:
        total = streaming + refreshes * refresh
        due = max(0, int((total - memory.CL - half) // memory.tREFI))
        if due <= refreshes:
            return FetchEstimate(round(total), bursts, refreshes)
        refreshes = due


def _pace(memory: MemorySpec) -> float:
    half = memory.BL / 2
    short, long = max(half, memory.tCCD_S), max(half, memory.tCCD_L)
    if memory.bank_groups_interleave or long == short:
        return short
    bursts_in_row = memory.columns / memory.BL
    overlapped = min(memory.look_ahead + 8, bursts_in_row)
    return long * (bursts_in_row - overlapped * (long / short - 1)) / bursts_in_row
