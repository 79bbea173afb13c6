"""Every value, zero or not, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hwmodel.encoding import Encoding, Segments, Size, read_values, take_segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class Dense(Encoding):
    """N values of V bits; wins above a density of 1 - 1/V."""

    name: ClassVar[str] = "dense"

    def encode_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Segments:
        """One segment, ``values``."""
        del spec
        return {"values": codes.astype(codes.dtype.newbyteorder("<")).tobytes()}

    def decode_codes(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """The values as they are."""
        [values] = take_segments(segments, "values")
        return read_values(values, spec, spec.elements)

    def size_of_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Size:
        """All payload."""
        return Size(codes.size * spec.value_bits, 0, spec.dense_bytes)
