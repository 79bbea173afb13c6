"""A tensor as hardware sees it: codes of a fixed number of bits, one of which is zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from hwmodel.codes import Symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES: dict[str, np.dtype[Any]] = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
    "int8": np.dtype(np.int8),
    "uint8": np.dtype(np.uint8),
    "int4": np.dtype(ml_dtypes.int4),
    "uint4": np.dtype(ml_dtypes.uint4),
}
EXPONENTS = {
    "float16": Symbol(10, 5),
    "bfloat16": Symbol(7, 8),
    "float32": Symbol(23, 8),
    "float64": Symbol(55, 8),
}
"""Where the exponent of a float lies; of float64 its upper 8 bits."""
_INTEGERS = {"int8": (-128, 127), "uint8": (0, 255), "int4": (-8, 7), "uint4": (0, 15)}


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
        low, high = _INTEGERS.get(self.dtype, (0, 0))
        if not low <= self.zero_point <= high:
            msg = f"tensor '{self.name}': zero point {self.zero_point} is not in {low}..{high} of {self.dtype}"
            raise ValueError(msg)

    @property
    def value_bits(self) -> int:
        """Bits of one value."""
        return 4 if self.dtype.endswith("int4") else DTYPES[self.dtype].itemsize * 8

    @property
    def symbol(self) -> Symbol:
        """The bits of a value that are worth an entropy code."""
        return EXPONENTS.get(self.dtype) or Symbol(0, self.value_bits)

    @property
    def elements(self) -> int:
        """Number of values."""
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Rows of the matrix view: the first axis; 1 for scalars."""
        return self.shape[0] if self.shape else 1

    @property
    def columns(self) -> int:
        """Columns of the matrix view: all axes but the first; 1 for scalars and vectors."""
        return math.prod(self.shape[1:])

    @property
    def code_dtype(self) -> np.dtype[Any]:
        """The unsigned integers in which codes are held."""
        return np.dtype(f"u{DTYPES[self.dtype].itemsize}")

    @property
    def dense_bytes(self) -> int:
        """Bytes of the array as it is; values of 4 bits take half a byte."""
        return (self.elements * self.value_bits + 7) // 8

    def codes(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array as unsigned integers in which the zero point is 0; flat, in C order.

        Raises:
            ValueError: when the array has another shape or dtype.
        """
        if array.shape != self.shape or array.dtype != DTYPES[self.dtype]:
            msg = f"tensor '{self.name}' is {array.dtype}{list(array.shape)}, not {self.dtype}{list(self.shape)}"
            raise ValueError(msg)
        codes = np.ascontiguousarray(array).view(self.code_dtype).ravel()
        if self.value_bits == 4:
            codes = codes & np.uint8(15)
        return codes ^ self._zero_code if self.zero_point else codes

    def array(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`codes`."""
        return self.flat(codes).reshape(self.shape)

    def flat(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Values of some of the codes, ``(codes,)``."""
        if self.zero_point:
            codes = codes ^ self._zero_code
        if self.dtype == "int4":  # how it is held in a byte is the library's own affair
            return ((codes ^ np.uint8(8)) - np.uint8(8)).view(np.int8).astype(ml_dtypes.int4)
        return codes.view(DTYPES[self.dtype])

    @property
    def _zero_code(self) -> np.uint8:
        return np.uint8(self.zero_point % (1 << self.value_bits))
