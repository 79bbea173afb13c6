"""All encodings, one a file, and where to find them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwmodel.encodings.bitmask import Bitmask
from hwmodel.encodings.block import Block
from hwmodel.encodings.csc import CSC
from hwmodel.encodings.csr import CSR
from hwmodel.encodings.dense import Dense
from hwmodel.encodings.elias_fano import EliasFano
from hwmodel.encodings.ellpack import Ellpack
from hwmodel.encodings.entropy import Entropy
from hwmodel.encodings.nm import NM
from hwmodel.encodings.relative_index import RelativeIndex
from hwmodel.encodings.rice import Rice
from hwmodel.encodings.run_length import RunLength
from hwmodel.encodings.segments import Segments
from hwmodel.encodings.two_level import TwoLevel
from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hwmodel.encoding import Encoding

ENCODINGS: dict[str, type[Encoding]] = {
    one.name: one
    for one in (
        Dense,
        Bitmask,
        TwoLevel,
        NM,
        Block,
        Ellpack,
        Segments,
        CSR,
        CSC,
        RunLength,
        RelativeIndex,
        EliasFano,
        Rice,
        Entropy,
    )
}
"""By name; those that are simpler to decode stand first."""


def encoding_names() -> tuple[str, ...]:
    """The names of all encodings."""
    return tuple(ENCODINGS)


def get_encoding(name: str, config: Mapping[str, Any] | None = None) -> Encoding:
    """The encoding of that name.

    Raises:
        BlobError: for an unknown name or configuration.
    """
    if name not in ENCODINGS:
        msg = f"there is no encoding {name!r}; known are {', '.join(ENCODINGS)}"
        raise BlobError(msg)
    return ENCODINGS[name].from_config(config or {})
