"""Memory specifications: the shipped ones, a user's own, and what is said about wrong ones."""

import dataclasses

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.dram.mapping import FIELDS, locate, make_mapping
from hwmodel.dram.specification import Dram
from hwmodel.errors import MemoryFileError
from hwmodel.fetch import Requester, fetch_ranges, fetch_stream
from hwmodel.memory import load_memory, make_memory, memory_names


def values_of(name):
    """A memory's values as a file would have them."""
    memory = load_memory(name)
    fields = dataclasses.asdict(memory)
    del fields["name"]
    return {"kind": memory.kind} | {key: one for key, one in fields.items() if one is not None}


def test_shipped_memories_are_those_of_the_reference_file(shared_folder):
    path = shared_folder / "memories.yaml"
    if not path.is_file():
        pytest.skip("the reference file ../shared/memories.yaml is not here")
    reference = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, values in reference.items():
        assert make_memory(name, values) == load_memory(name)


@pytest.mark.parametrize("name", memory_names())
def test_a_described_memory_can_be_made_again(name):
    memory = load_memory(name)
    described = memory.describe()
    assert described.pop("name") == name
    assert make_memory(name, described) == memory
    assert None not in described.values()


def test_flash_and_sram_name_their_data_sheet():
    for name in memory_names():
        memory = load_memory(name)
        if not isinstance(memory, Dram):
            assert "data sheet" in memory.source


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"tRDC": 4}, "there is no key 'tRDC'; did you mean tRCD?"),
        ({"tRCD": "17"}, "tRCD must be a whole number, found '17'"),
        ({"tRCD": True}, "tRCD must be a whole number, found True"),
        ({"tRCD": -1}, "tRCD must lie between 0 and 2\\^40, found -1"),
        ({"tCK_ns": float("nan")}, "tCK_ns must lie between 0"),
        ({"ranks": 0}, "ranks must be at least 1, found 0"),
        ({"ranks": 3}, "a power of two values; rank has 3"),
        ({"scheduling": "best"}, "scheduling must be bank-queues or oldest-ready or"),
        ({"refresh": "never"}, "refresh must be staggered or at-once, found 'never'"),
        ({"mapping_xor": "row"}, "mapping_xor must be 'column' or left out"),
        ({"queues": {"read_buffer": 32}}, "has the queues transaction_per_channel"),
        ({"queues": {"transaction_per_channel": 32, "command_per_bank": 0}}, "between 1 and 256"),
        ({"commands_per_clock": 3}, "cannot give 3 commands a clock"),
        ({"tAAD": 8}, "needs scheduling oldest-ready"),
        ({"request_bytes": 32}, "make a burst of 64 bytes"),
        ({"columns": 1004}, "must be a multiple of BL 8"),
        ({"tREFI": 400}, "leaves no time to read"),
        ({"tRCD": 20_000}, "leaves no time to read"),
        ({"burst_clocks": 1 << 39}, "leaves no time to read"),
        ({"mapping_msb_to_lsb": 5}, "must be a list of names of fields, found 5"),
        ({"mapping_msb_to_lsb": ["row", 3]}, "must be a list of names of fields"),
        ({"mapping_msb_to_lsb": ["column (0 bits)"] * 40}, "must be a list of names of fields"),
        ({"overrides": {"a": [[]]}}, "overrides must be a mapping of plain values"),
        ({"queues": 3}, "found 3"),
        ({"tCAS": 2}, "tCAS 2 is not modelled"),
        ({"pseudo_channels": 2}, "pseudo channels are not modelled"),
        ({"bank_groups": 64, "banks_per_group": 64}, "it has 4096 banks; the model takes up to"),
        ({"mapping_msb_to_lsb": ["row", "bank", "column"]}, "has 0 bits of bankgroup"),
        ({"mapping_msb_to_lsb": ["row", "plane"]}, "has a field 'plane'"),
        ({"kind": "tape"}, "its kind is 'tape'; known are dram, serial-flash, sram"),
        ({"pJ_per_bit": 4.0}, "together with pJ_per_bit_source"),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(change, sentence):
    with pytest.raises(MemoryFileError, match=sentence) as refused:
        make_memory("mine", values_of("ddr4-2400") | change)
    assert str(refused.value).startswith("memory 'mine': ")


