"""A tensor as hardware sees it: codes of a fixed number of bits, one of which is zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
}


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape, dtype and zero point of a tensor.

    Attributes:
        name: unique in a blob.
        shape: of the array; encodings with rows take the first axis by the rest.
        dtype: a key of ``DTYPES``.
        zero_point: the value that counts as zero; for floats it is 0, and only +0.0 counts, so that
            -0.0 comes back as it was.

    Raises:
        ValueError: for an unknown dtype, a negative size, or a zero point outside the dtype.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    zero_point: int = 0

    def __post_init__(self) -> None:
        """Check the fields against each other."""
        if self.dtype not in DTYPES:
            msg = f"tensor '{self.name}' has dtype {self.dtype!r}; known are {', '.join(DTYPES)}"
            raise ValueError(msg)
        if any(size < 0 for size in self.shape):
            msg = f"tensor '{self.name}' has shape {self.shape}; sizes cannot be negative"
            raise ValueError(msg)
        info = np.iinfo(self.dtype) if self.dtype.endswith("int8") else None
        low, high = (info.min, info.max) if info else (0, 0)
        if not low <= self.zero_point <= high:
            msg = f"tensor '{self.name}': zero point {self.zero_point} is not in {low}..{high} of {self.dtype}"
            raise ValueError(msg)

    @property
    def value_bits(self) -> int:
        """Bits of one value."""
        return DTYPES[self.dtype].itemsize * 8

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        """Columns of the matrix view: all axes but the first; 1 for scalars and vectors."""
        return math.prod(self.shape[1:])

    @property
    def dense_bytes(self) -> int:
        """Bytes of the array as it is."""
        return self.elements * DTYPES[self.dtype].itemsize

    def codes(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array as unsigned integers in which the zero point is 0; flat, in C order.

        Raises:
            ValueError: when the array has another shape or dtype.
        """
        if array.shape != self.shape or array.dtype != DTYPES[self.dtype]:
            msg = f"tensor '{self.name}' is {array.dtype}{list(array.shape)}, not {self.dtype}{list(self.shape)}"
            raise ValueError(msg)
        codes = np.ascontiguousarray(array).view(self._unsigned).ravel()
        return codes ^ self._zero_code if self.zero_point else codes

    def array(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`codes`."""
        if self.zero_point:
            codes = codes ^ self._zero_code
        return codes.view(DTYPES[self.dtype]).reshape(self.shape)

    @property
    def _unsigned(self) -> str:
        return f"u{DTYPES[self.dtype].itemsize}"

    @property
    def _zero_code(self) -> np.uint8:
        return np.uint8(self.zero_point % 256)
