"""The event model against a plain model that looks at every clock, on memories that nobody ships."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.dram.mapping import BANK, BANK_GROUP, CHANNEL, RANK, ROW, locate
from hwmodel.fetch import Requester, fetch_ranges
from hwmodel.memory import load_memory, make_memory

spec = importlib.util.spec_from_file_location("clocked", Path(__file__).with_name("clocked.py"))
clocked = importlib.util.module_from_spec(spec)
sys.modules["clocked"] = clocked
spec.loader.exec_module(clocked)

FIELDS = ["row", "channel", "rank", "bank", "bankgroup", "column"]


@st.composite
def memories(draw):
    """A memory of one of four kinds, with other timings, ranks, channels, mappings and queues."""
    name = draw(st.sampled_from(["ddr4-2400", "hbm2-1ch", "ddr4-2400r-mop4", "lpddr5-6400"]))
    values = load_memory(name).describe()
    del values["name"]

    def within(key, low, high):
        values[key] = draw(st.integers(low, high))
        return values[key]

    values["read_latency"] = within("CL", 4, 30) + values["burst_clocks"]
    for key, low, high in (
        ("tRCD", 4, 25),
        ("tRTP", 2, 12),
        ("tFAW", 8, 50),
        ("tPPD", 0, 4),
        ("tRFC", 30, 150),
        ("tREFI", 1300, 2500),
        ("tCS", 0, 4),
        ("ranks", 1, 2),
    ):
        within(key, low, high)
    values["tRC"] = within("tRP", 4, 20) + within("tRAS", 12, 45) + draw(st.integers(-4, 4))
    values["tRRD_L"] = within("tRRD_S", 1, 8) + draw(st.integers(0, 4))
    values["tCCD_L"] = within("tCCD_S", 1, 6) + draw(st.integers(0, 4))
    values["refresh"] = draw(st.sampled_from(["staggered", "at-once"]))
    values["requests_accepted_per_clock"] = draw(st.sampled_from([1, 2, 8]))
    if values["scheduling"] == "bank-queues":
        values["queues"] = {
            "transaction_per_channel": draw(st.integers(1, 34)),
            "command_per_bank": draw(st.integers(1, 9)),
        }
        values["commands_per_clock"] = draw(st.integers(1, 2))
        values["channels"] = draw(st.sampled_from([1, 2, 4]))
        values["mapping_msb_to_lsb"] = draw(st.permutations(FIELDS))
    else:
        values["refresh"] = "at-once"
        values["queues"] = {"read_buffer": draw(st.integers(1, 34))}
        values["scheduling"] = draw(st.sampled_from(["oldest-ready", "oldest-ready-hits-first"]))
        if "tAAD" in values:
            within("tAAD", 1, 9)
            within("tWCKPST", 0, 5)
            values["tRPab"] = values["tRP"] + draw(st.integers(0, 4))
    return make_memory("random", values)


@st.composite
def requesters(draw):
    """One that is paced, buffered, late, or none of these."""
    slots = draw(st.sampled_from([0, 0, 1, 7, 32]))
    return Requester(
        gap=draw(st.sampled_from([0, 0, 1, 4])),
        slots=slots,
        drain=draw(st.integers(1, 8)) if slots else 0,
        start=draw(st.sampled_from([0, 0, 1, 1500])),
    )


runs = st.lists(
    st.tuples(st.sampled_from([1, 1, 2, 3, 40, 1000]), st.sampled_from([1, 2, 5, 20, 60])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(memory=memories(), requester=requesters(), steps=runs, first=st.integers(0, 1 << 14))
def test_events_and_clocks_give_the_same_cycles(memory, requester, steps, first):
    place = np.zeros(6, np.int64)
    ranges, places, unit = [], [], first
    for gap, length in steps:
        unit += gap
        ranges.append((unit * memory.unit_bytes, length * memory.unit_bytes))
        for request in range(unit, unit + length):
            locate(memory.mapping, request, place)
            group = place[RANK] * memory.bank_groups + place[BANK_GROUP]
            bank = int(group * memory.banks_per_group + place[BANK])
            places.append((int(place[CHANNEL]), bank, int(place[ROW])))
        unit += length
    fetch = fetch_ranges(memory, ranges, requester)
    assert fetch.requests == len(places)
    assert fetch.cycles == clocked.clocked_cycles(memory, places, requester)


def test_the_plain_model_counts_as_the_simulators_do():
    """So that what it shows about events holds for the simulators' clocks."""
    for name, cycles in (("ddr4-2400", 802), ("ddr4-2400r", 800), ("lpddr5-6400", 721)):
        memory = load_memory(name)
        place = np.zeros(6, np.int64)
        places = []
        for request in range(8192 // memory.unit_bytes):
            locate(memory.mapping, request, place)
            bank = int(place[BANK_GROUP] * memory.banks_per_group + place[BANK])
            places.append((0, bank, int(place[ROW])))
        assert clocked.clocked_cycles(memory, places, Requester()) == cycles
