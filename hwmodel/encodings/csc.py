"""Compressed sparse columns: a row index with each value, and where each column starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from hwmodel.encodings.csr import CSR

if TYPE_CHECKING:
    from hwmodel.encoding import ChunkedBy


@dataclass(frozen=True)
class CSC(CSR):
    """n·(V + L(R)) + (C + 1)·L(n + 1) bits: ``csr`` of the transposed matrix."""

    name: ClassVar[str] = "csc"
    chunked_by: ClassVar[ChunkedBy] = "columns"
