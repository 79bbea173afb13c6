"""Fetch cycles of a long sequential stream by formula: a check of the event model, and its summary.

Bursts follow each other at the pace that column timing allows; now and then a refresh stops them.
The formulas hold within half a per cent from 256 KiB up for one channel with one rank; short
streams, other orders and more channels need the event model of :mod:`hwmodel.fetch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwmodel.dram.specification import Dram

REACH = 8
"""How many bursts a bank group's overlap reaches beyond what the controller can choose from."""


def covers(memory: Dram) -> bool:
    """Whether the formulas are meant for a memory.

    They want one channel and one rank, plain address bits, and activations in one command.
    """
    plain = memory.mapping_xor is None and not memory.timing.split_activate
    return memory.channels == 1 and memory.ranks == 1 and plain


def first_burst_clocks(memory: Dram) -> int:
    """``L0 = tRCD + CL + burst + 2``: what comes on top of the pace of all bursts."""
    return memory.tRCD + memory.read_latency + 2


def refresh_clocks(memory: Dram) -> int:
    """``R = tRTP + tRP + tRFC + tRCD``: how long a refresh stops a stream."""
    return memory.tRTP + memory.tRP + memory.tRFC + memory.tRCD


def pace_clocks(memory: Dram) -> float:
    """Clocks from burst to burst.

    ``max(burst, tCCD_S)`` where bank groups interleave. Elsewhere tCCD_L rules inside a row, but for
    the bursts near its end that the controller's look-ahead overlaps with the next bank group.
    """
    short = max(memory.burst_clocks, memory.tCCD_S)
    long = max(memory.burst_clocks, memory.tCCD_L)
    if long == short or _groups_interleave(memory):
        return short
    bursts_in_row = memory.columns / memory.BL
    choice = memory.timing.requests + memory.timing.bank_requests
    overlapped = min(choice + REACH, bursts_in_row)
    return long * (bursts_in_row - overlapped * (long / short - 1)) / bursts_in_row


def stream_clocks(memory: Dram, length: int) -> int:
    """Clocks of a stream of ``length`` bytes from an aligned address, banks closed before.

    ``T = L0 + m s + n R`` with m bursts of pace s; the number n of refreshes that fall due in that
    time is a fixed point.
    """
    bursts = -(-length // memory.unit_bytes)
    if not bursts:
        return 0
    return round(_with_refreshes(memory, bursts * pace_clocks(memory), refresh_clocks(memory)))


def consumer_limited_clocks(memory: Dram, length: int, drain: int, slots: int) -> int:
    """Clocks of a stream whose consumer takes a burst each ``drain`` clocks from ``slots`` slots.

    ``T = m r + L0 + n max(0, R - D r)``: a buffer that lasts through a refresh hides it. Holds where
    the consumer is slower than the memory.
    """
    bursts = -(-length // memory.unit_bytes)
    if not bursts:
        return 0
    shown = max(0, refresh_clocks(memory) - slots * drain)
    return round(_with_refreshes(memory, float(bursts * drain), shown))


def _with_refreshes(memory: Dram, streaming: float, each: int) -> float:
    refreshes = 0
    while True:
        total = first_burst_clocks(memory) + streaming + refreshes * each
        due = max(0, int((total - memory.read_latency) // memory.tREFI))
        if due <= refreshes:
            return total
        refreshes = due


def _groups_interleave(memory: Dram) -> bool:
    """Whether bursts that follow each other fall on different bank groups."""
    return memory.bank_groups > 1 and memory.mapping_msb_to_lsb[-1] == "bankgroup"
