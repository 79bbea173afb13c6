"""Memories: the figures that a fetch-cycle estimate needs, by name or from a user's own file.

Keys are those of data sheets (JEDEC's tRCD, tRP, ...), times are in memory clocks unless the name
says otherwise. ``memories.toml`` beside this file holds the memories that are shipped, with the
source of each; a mapping with the same keys makes one of the user's own.
"""

from __future__ import annotations

import abc
import difflib
import functools
import tomllib
from dataclasses import MISSING, Field, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, final

from hwmodel.errors import MemoryFileError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwmodel.fetch import Requester, Served, Tiles
    from hwmodel.ranges import Ints

DEFAULT_KIND = "dram"
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}
_NOUNS = {"int": "a whole number", "float": "a number", "str": "a text"}


@dataclass(frozen=True, kw_only=True)
class Memory(abc.ABC):
    """What all memories have.

    Attributes:
        name: of the memory.
        tCK_ns: one clock.
        source: where the values come from.
        note: anything else.
        pJ_per_bit: energy of a bit read; energy is reported only where this is given,
        pJ_per_bit_source: and where it comes from.
    """

    kind: ClassVar[str]

    name: str
    tCK_ns: float  # noqa: N815 - data sheets' names
    source: str | None = None
    note: str | None = None
    pJ_per_bit: float | None = None  # noqa: N815
    pJ_per_bit_source: str | None = None  # noqa: N815

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if (self.pJ_per_bit is None) != (self.pJ_per_bit_source is None):
            self._refuse("give pJ_per_bit together with pJ_per_bit_source, where it comes from")
        self.check()

    @property
    @abc.abstractmethod
    def unit_bytes(self) -> int:
        """Bytes of one request; what is fetched is a whole number of these, aligned."""

    @property
    @abc.abstractmethod
    def peak_bytes_per_clock(self) -> float:
        """What the data bus can carry."""

    @abc.abstractmethod
    def serve(self, runs: Ints, requester: Requester, tiles: Tiles) -> Served:
        """Serve runs of requests, ``(runs, 2)`` and not empty; see :func:`hwmodel.fetch.serve`."""

    @abc.abstractmethod
    def check(self) -> None:
        """Raise :class:`MemoryFileError` when the fields do not go together."""

    @final
    def energy_pJ(self, fetched_bytes: int) -> float | None:  # noqa: N802
        """Energy of reading so many bytes, None when the specification names no figure for it."""
        return None if self.pJ_per_bit is None else self.pJ_per_bit * fetched_bytes * 8

    @final
    def describe(self) -> dict[str, Any]:
        """Every value of the specification that is given, plain."""
        values = {"name": self.name, "kind": self.kind} | asdict(self)
        return {key: value for key, value in values.items() if value is not None}

    @classmethod
    def from_values(cls, name: str, values: Mapping[str, Any]) -> Self:
        """The memory with these fields.

        Raises:
            MemoryFileError: naming the key that is unknown, missing or of a wrong type or value.
        """
        known = {field.name: field for field in fields(cls) if field.name != "name"}
        for key, value in values.items():
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 1)
                hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
                _refuse(name, f"there is no key {key!r}{hint}")
            _check_type(name, known[key], value)
        missing = [key for key, field in known.items() if _required(field) and key not in values]
        if missing:
            _refuse(name, f"the key {missing[0]} is missing")
        return cls(name=name, **values)

    def _refuse(self, reason: str) -> NoReturn:
        _refuse(self.name, reason)


def memory_names() -> tuple[str, ...]:
    """The memories that are shipped."""
    return tuple(_table())


def load_memory(name: str) -> Memory:
    """A shipped memory by name.

    Raises:
        KeyError: when there is none of that name.
    """
    return make_memory(name, _table()[name])


def make_memory(name: str, values: Mapping[str, Any]) -> Memory:
    """A memory from the values of a file; ``kind`` says which sort, DRAM where it is missing.

    Raises:
        MemoryFileError: with a sentence for the person who wrote the file.
    """
    from hwmodel.dram.specification import Dram
    from hwmodel.simple_memory import SerialFlash, Sram

    kinds: dict[str, type[Memory]] = {cls.kind: cls for cls in (Dram, SerialFlash, Sram)}
    rest = dict(values)
    kind = rest.pop("kind", DEFAULT_KIND)
    if kind not in kinds:
        _refuse(name, f"its kind is {kind!r}; known are {', '.join(kinds)}")
    return kinds[kind].from_values(name, rest)


@functools.cache
def _table() -> dict[str, Any]:
    text = Path(__file__).with_name("memories.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def _refuse(name: str, reason: str) -> NoReturn:
    msg = f"memory '{name}': {reason}"
    raise MemoryFileError(msg)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _check_type(name: str, field: Field[Any], value: object) -> None:
    declared = str(field.type).removesuffix(" | None")
    allowed = _TYPES.get(declared)
    if allowed is None:
        return
    if not isinstance(value, allowed) or isinstance(value, bool):
        _refuse(name, f"{field.name} must be {_NOUNS[declared]}, found {value!r}")
    if isinstance(value, (int, float)) and not 0 <= value < 1 << 40:
        _refuse(name, f"{field.name} must lie between 0 and 2^40, found {value!r}")
