"""Memories: the figures that a fetch-cycle estimate needs, by name."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class MemorySpec:
    """One channel of DRAM. Times in memory clocks; names are those of JEDEC data sheets.

    Attributes:
        name: of the memory.
        tCK_ns: one clock.
        bus_bits: width of the data bus.
        BL: burst length, in transfers; a burst takes BL/2 clocks.
        CL: column access to data.
        tRCD: row activation to column access.
        tRP: precharge of a row.
        tRTP: read to precharge.
        tCCD_S: column access to column access, of different bank groups.
        tCCD_L: the same, of one bank group.
        tRFC: one refresh.
        tREFI: refresh to refresh.
        columns: of a row, in transfers.
        look_ahead: requests that the controller can choose from.
        bank_groups_interleave: whether consecutive bursts go to different bank groups.
    """

    name: str
    tCK_ns: float  # noqa: N815 - data sheets' names
    bus_bits: int
    BL: int
    CL: int
    tRCD: int  # noqa: N815
    tRP: int  # noqa: N815
    tRTP: int  # noqa: N815
    tCCD_S: int  # noqa: N815
    tCCD_L: int  # noqa: N815
    tRFC: int  # noqa: N815
    tREFI: int  # noqa: N815
    columns: int
    look_ahead: int
    bank_groups_interleave: bool

    @property
    def burst_bytes(self) -> int:
        """Bytes that one burst brings."""
        return self.bus_bits // 8 * self.BL


def memory_names() -> tuple[str, ...]:
    """The memories there are."""
    return tuple(_table())


def load_memory(name: str) -> MemorySpec:
    """A memory by name.

    Raises:
        KeyError: when there is none of that name.
    """
    return MemorySpec(name, **_table()[name])


@functools.cache
def _table() -> dict[str, Any]:
    text = Path(__file__).with_name("memories.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