def test_a_missing_key_is_named():
    values = values_of("ddr4-2400")
    del values["tFAW"]
    with pytest.raises(MemoryFileError, match="the key tFAW is missing"):
        make_memory("mine", values)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("octal-flash-200", {"lines": 3}, "lines must be 1, 2, 4, 8 or 16"),
        ("octal-flash-200", {"transfers_per_clock": 4}, "must be 1 or 2"),
        ("octal-flash-200", {"line_bytes": 0}, "line_bytes must be at least 1"),
        ("octal-flash-200", {"continuous": "yes"}, "continuous must be true or false"),
        ("sram-rp2040", {"bus_bits": 12}, "multiple of 8"),
        ("sram-rp2040", {"read_latency": 0}, "at least 1"),
    ],
)
def test_wrong_values_of_simple_memories_are_refused(name, change, sentence):
    with pytest.raises(MemoryFileError, match=sentence):
        make_memory("mine", values_of(name) | change)


def test_energy_needs_a_source_and_counts_what_is_fetched():
    assert load_memory("ddr4-2400").energy_pJ(64) is None
    given_figure = {"pJ_per_bit": 15.0, "pJ_per_bit_source": "a data sheet"}
    memory = make_memory("mine", values_of("ddr4-2400") | given_figure)
    assert memory.energy_pJ(64) == 15 * 64 * 8


def test_octal_flash_by_hand():
    """1 command, 2 address and 20 dummy clocks, then 64 bytes at 2 bytes a clock."""
    first = 1 + 2 + 20 + 32
    follows, by_line = load_memory("octal-flash-200"), load_memory("octal-flash-200-lines")
    assert fetch_stream(follows, 1).cycles == fetch_stream(by_line, 64).cycles == first
    assert fetch_stream(follows, 256).cycles == first + 3 * 32
    assert fetch_stream(by_line, 256).cycles == 4 * first + 3 * 2
    assert fetch_ranges(follows, [(0, 64), (640, 64)]).cycles == 2 * first + 2
    slow = Requester(slots=1, drain=100)
    assert fetch_ranges(follows, [(0, 192)], slow).cycles == first + 2 * 100


def test_sram_by_hand():
    memory = load_memory("sram-rp2040")
    assert fetch_stream(memory, 4).cycles == 2
    assert fetch_stream(memory, 400).cycles == 101
    assert fetch_ranges(memory, [(0, 400)], Requester(gap=3)).cycles == 99 * 3 + 2


@settings(max_examples=50, deadline=None)
@given(order=st.permutations(FIELDS), split=st.integers(0, 4), xor=st.booleans(), data=st.data())
def test_a_mapping_gives_every_request_a_place_of_its_own(order, split, xor, data):
    import numpy as np

    sizes = dict(zip(FIELDS, (2, 2, 4, 2, 4, 16), strict=True))
    fields = list(order)
    at = fields.index("column")
    fields[at : at + 1] = [f"column (all but {split} bits)"]
    fields.insert(data.draw(st.integers(at + 1, len(fields))), f"column ({split} bits)")
    mapping = make_mapping(fields, sizes, xor=xor)
    total = 2 * 2 * 4 * 2 * 4 * 16
    places = set()
    place = np.zeros(6, np.int64)
    for request in range(total):
        locate(mapping, request, place)
        places.add(tuple(place.tolist()))
        assert all(0 <= place[k] < sizes[name] for k, name in enumerate(FIELDS))
    assert len(places) == total
    locate(mapping, total + 5, place)
    wrapped = tuple(place.tolist())
    locate(mapping, 5, place)
    assert wrapped == tuple(place.tolist())
