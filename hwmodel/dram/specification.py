"""A DRAM and its controller, as a specification file describes them."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hwmodel.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hwmodel.dram.device import Timing
    from hwmodel.dram.mapping import AddressMapping
    from hwmodel.fetch import Requester, Served, Tiles
    from hwmodel.ranges import Ints

BANK_QUEUES = "bank-queues"
OLDEST_READY = "oldest-ready"
OLDEST_READY_HITS_FIRST = "oldest-ready-hits-first"
SCHEDULINGS = (BANK_QUEUES, OLDEST_READY, OLDEST_READY_HITS_FIRST)
STAGGERED = "staggered"
AT_ONCE = "at-once"
REFRESHES = (STAGGERED, AT_ONCE)
XOR_COLUMN = "column"
MOST_QUEUED = 256
MOST_FIELDS = 16

_SENTENCES = {
    "scheduling": (
        (r"transaction queue, then one queue a bank\b", BANK_QUEUES),
        (r"oldest request .* while an older request hits\b", OLDEST_READY_HITS_FIRST),
        (r"oldest request whose next command is ready\b", OLDEST_READY),
    ),
    "refresh": (
        (r"all banks of one rank, ranks staggered\b", STAGGERED),
        (r"all banks, all ranks at once\b", AT_ONCE),
    ),
    "mapping_xor": ((r"with c the column in requests\b", XOR_COLUMN),),
}
"""Some files describe these in a sentence; how it begins says which is meant."""

_POSITIVE = frozenset(
    (
        *("bus_bits", "BL", "burst_clocks", "request_bytes", "read_latency", "tRCD", "tRP", "tRAS"),
        *("tRC", "tRFC", "tREFI", "bank_groups", "banks_per_group", "ranks", "channels", "rows"),
        *("columns", "row_bytes", "commands_per_clock", "requests_accepted_per_clock"),
    )
)


@dataclass(frozen=True, kw_only=True)
class Dram(Memory):
    """DRAM behind a controller. Times in clocks; names are those of JEDEC data sheets.

    Attributes:
        simulator, config, overrides: where the values were taken from.
        bus_bits, BL, burst_clocks, request_bytes: of a channel's bus; a request is a burst.
        CL, read_latency: column access to the first data, and to the last.
        tRCD, tRP, tRPab, tRAS, tRC, tRTP: of a bank; tRPab when all banks close at once.
        tCCD_S, tCCD_L, tRRD_S, tRRD_L, tFAW, tPPD: between banks, of other or the same group.
        tRTRS, tCS: what changing the rank costs.
        tRFC, tREFI, refresh: one refresh, their interval, and ``staggered`` or ``at-once`` over ranks.
        tAAD, tWCKPST: of an activation in two commands and of a data clock that stops (LPDDR5).
        mapping_msb_to_lsb, mapping_xor: see :mod:`hwmodel.dram.mapping`; xor is ``column`` or none.
        queues: ``transaction_per_channel`` and ``command_per_bank``, or ``read_buffer``.
        scheduling: ``bank-queues``, ``oldest-ready`` or ``oldest-ready-hits-first``.
    """

    kind: ClassVar[str] = "dram"

    bus_bits: int
    BL: int
    burst_clocks: int
    request_bytes: int
    CL: int
    read_latency: int
    tRCD: int
    tRP: int
    tRAS: int
    tRC: int
    tRTP: int
    tCCD_S: int
    tCCD_L: int
    tRRD_S: int
    tRRD_L: int
    tFAW: int
    tRFC: int
    tREFI: int
    bank_groups: int
    banks_per_group: int
    ranks: int
    channels: int
    rows: int
    columns: int
    row_bytes: int
    mapping_msb_to_lsb: Sequence[str]
    queues: Mapping[str, int]
    scheduling: str
    refresh: str
    requests_accepted_per_clock: int
    commands_per_clock: int = 1
    tRTRS: int = 0
    tCS: int = 0
    tPPD: int = 0
    tRPab: int | None = None
    tAAD: int | None = None
    tWCKPST: int | None = None
    tCAS: int = 0
    tBL_max: int | None = None
    mapping_xor: str | None = None
    mapping_name: str | None = None
    pseudo_channels: int = 1
    command_clocks_over_1: Mapping[str, int] = field(default_factory=dict)
    simulator: str | None = None
    config: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read sentences as the names they stand for, then check."""
        for key, meanings in _SENTENCES.items():
            text = getattr(self, key)
            for start, name in meanings:
                if isinstance(text, str) and re.match(start, " ".join(text.split())):
                    object.__setattr__(self, key, name)
                    break
        super().__post_init__()

    @property
    def unit_bytes(self) -> int:
        """Bytes of a burst."""
        return self.request_bytes

    @property
    def peak_bytes_per_clock(self) -> float:
        """Bytes that all channels carry in a clock."""
        return self.channels * self.request_bytes / self.burst_clocks

    def serve(self, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
        """Serve by the event model."""
        from hwmodel.dram.simulate import serve

        return serve(self, runs, requester, tiles)

    def check(self) -> None:
        """Check that values are possible and that the model covers them."""
        for key in sorted(_POSITIVE):
            if getattr(self, key) < 1:
                self._refuse(f"{key} must be at least 1, found {getattr(self, key)}")
        self._check_plain()
        self._check_choices()
        self._check_shape()
        self._check_refresh()
        try:
            assert self.mapping
        except ValueError as error:
            self._refuse(f"mapping_msb_to_lsb: {error}")

    def _check_refresh(self) -> None:
        """Between two refreshes at least one read must be possible, or a fetch would never end."""
        t = self.timing
        opening = t.tRC + t.tRCD + t.tFAW + t.tRRD_L + t.tRRD_S
        closing = t.tRTP + t.tRAS + max(t.tRP, t.tRP_all) + (1 + t.tPPD) * t.banks_per_rank
        reading = t.read_same_group + t.read_same_rank + t.read_other_rank + t.split_activate
        busy = t.tRFC + opening + closing + reading
        if t.refresh_interval <= busy * t.ranks_at_once:
            self._refuse(
                f"a refresh every {t.refresh_interval} clocks leaves no time to read, for up to "
                f"{busy * t.ranks_at_once} pass until the first read after it; raise tREFI or lower tRFC"
            )

    def _check_plain(self) -> None:
        fields = self.mapping_msb_to_lsb
        plain = isinstance(fields, list) and all(isinstance(name, str) for name in fields)
        if not plain or len(fields) > MOST_FIELDS:
            self._refuse(
                f"mapping_msb_to_lsb must be a list of names of fields, found {fields!r:.80}"
            )
        overrides = self.overrides
        if not isinstance(overrides, dict) or not all(
            isinstance(value, (str, int, float)) for value in overrides.values()
        ):
            self._refuse(f"overrides must be a mapping of plain values, found {overrides!r:.80}")

    def _check_choices(self) -> None:
        for key, allowed in (("scheduling", SCHEDULINGS), ("refresh", REFRESHES)):
            if getattr(self, key) not in allowed:
                self._refuse(f"{key} must be {' or '.join(allowed)}, found {getattr(self, key)!r}")
        if self.mapping_xor not in (None, XOR_COLUMN):
            self._refuse(
                f"mapping_xor must be {XOR_COLUMN!r} or left out, found {self.mapping_xor!r}"
            )
        two = self.scheduling == BANK_QUEUES
        wanted = ("transaction_per_channel", "command_per_bank") if two else ("read_buffer",)
        if not isinstance(self.queues, dict) or set(self.queues) != set(wanted):
            self._refuse(
                f"scheduling {self.scheduling} has the queues {', '.join(wanted)}, found {self.queues!r}"
            )
        for name, size in self.queues.items():
            if not isinstance(size, int) or not 1 <= size <= MOST_QUEUED:
                self._refuse(f"queues: {name} must lie between 1 and {MOST_QUEUED}, found {size!r}")
        if self.commands_per_clock > (2 if two else 1):
            self._refuse(
                f"scheduling {self.scheduling} cannot give {self.commands_per_clock} commands a clock"
            )
        if two and self.tAAD:
            self._refuse(f"an activation in two commands (tAAD) needs scheduling {OLDEST_READY}")

    def _check_shape(self) -> None:
        from hwmodel.dram.device import MAX_BANKS, MAX_GROUPS, MAX_RANKS

        for what, found, most in (
            ("banks", self.timing.banks, MAX_BANKS),
            ("bank groups", self.ranks * self.bank_groups, MAX_GROUPS),
            ("ranks", self.ranks, MAX_RANKS),
            ("channels", self.channels, 64),
        ):
            if found > most:
                self._refuse(f"it has {found} {what}; the model takes up to {most}")
        if self.request_bytes * 8 != self.bus_bits * self.BL:
            self._refuse(
                f"request_bytes is {self.request_bytes}; bus_bits {self.bus_bits} and BL {self.BL} "
                f"make a burst of {self.bus_bits * self.BL // 8} bytes"
            )
        if self.columns % self.BL:
            self._refuse(f"columns {self.columns} must be a multiple of BL {self.BL}")
        for key in ("tCAS", "command_clocks_over_1"):
            if getattr(self, key):
                self._refuse(f"{key} {getattr(self, key)!r} is not modelled; it must be 0 or empty")
        if self.pseudo_channels != 1:
            self._refuse("pseudo channels are not modelled; describe each as a channel")

    @functools.cached_property
    def timing(self) -> Timing:
        """The rules in the form that the model uses."""
        from hwmodel.dram.device import Timing

        per_rank = self.bank_groups * self.banks_per_group
        at_once = self.refresh == AT_ONCE
        two = self.scheduling == BANK_QUEUES
        return Timing(
            read_latency=self.read_latency,
            tRCD=self.tRCD,
            tRP=self.tRP,
            tRP_all=self.tRP if self.tRPab is None else self.tRPab,
            tRAS=self.tRAS,
            tRC=self.tRC,
            tRTP=self.tRTP,
            read_same_group=max(self.burst_clocks, self.tCCD_L),
            read_same_rank=max(self.burst_clocks, self.tCCD_S),
            read_other_rank=self.burst_clocks + max(self.tRTRS, self.tCS),
            tRRD_S=self.tRRD_S,
            tRRD_L=self.tRRD_L,
            tFAW=self.tFAW,
            tPPD=self.tPPD,
            tRFC=self.tRFC,
            refresh_interval=self.tREFI if at_once else self.tREFI // self.ranks,
            ranks_at_once=self.ranks if at_once else 1,
            ranks=self.ranks,
            bank_groups=self.bank_groups,
            banks_per_group=self.banks_per_group,
            banks_per_rank=per_rank,
            banks=per_rank * self.ranks,
            requests=self.queues.get("transaction_per_channel", self.queues.get("read_buffer", 0)),
            bank_requests=self.queues.get("command_per_bank", 0) if two else 0,
            two_commands=self.commands_per_clock - 1,
            hits_first=int(self.scheduling == OLDEST_READY_HITS_FIRST),
            split_activate=self.tAAD or 0,
            clock_hold=self.tWCKPST or 0,
        )

    @functools.cached_property
    def mapping(self) -> AddressMapping:
        """Where addresses fall."""
        from hwmodel.dram.mapping import make_mapping

        sizes = {
            "channel": self.channels,
            "rank": self.ranks,
            "bankgroup": self.bank_groups,
            "bank": self.banks_per_group,
            "row": self.rows,
            "column": self.columns // self.BL,
        }
        return make_mapping(self.mapping_msb_to_lsb, sizes, xor=self.mapping_xor is not None)
