"""The best encoding for a tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hwmodel.encodings.bitmask import Bitmask
from hwmodel.encodings.csr import CSR
from hwmodel.encodings.dense import Dense
from hwmodel.encodings.run_length import RunLength

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.tensor import TensorSpec

CANDIDATES: tuple[Encoding, ...] = (
    Dense(),
    Bitmask(),
    CSR(),
    *(RunLength(bits) for bits in range(2, 13)),
)


def best_encoding(array: NDArray[Any], spec: TensorSpec) -> Encoding:
    """The encoding of fewest bytes; of equals the one that is simpler to decode (listed first)."""
    codes = spec.codes(array)
    return min(CANDIDATES, key=lambda encoding: encoding.size_of_codes(codes, spec).bytes)
