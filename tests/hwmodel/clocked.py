"""A plain model of both controllers that walks through every clock: the oracle of the event model.

It keeps times of past commands instead of "not before" clocks, looks at every request in every
clock, and knows nothing of events. It is slow, and written to be read beside the descriptions in
``hwmodel.dram``.
"""

from collections import defaultdict, deque
from dataclasses import dataclass, field

LONG_AGO = -(10**9)


@dataclass
class Request:
    bank: int  # through ranks and bank groups
    row: int
    number: int


@dataclass
class Bank:
    row: int | None = None
    hits: int = 0
    activated: int = LONG_AGO
    precharged: int = LONG_AGO
    read: int = LONG_AGO


@dataclass
class Channel:
    """The device: what was done when, and what may be done now."""

    memory: object
    banks: list = field(default_factory=list)
    reads: list = field(default_factory=list)  # (clock, bank)
    activations: list = field(default_factory=list)  # (clock, bank)
    precharges: list = field(default_factory=list)  # (clock, bank)
    closings: dict = field(default_factory=lambda: defaultdict(lambda: LONG_AGO))  # of a rank
    refreshed: dict = field(default_factory=lambda: defaultdict(lambda: LONG_AGO))  # of a rank

    def __post_init__(self):
        m = self.memory
        self.per_rank = m.bank_groups * m.banks_per_group
        self.banks = [Bank() for _ in range(self.per_rank * m.ranks)]

    def group(self, b):
        return b // self.memory.banks_per_group

    def rank(self, b):
        return b // self.per_rank

    def may_read(self, b, now):
        m = self.memory
        if now < self.banks[b].activated + m.tRCD:
            return False
        for clock, other in self.reads[-24:]:
            if self.group(other) == self.group(b):
                gap = max(m.burst_clocks, m.tCCD_L)
            elif self.rank(other) == self.rank(b):
                gap = max(m.burst_clocks, m.tCCD_S)
            else:
                gap = m.burst_clocks + max(m.tRTRS, m.tCS)
            if now < clock + gap:
                return False
        return True

    def may_activate(self, b, now):
        m, bank, rank = self.memory, self.banks[b], self.rank(b)
        all_rp = m.tRP if m.tRPab is None else m.tRPab
        if now < max(bank.activated + m.tRC, bank.precharged + m.tRP):
            return False
        if now < max(self.closings[rank] + all_rp, self.refreshed[rank] + m.tRFC):
            return False
        mine = [(clock, other) for clock, other in self.activations if self.rank(other) == rank]
        for clock, other in mine[-64:]:
            same = self.group(other) == self.group(b)
            if other != b and now < clock + (m.tRRD_L if same else m.tRRD_S):
                return False
        return len(mine) < 4 or now >= mine[-4][0] + m.tFAW

    def may_precharge(self, b, now):
        m, bank = self.memory, self.banks[b]
        if now < max(bank.activated + m.tRAS, bank.read + m.tRTP):
            return False
        return now >= self.last_precharge(self.rank(b)) + m.tPPD

    def last_precharge(self, rank):
        single = [clock for clock, b in self.precharges[-64:] if self.rank(b) == rank]
        return max([self.closings[rank], *single])

    def may_precharge_all(self, rank, now):
        m = self.memory
        banks = self.of_rank(rank)
        ready = [max(bank.activated + m.tRAS, bank.read + m.tRTP) for bank in banks]
        ready.append(self.last_precharge(rank) + m.tPPD)
        return now >= max(*ready, self.refreshed[rank] + m.tRFC)

    def may_refresh(self, rank, now):
        m = self.memory
        banks = self.of_rank(rank)
        if any(bank.row is not None for bank in banks):
            return False
        ready = [self.last_precharge(rank) + m.tRP, self.refreshed[rank] + m.tRFC]
        return now >= max(*ready, *(bank.activated + m.tRC for bank in banks))

    def of_rank(self, rank):
        return self.banks[rank * self.per_rank : (rank + 1) * self.per_rank]

    def read(self, b, now):
        self.reads.append((now, b))
        self.banks[b].read = now
        self.banks[b].hits += 1

    def activate(self, b, row, now):
        self.activations.append((now, b))
        self.banks[b].activated, self.banks[b].row = now, row

    def precharge(self, b, now):
        self.precharges.append((now, b))
        bank = self.banks[b]
        bank.precharged, bank.row, bank.hits = now, None, 0

    def precharge_all(self, rank, now):
        self.closings[rank] = now
        for bank in self.of_rank(rank):
            bank.row = None


