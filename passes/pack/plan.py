"""Which weights to pack, in which streams, with which position code: by exact byte cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.bits import width_of
from passes.pack.codes import (
    ALL_CODES,
    QUICK_CODES,
    Bitmask,
    Delta,
    Positions,
    QuickDelta,
    Rice,
)
from passes.pack.nested_codes import NESTED_CODES, Nested
from passes.pack.pattern_codes import GROUP_CODES, Blocks, Groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx_ir as ir
    from numpy.typing import NDArray

    from passes.layout import Step
    from passes.pack.codes import PositionCode
    from passes.pack.values import Prepared

LARGE_ELEMENTS = 1 << 20
"""A weight of so many elements has a stream of its own, made by the steps that load fastest."""

MODEL_ELEMENTS = 1 << 23
"""In a model of so many elements loading takes time, and weights of a quarter of
:data:`LARGE_ELEMENTS` count as large."""

STREAM_ELEMENTS = 1 << 22
"""Small weights share streams of at most so many elements."""

DENSE_SHARE = 0.01
"""A weight with fewer zeros stays dense: it would lose a hundredth of its bytes at most."""

AUTO = "auto"

SCATTER_OPSET = 9

EVERY_CODE = (*QUICK_CODES, *ALL_CODES, *NESTED_CODES, *GROUP_CODES, Blocks())

POSITIONS = (AUTO, *sorted({code.name for code in EVERY_CODE}))
"""What positions may be asked for by name."""

WEIGHT_BYTES = 90
"""About what a weight costs in the file beside its share of a stream: a node, its shape, names."""

SLOWER_BYTES = 0.044
"""A large weight takes a code that loads slower only where it saves this share of its bytes."""


@dataclass(frozen=True, eq=False)
class Item:
    """One array to pack.

    Attributes:
        name: of the weight.
        prepared: the array in the form that it is stored in.
        dtype: that the weight has in the model.
        fill: the value that is not stored, a scalar of the array's dtype.
        steps: reshapes and transposes that bring what the chain rebuilds, flat, to the weight.
        unit: elements that are stored or left out together; 1 but for blocks.
        costs: bits that positions and values take under each code that may be used.
    """

    name: str
    prepared: Prepared
    dtype: ir.DataType
    fill: NDArray[Any]
    steps: tuple[Step, ...]
    unit: int
    costs: Mapping[PositionCode, int] = field(repr=False)

    @property
    def array(self) -> NDArray[Any]:
        """What the chain rebuilds, before a scale or cast."""
        return self.prepared.array

    @property
    def stored(self) -> NDArray[np.int64]:
        """Units that hold any other value, bit for bit; ascending, at least one.

        Found anew each time: kept for all weights they would take more memory than the file.
        """
        return _stored(self.array, self.fill, self.unit)

    @property
    def dense_bytes(self) -> float:
        """What the weight takes as it is."""
        return self.array.size * self.dtype.itemsize

    def bytes_under(self, code: PositionCode) -> float:
        """What it takes in a stream of that code, the chain left out."""
        return self.costs.get(code, math.inf) / 8 + WEIGHT_BYTES


@dataclass(frozen=True, eq=False)
class Stream:
    """Weights of one dtype and fill, coded together."""

    code: PositionCode
    items: tuple[Item, ...]

    @property
    def positions(self) -> Positions:
        """Of all its weights, one after the other."""
        starts = np.cumsum([0, *(item.array.size // item.unit for item in self.items)])
        at = [item.stored + start for item, start in zip(self.items, starts, strict=False)]
        return Positions(int(starts[-1]), np.concatenate(at))

    @property
    def values(self) -> NDArray[Any]:
        """The values at these positions, one after the other; rows for blocks."""
        unit = self.items[0].unit
        shape = (-1,) if unit == 1 else (-1, unit)
        return np.concatenate([item.array.reshape(shape)[item.stored] for item in self.items])


def make_item(
    name: str,
    prepared: Prepared,
    dtype: ir.DataType,
    codes: Iterable[PositionCode],
    steps: tuple[Step, ...] | None = None,
    unit: int = 1,
) -> Item:
    """An array with its most frequent value as fill (for floats always +0.0), and what it costs."""
    array = np.ascontiguousarray(prepared.array)
    flat = array.reshape(-1).view(f"u{array.itemsize}")
    fill = np.zeros((), flat.dtype)
    if array.itemsize == 1 and flat.size:
        fill = np.asarray(np.bincount(flat).argmax(), flat.dtype)
    stored = _stored(array, fill.view(array.dtype), unit)
    positions = Positions(array.size // unit, stored)
    value_bits, extra_bits = array.itemsize * 8 * unit, 0
    if prepared.codebook is not None:
        value_bits = max(1, width_of(prepared.codebook.size))
        extra_bits = prepared.codebook.nbytes * 8
    if prepared.scale is not None:
        extra_bits = prepared.scale.nbytes * 8
    costs = {}
    for code in () if is_dense(array, fill.view(array.dtype)) else codes:
        if isinstance(code, Groups) and not code.fits(positions):
            continue
        if isinstance(code, Blocks) != (unit > 1):
            continue
        cost = code.cost(positions)
        costs[code] = cost.bits + (stored.size + cost.fillers) * value_bits + extra_bits
    steps = steps or (("reshape", array.shape),)
    return Item(name, prepared, dtype, fill.view(array.dtype), steps, unit, costs)


def is_dense(array: NDArray[Any], fill: NDArray[Any]) -> bool:
    """Whether so few elements hold the fill that looking for a code is a waste of time."""
    return int(np.count_nonzero(array == fill)) < DENSE_SHARE * array.size


def codes_for(opset: int, kind: str = AUTO, *, quick: bool = False) -> tuple[PositionCode, ...]:
    """The codes that an opset can decode and has use for: all, or those of one kind.

    Args:
        opset: of the model or function.
        kind: a name of :data:`POSITIONS`.
        quick: whether to give those that onnxruntime decodes fastest.
    """
    return tuple(
        code
        for code in EVERY_CODE
        if opset >= code.min_opset
        and kind in {AUTO, code.name}
        and (quick or not isinstance(code, QuickDelta))
        and (kind != AUTO or opset < SCATTER_OPSET or not isinstance(code, Nested))
    )


def plan_streams(
    items: Sequence[Item], chain_bytes: Mapping[PositionCode, int]
) -> tuple[Stream, ...]:
    """The streams of fewest bytes; weights that would not get smaller are in none.

    Args:
        items: what may be packed, in the model's order.
        chain_bytes: what a chain of each code costs in the file beside its arrays.
    """
    streams: list[Stream] = []
    total = sum(item.array.size for item in items)
    large = LARGE_ELEMENTS if total < MODEL_ELEMENTS else LARGE_ELEMENTS // 4
    groups: dict[tuple[Any, ...], list[Item]] = {}
    for item in items:
        if not item.costs:
            continue
        if item.prepared.codebook is not None or item.unit > 1:
            code = min(item.costs, key=lambda c, i=item: i.costs[c] / 8 + chain_bytes[c])  # type: ignore[misc]
            streams.append(Stream(code, (item,)))
        elif item.array.size >= large:
            streams.append(Stream(_quick_code(item), (item,)))
        else:
            groups.setdefault((item.array.dtype.name, item.fill.tobytes()), []).append(item)
    for group in groups.values():
        streams += _plan_group(group, chain_bytes)
    return tuple(stream for stream in streams if _pays(stream, chain_bytes))


def _quick_code(item: Item) -> PositionCode:
    """The cheapest code, unless one that loads faster is nearly as small."""
    best = min(item.costs, key=lambda code: item.costs[code])
    if isinstance(best, Groups):
        return best
    for kind in (QuickDelta, Delta, Bitmask):
        quick = [code for code in item.costs if isinstance(code, kind)]
        if quick:
            code = min(quick, key=lambda code: item.costs[code])
            close = isinstance(best, Rice) or kind is QuickDelta
            margin = SLOWER_BYTES if close else SLOWER_BYTES / 3
            if item.costs[code] <= item.costs[best] * (1 + margin):
                return code
    return best


def _plan_group(items: Sequence[Item], chain_bytes: Mapping[PositionCode, int]) -> list[Stream]:
    """Small weights of one dtype: the set of codes that is cheapest with one chain each.

    Greedy: add or remove the code that saves most until none does.
    """

    def total(codes: tuple[PositionCode, ...]) -> float:
        saved = sum(
            min(item.dense_bytes, *(item.bytes_under(code) for code in codes)) for item in items
        )
        return saved + sum(chain_bytes[code] for code in codes)

    codes = [
        code
        for code in dict.fromkeys(code for item in items for code in item.costs)
        if not isinstance(code, QuickDelta)
    ]
    chosen: tuple[PositionCode, ...] = ()
    best = float(sum(item.dense_bytes for item in items))
    while True:
        trials = [(*chosen, code) for code in codes if code not in chosen]
        trials += [
            tuple(code for code in chosen if code != one) for one in chosen if len(chosen) > 1
        ]
        trial = min(trials, key=total, default=chosen)
        if total(trial) >= best:
            break
        chosen, best = trial, total(trial)
    members: dict[PositionCode, list[Item]] = {code: [] for code in chosen}
    for item in items:
        code = min(chosen, key=item.bytes_under, default=None)
        if code is not None and item.bytes_under(code) < item.dense_bytes:
            members[code].append(item)
    return [Stream(code, part) for code, group in members.items() for part in _parts(group)]


def _parts(items: Sequence[Item]) -> list[tuple[Item, ...]]:
    """Runs of items of at most STREAM_ELEMENTS."""
    parts: list[list[Item]] = []
    elements = STREAM_ELEMENTS
    for item in items:
        if not parts or elements + item.array.size > STREAM_ELEMENTS:
            parts.append([])
            elements = 0
        parts[-1].append(item)
        elements += item.array.size
    return [tuple(part) for part in parts]


def _pays(stream: Stream, chain_bytes: Mapping[PositionCode, int]) -> bool:
    spent = sum(item.bytes_under(stream.code) for item in stream.items)
    dense = sum(item.dense_bytes for item in stream.items)
    return spent + chain_bytes[stream.code] < dense


def _stored(array: NDArray[Any], fill: NDArray[Any], unit: int) -> NDArray[np.int64]:
    """Which units of an array hold anything but the fill; the first where none does."""
    bits = f"u{array.itemsize}"
    flat = np.ascontiguousarray(array).reshape(-1).view(bits)
    differs = (flat != fill.view(bits)).reshape(-1, unit)
    stored = np.flatnonzero(differs.any(axis=1) if unit > 1 else differs).astype(
        np.int64, copy=False
    )
    # a chain needs a value: the fill itself
    return stored if stored.size else np.zeros(1, np.int64)
