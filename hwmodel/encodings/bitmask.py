"""A bit for each element, then the nonzero values (SparTen, SIGMA)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import field_bytes, unpack_fields
from hwmodel.encoding import Encoding, Segments, Size, read_values, take_segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class Bitmask(Encoding):
    """N + n·V bits; wins at densities from about 1/4 to 1 - 1/V."""

    name: ClassVar[str] = "bitmask"

    def encode_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Segments:
        """Segments ``mask`` (element 0 in the lowest bit of byte 0) and ``values``."""
        del spec
        mask = codes != 0
        values = codes[mask]
        return {
            "mask": np.packbits(mask, bitorder="little").tobytes(),
            "values": values.astype(values.dtype.newbyteorder("<")).tobytes(),
        }

    def decode_codes(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """Values go where the mask is set."""
        mask_bytes, value_bytes = take_segments(segments, "mask", "values")
        mask = unpack_fields(mask_bytes, 1, spec.elements).astype(np.bool_)
        values = read_values(value_bytes, spec, int(np.count_nonzero(mask)))
        codes = np.zeros(spec.elements, values.dtype)
        codes[mask] = values
        return codes

    def size_of_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Size:
        """The mask is metadata."""
        payload = int(np.count_nonzero(codes)) * spec.value_bits
        return Size(payload, codes.size, field_bytes(1, codes.size) + payload // 8)