class BankQueueController:
    """See hwmodel.dram.bank_queues."""

    lead, extra = 0, 1

    def __init__(self, memory):
        self.memory, self.device = memory, Channel(memory)
        self.waiting = []
        self.queues = [[] for _ in self.device.banks]
        self.turn, self.due = 0, deque()
        self.next_rank = 0

    def has_room(self):
        return len(self.waiting) < self.memory.queues["transaction_per_channel"]

    def accept(self, request):
        self.waiting.append(request)

    def tick(self, now):
        """The requests that were read in this clock."""
        m = self.memory
        staggered = m.refresh == "staggered"
        interval = m.tREFI // m.ranks if staggered else m.tREFI
        if now > 0 and now % interval == 0:
            for _ in range(1 if staggered else m.ranks):
                self.due.append(self.next_rank)
                self.next_rank = (self.next_rank + 1) % m.ranks
        done, kind = [], None
        shut = self.due[0] if self.due else None
        if self.due and self.refresh(now):
            kind = "row"
            shut = shut if self.due and self.due[0] == shut else None
        if kind is None:
            kind = self.serve(now, shut, None, done)
        if kind and m.commands_per_clock == 2:
            self.serve(now, shut, kind, done)
        for request in self.waiting:
            if len(self.queues[request.bank]) < m.queues["command_per_bank"]:
                self.queues[request.bank].append(request)
                self.waiting.remove(request)
                break
        return done

    def refresh(self, now):
        device, rank = self.device, self.due[0]
        for b in range(rank * device.per_rank, (rank + 1) * device.per_rank):
            if device.banks[b].row is not None and device.may_precharge(b, now):
                device.precharge(b, now)
                return True
        if device.may_refresh(rank, now):
            device.refreshed[rank] = now
            self.due.popleft()
            return True
        return False

    def serve(self, now, shut, before, done):
        device, count = self.device, len(self.queues)
        for step in range(1, count + 1):
            b = (self.turn + step) % count
            if device.rank(b) == shut:
                continue
            for request in self.queues[b]:
                command = self.command(request, now)
                if command is None:
                    continue
                self.turn = b
                kind = "column" if command == "read" else "row"
                if kind == before:
                    return None
                if command == "read":
                    device.read(b, now)
                    self.queues[b].remove(request)
                    done.append(request)
                elif command == "activate":
                    device.activate(b, request.row, now)
                else:
                    device.precharge(b, now)
                return kind
        return None

    def command(self, request, now):
        """What may be done for a request in this clock."""
        device, queue = self.device, self.queues[request.bank]
        bank = device.banks[request.bank]
        if bank.row is None:
            return "activate" if device.may_activate(request.bank, now) else None
        if bank.row == request.row:
            return "read" if device.may_read(request.bank, now) else None
        if request is not queue[0] or not device.may_precharge(request.bank, now):
            return None
        waits = any(other.row == bank.row for other in queue)
        return None if waits and bank.hits < 4 else "precharge"


