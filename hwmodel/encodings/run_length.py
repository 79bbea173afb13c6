"""How many zeros come before each value, in a few bits; longer runs take fillers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import field_bytes, pack_fields, unpack_fields
from hwmodel.encoding import Encoding, Segments, Size, read_values, take_segments
from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class RunLength(Encoding):
    """(n + fillers)·(V + bits), fillers = sum of floor(gap / 2^bits).

    An entry is a gap of up to 2^bits - 1 zeros and a value. A longer gap begins with fillers, each
    of 2^bits - 1 zeros and a stored zero. Zeros after the last value are not stored.

    Attributes:
        bits: of the gap, 1 to 16.
    """

    name: ClassVar[str] = "run_length"
    bits: int = 4

    def __post_init__(self) -> None:
        """Check the width."""
        if not isinstance(self.bits, int) or not 1 <= self.bits <= 16:
            msg = f"run_length needs 1 to 16 bits, found {self.bits!r}"
            raise ValueError(msg)

    def encode_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Segments:
        """Segments ``gaps`` and ``values`` (fillers included)."""
        del spec
        positions = np.flatnonzero(codes)
        gaps = _gaps(positions)
        fillers = gaps >> self.bits
        ends = np.cumsum(fillers + 1) - 1  # the entry of each value
        entries = int(ends[-1]) + 1 if positions.size else 0
        runs = np.full(entries, (1 << self.bits) - 1, np.int64)
        runs[ends] = gaps & ((1 << self.bits) - 1)
        values = np.zeros(entries, codes.dtype)
        values[ends] = codes[positions]
        return {
            "gaps": pack_fields(runs, self.bits),
            "values": values.astype(values.dtype.newbyteorder("<")).tobytes(),
        }

    def decode_codes(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """Each entry skips its gap and stores its value."""
        gap_bytes, value_bytes = take_segments(segments, "gaps", "values")
        entries = len(value_bytes) * 8 // spec.value_bits
        if entries > spec.elements:
            msg = f"{entries} entries do not fit {spec.elements} elements"
            raise BlobError(msg)
        values = read_values(value_bytes, spec, entries)
        gaps = unpack_fields(gap_bytes, self.bits, entries).astype(np.int64)
        positions = np.cumsum(gaps + 1) - 1
        if entries and positions[-1] >= spec.elements:
            msg = f"gaps run to element {int(positions[-1])} of {spec.elements}"
            raise BlobError(msg)
        codes = np.zeros(spec.elements, values.dtype)
        codes[positions] = values
        return codes

    def size_of_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Size:
        """Gaps are metadata, the zeros of fillers payload."""
        gaps = _gaps(np.flatnonzero(codes))
        entries = gaps.size + int((gaps >> self.bits).sum())
        payload = entries * spec.value_bits
        return Size(payload, entries * self.bits, field_bytes(self.bits, entries) + payload // 8)


def _gaps(positions: NDArray[np.intp]) -> NDArray[np.int64]:
    """Zeros before each nonzero element."""
    return np.diff(positions, prepend=-1).astype(np.int64) - 1
