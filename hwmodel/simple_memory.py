"""Memories without banks: serial flash that is read in place, and on-chip SRAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hwmodel.memory import Memory

if TYPE_CHECKING:
    from hwmodel.fetch import Requester, Served, Tiles
    from hwmodel.ranges import Ints


@dataclass(frozen=True, kw_only=True)
class SerialFlash(Memory):
    """NOR flash on a serial bus that a controller maps into the address space (execute in place).

    A command, an address and dummy clocks come before data. With ``continuous`` the controller goes
    on reading while addresses follow each other; without, each line is a command of its own. Between
    two commands chip select stays high for ``deselect_clocks``.

    Attributes:
        lines: data lines.
        transfers_per_clock: 2 where both edges carry data.
        line_bytes: what the controller reads at least, aligned.
        command_clocks, address_clocks, dummy_clocks, deselect_clocks: of each command.
        continuous: whether a command goes on over lines that follow each other.
    """

    kind: ClassVar[str] = "serial-flash"

    lines: int
    transfers_per_clock: int
    line_bytes: int
    command_clocks: int
    address_clocks: int
    dummy_clocks: int
    deselect_clocks: int
    continuous: bool

    @property
    def unit_bytes(self) -> int:
        """Bytes of a line."""
        return self.line_bytes

    @property
    def peak_bytes_per_clock(self) -> float:
        """Bytes that the lines carry in a clock."""
        return self.lines * self.transfers_per_clock / 8

    def serve(self, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
        """Serve line by line."""
        from hwmodel.simple_fetch import Bus, serve

        bus = Bus(
            clocks=-(-self.line_bytes * 8 // (self.lines * self.transfers_per_clock)),
            latency=0,
            command=self.command_clocks + self.address_clocks + self.dummy_clocks,
            apart=self.deselect_clocks,
            each=0 if self.continuous else 1,
        )
        return serve(self, bus, runs, requester, tiles)

    def check(self) -> None:
        """Check that values are possible."""
        if self.lines not in (1, 2, 4, 8, 16):
            self._refuse(f"lines must be 1, 2, 4, 8 or 16, found {self.lines}")
        if self.transfers_per_clock not in (1, 2):
            self._refuse(f"transfers_per_clock must be 1 or 2, found {self.transfers_per_clock}")
        if self.line_bytes < 1:
            self._refuse(f"line_bytes must be at least 1, found {self.line_bytes}")
        if not isinstance(self.continuous, bool):
            self._refuse(f"continuous must be true or false, found {self.continuous!r}")


@dataclass(frozen=True, kw_only=True)
class Sram(Memory):
    """On-chip memory that gives a word each clock.

    Attributes:
        bus_bits: of a word.
        read_latency: clocks from a request to its data; 1 is the next clock.
    """

    kind: ClassVar[str] = "sram"

    bus_bits: int
    read_latency: int

    @property
    def unit_bytes(self) -> int:
        """Bytes of a word."""
        return self.bus_bits // 8

    @property
    def peak_bytes_per_clock(self) -> float:
        """Bytes of a word."""
        return float(self.unit_bytes)

    def serve(self, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
        """Serve a word each clock."""
        from hwmodel.simple_fetch import Bus, serve

        return serve(self, Bus(1, self.read_latency, 0, 0, 0), runs, requester, tiles)

    def check(self) -> None:
        """Check that values are possible."""
        if self.bus_bits < 8 or self.bus_bits % 8:
            self._refuse(f"bus_bits must be a multiple of 8, found {self.bus_bits}")
        if self.read_latency < 1:
            self._refuse(f"read_latency must be at least 1, found {self.read_latency}")