class ReadBufferController:
    """See hwmodel.dram.read_buffer."""

    lead, extra = 2, 0

    def __init__(self, memory):
        self.memory, self.device = memory, Channel(memory)
        self.buffer, self.opened, self.half = [], [], None
        self.deadline, self.synced, self.clock_until = 0, None, 0
        self.due = deque()

    def has_room(self):
        return len(self.buffer) < self.memory.queues["read_buffer"]

    def accept(self, request):
        self.buffer.append(request)

    def tick(self, now):
        """The requests that were read in this clock."""
        m = self.memory
        if now > 0 and now % m.tREFI == 0:
            self.due += range(m.ranks)
        if self.synced:
            request, self.synced = self.synced, None
            return self.read(request, now)
        if self.half and self.deadline <= now:
            return self.open_half()
        return self.choose(now)

    def choose(self, now):
        device = self.device
        ready = [r for r in self.opened if device.may_read(r.bank, now)]
        if ready:
            return self.read_or_sync(min(ready, key=lambda r: r.number), now)
        if self.due:
            return [] if self.refresh(now) else self.open_half()
        for place, request in enumerate(self.buffer):
            command = self.command(place, request, now)
            if command:
                return self.give(command, request, now)
        return self.open_half()

    def give(self, command, request, now):
        if command == "read":
            return self.read_or_sync(request, now)
        if command == "precharge":
            self.device.precharge(request.bank, now)
            return []
        self.device.activate(request.bank, request.row, now)
        self.buffer.remove(request)
        self.half, self.deadline = request, now + (self.memory.tAAD or 0)
        return [] if self.memory.tAAD else self.open_half()

    def command(self, place, request, now):
        device, b = self.device, request.bank
        bank = device.banks[b]
        if self.half and self.half.bank == b:
            return None
        if bank.row == request.row:
            return "read" if device.may_read(b, now) else None
        if bank.row is None:
            return "activate" if not self.half and device.may_activate(b, now) else None
        if any(other.bank == b for other in self.opened):
            return None
        older = [r for r in self.buffer[:place] if (r.bank, r.row) == (b, bank.row)]
        if older and self.memory.scheduling == "oldest-ready-hits-first":
            return None
        return "precharge" if device.may_precharge(b, now) else None

    def open_half(self):
        if self.half:
            self.opened.append(self.half)
            self.half = None
        return []

    def refresh(self, now):
        device, rank = self.device, self.due[0]
        busy = [*self.opened, *([self.half] if self.half else [])]
        if any(device.rank(request.bank) == rank for request in busy):
            return False
        if any(bank.row is not None for bank in device.of_rank(rank)):
            if device.may_precharge_all(rank, now):
                device.precharge_all(rank, now)
                return True
            return False
        if device.may_refresh(rank, now):
            device.refreshed[rank] = now
            self.due.popleft()
            return True
        return False

    def read_or_sync(self, request, now):
        if not self.memory.tAAD or now < self.clock_until:
            return self.read(request, now)
        if self.half and self.deadline <= now + 1:
            return self.open_half()
        self.synced = request
        return []

    def read(self, request, now):
        self.device.read(request.bank, now)
        (self.buffer if request in self.buffer else self.opened).remove(request)
        hold = self.memory.read_latency + (self.memory.tWCKPST or 0)
        self.clock_until = max(self.clock_until, now + hold)
        return [request]


def clocked_cycles(memory, places, requester):
    """Cycles of reading requests, each given by channel, bank through all, and row."""
    kind = BankQueueController if memory.scheduling == "bank-queues" else ReadBufferController
    channels = [kind(memory) for _ in range(memory.channels)]
    requests = [(c, Request(b, row, n)) for n, (c, b, row) in enumerate(places)]
    clock, first = 0, requester.start + kind.lead
    next_send, held, under_way = first, 0, []
    available = done = 0
    next_take = LONG_AGO
    total = len(requests)
    while True:
        for _ in range(memory.requests_accepted_per_clock):
            full = requester.slots and held >= requester.slots
            if not requests or clock < next_send or full or not channels[requests[0][0]].has_room():
                break
            channel, request = requests.pop(0)
            channels[channel].accept(request)
            next_send = clock + requester.gap
            held += 1
        arrived = [one for one in under_way if one <= clock]
        under_way = [one for one in under_way if one > clock]
        available += len(arrived)
        done += len(arrived)
        if requester.slots and available and clock >= next_take:
            available, held, next_take = available - 1, held - 1, clock + requester.drain
            total -= 1
        finished = total == 0 if requester.slots else done == total
        if finished:
            return clock - requester.start + kind.extra
        for channel in channels:
            under_way += [clock + memory.read_latency for _ in channel.tick(clock)]
        clock += 1
