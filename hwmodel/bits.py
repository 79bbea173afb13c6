"""Bit fields: unsigned integers of a fixed width, least significant bit first, without gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pack_fields(numbers: NDArray[Any], width: int) -> bytes:
    """Numbers below ``2 ** width`` as one bit string, padded with zero bits to whole bytes.

    Args:
        numbers: unsigned integers ``(count,)``.
        width: 0 to 64 bits each; 0 gives no bytes (all numbers are 0).
    """
    if width == 0 or numbers.size == 0:
        return b""
    octets = np.ascontiguousarray(numbers, dtype="<u8").view(np.uint8).reshape(-1, 8)
    bits = np.unpackbits(octets[:, : (width + 7) // 8], axis=1, bitorder="little")[:, :width]
    return np.packbits(bits.ravel(), bitorder="little").tobytes()


def unpack_fields(data: bytes, width: int, count: int) -> NDArray[np.uint64]:
    """The inverse of :func:`pack_fields`: uint64 ``(count,)``.

    Raises:
        BlobError: when ``data`` is not exactly as long as ``count`` fields need, or ends in bits
            that are not zero.
    """
    if len(data) != field_bytes(width, count):
        msg = f"{count} fields of {width} bits take {field_bytes(width, count)} bytes, found {len(data)}"
        raise BlobError(msg)
    if width == 0 or count == 0:
        return np.zeros(count, np.uint64)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")
    if bits[width * count :].any():
        msg = "the bits after the last field are not zero"
        raise BlobError(msg)
    octets = np.zeros((count, 64), np.uint8)
    octets[:, :width] = bits[: width * count].reshape(count, width)
    return np.packbits(octets, axis=1, bitorder="little").view("<u8").ravel()


def field_bytes(width: int, count: int) -> int:
    """Bytes that ``count`` fields of ``width`` bits take."""
    return (width * count + 7) // 8


def width_of(values: int) -> int:
    """Bits that tell ``values`` values apart: ``ceil(log2(values))``, 0 for one value or none."""
    return max(0, values - 1).bit_length()


def unary_ends(zeros: NDArray[np.integer]) -> NDArray[np.int64]:
    """Where the ones are in a string of numbers in unary, each so many zeros and then a one.

    The upper part of the Elias-Fano and Rice splits, and where entries are that fillers precede.

    Args:
        zeros: the numbers, not negative, ``(count,)``.

    Returns:
        int64 ``(count,)``, rising; the string is one longer than the last.
    """
    return np.cumsum(zeros + 1, dtype=np.int64) - 1
