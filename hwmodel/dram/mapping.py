"""Which channel, bank and row a request falls on.

A mapping lists fields from the most to the least significant bit of the request's number (its
address over the bytes of a request). With ``xor`` bank fields and the row are each combined with
column bits, as schemes do that spread conflicts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hwmodel.dram.device import Ints  # noqa: TC001 - named tuples read annotations
from hwmodel.jit import inner

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FIELDS = ("channel", "rank", "bankgroup", "bank", "row", "column")
CHANNEL, RANK, BANK_GROUP, BANK, ROW, COLUMN = range(6)
XOR_ORDER = ("rank", "bankgroup", "bank", "row")

_PART = re.compile(r"column \((?P<rest>all but )?(?P<bits>\d+) bits?\)")


class AddressMapping(NamedTuple):
    """Fields from the least significant bit up, and what is combined with column bits.

    ``fields`` (n, 3) are field, width, and place in the field; ``xor`` (m, 2) field and width, in
    the order in which they take column bits.
    """

    fields: Ints
    xor: Ints


def make_mapping(
    msb_to_lsb: Sequence[str], sizes: Mapping[str, int], *, xor: bool
) -> AddressMapping:
    """The mapping with these fields.

    Args:
        msb_to_lsb: names of ``FIELDS``; a column in two parts is written ``column (all but 2 bits)``
            and ``column (2 bits)``. A field of size 1 may be left out.
        sizes: how many values each field has, the column in requests; powers of two.
        xor: combine rank, bank group, bank and row with column bits.

    Raises:
        ValueError: when a field is unknown, missing, given twice or of a size that is no power of two.
    """
    widths = {}
    for name in FIELDS:
        size = sizes[name]
        if size < 1 or size & (size - 1):
            msg = f"an address field has a power of two values; {name} has {size}"
            raise ValueError(msg)
        widths[name] = size.bit_length() - 1
    used = dict.fromkeys(FIELDS, 0)
    rows: list[tuple[int, int, int]] = []
    for text in reversed(msb_to_lsb):
        name, width = _parse(text, widths)
        rows.append((FIELDS.index(name), width, used[name]))
        used[name] += width
    for name in FIELDS:
        if used[name] != widths[name]:
            msg = f"the address mapping has {used[name]} bits of {name}; {sizes[name]} values take {widths[name]}"
            raise ValueError(msg)
    combined = [(FIELDS.index(name), widths[name]) for name in XOR_ORDER] if xor else []
    return AddressMapping(
        np.array(rows, np.int64).reshape(-1, 3), np.array(combined, np.int64).reshape(-1, 2)
    )


def _parse(text: str, widths: Mapping[str, int]) -> tuple[str, int]:
    if text in FIELDS:
        return text, widths[text]
    part = _PART.fullmatch(text)
    if not part:
        msg = f"the address mapping has a field {text!r}; known are {', '.join(FIELDS)}, column (2 bits)"
        raise ValueError(msg)
    bits = int(part["bits"])
    return "column", max(0, widths["column"] - bits) if part["rest"] else bits


@inner
def locate(mapping: AddressMapping, request: int, place: Ints) -> None:
    """Write the fields of a request's address into ``place`` (6,); addresses wrap at the capacity."""
    for field in range(6):
        place[field] = 0
    rest = request
    for index in range(mapping.fields.shape[0]):
        width = mapping.fields[index, 1]
        place[mapping.fields[index, 0]] |= (rest & ((1 << width) - 1)) << mapping.fields[index, 2]
        rest >>= width
    column = place[COLUMN]
    for index in range(mapping.xor.shape[0]):
        width = mapping.xor[index, 1]
        place[mapping.xor[index, 0]] ^= column & ((1 << width) - 1)
        column >>= width
