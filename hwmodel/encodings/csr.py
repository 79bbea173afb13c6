"""Compressed sparse rows: a column index with each value, and where each row starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hwmodel.bits import field_bytes, pack_fields, unpack_fields, width_of
from hwmodel.encoding import Encoding, Segments, Size, read_values, take_segments
from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec


@dataclass(frozen=True)
class CSR(Encoding):
    """n·(V + L(C)) + (R + 1)·L(n + 1) bits, L(x) = ceil(log2 x); rows are the first axis."""

    name: ClassVar[str] = "csr"

    def encode_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Segments:
        """Segments ``row_pointers``, ``columns`` and ``values``."""
        positions = np.flatnonzero(codes)
        rows, columns = np.divmod(positions, max(1, spec.columns))
        pointers = np.searchsorted(rows, np.arange(_rows(spec) + 1))
        values = codes[positions]
        return {
            "row_pointers": pack_fields(pointers, width_of(positions.size + 1)),
            "columns": pack_fields(columns, width_of(spec.columns)),
            "values": values.astype(values.dtype.newbyteorder("<")).tobytes(),
        }

    def decode_codes(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """Pointers must rise to n, columns must rise inside each row."""
        pointer_bytes, column_bytes, value_bytes = take_segments(
            segments, "row_pointers", "columns", "values"
        )
        nonzeros = len(value_bytes) * 8 // spec.value_bits
        values = read_values(value_bytes, spec, nonzeros)
        pointers = unpack_fields(pointer_bytes, width_of(nonzeros + 1), _rows(spec) + 1)
        counts = np.ediff1d(pointers.astype(np.int64))
        if pointers[0] != 0 or pointers[-1] != nonzeros or (counts < 0).any():
            msg = f"row pointers do not rise from 0 to {nonzeros}"
            raise BlobError(msg)
        columns = unpack_fields(column_bytes, width_of(spec.columns), nonzeros).astype(np.int64)
        rows = np.repeat(np.arange(_rows(spec)), counts)
        positions = rows * spec.columns + columns
        if nonzeros and (columns.max() >= spec.columns or (np.diff(positions) <= 0).any()):
            msg = f"column indices do not rise inside a row of {spec.columns}"
            raise BlobError(msg)
        codes = np.zeros(spec.elements, values.dtype)
        codes[positions] = values
        return codes

    def size_of_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Size:
        """Pointers and columns are metadata."""
        nonzeros = int(np.count_nonzero(codes))
        payload = nonzeros * spec.value_bits
        pointers = (width_of(nonzeros + 1), _rows(spec) + 1)
        columns = (width_of(spec.columns), nonzeros)
        metadata = pointers[0] * pointers[1] + columns[0] * columns[1]
        return Size(
            payload, metadata, field_bytes(*pointers) + field_bytes(*columns) + payload // 8
        )


def _rows(spec: TensorSpec) -> int:
    return spec.shape[0] if spec.shape else 1
