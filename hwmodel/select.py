"""The best encoding for a tensor, by bytes or by cycles, of those that the decoder knows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
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
from hwmodel.encodings.two_level import TwoLevel

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from hwmodel.encoding import Encoding
    from hwmodel.layout import Layout
    from hwmodel.tensor import TensorSpec

    Cost = Callable[[Encoding, Layout], float]

CANDIDATES: tuple[Encoding, ...] = (
    Dense(),
    Bitmask(),
    TwoLevel(),
    NM(m=4),
    NM(m=8),
    NM(m=16),
    Block(height=1, width=4),
    Block(height=4, width=1),
    Block(height=4, width=4),
    Ellpack(),
    CSR(),
    CSC(),
    RunLength(),
    RelativeIndex(),
    EliasFano(),
    Rice(),
    Entropy(),
)
"""What is compared; those that are simpler to decode stand first."""
BOOK = 256
"""A codebook is tried where a tensor has at most so many distinct values, and 8 times as many in all."""


def best_encoding(
    array: NDArray[Any],
    spec: TensorSpec,
    *,
    chunk: int = 0,
    align: int = 1,
    decoder: DecoderSpec | None = None,
    cost: Cost | None = None,
) -> Encoding:
    """The encoding of least cost; of equals the one that is simpler to decode.

    Args:
        array: the tensor.
        spec: its description.
        chunk: elements of a chunk, see :class:`hwmodel.encoding.Encoding`.
        align: of chunks, in bytes.
        decoder: only encodings that it knows are considered; all of them without one.
        cost: of an encoding and the layout that it would have; bytes if not given.

    Raises:
        ValueError: when the decoder knows none that can hold the tensor.
    """
    codes = Codes.of(array, spec)
    known = decoder or DecoderSpec()
    best: tuple[float, Encoding] | None = None
    for plain in candidates(codes):
        encoding = replace(plain, chunk=chunk, align=align)
        if not known.can_decode(encoding.name):
            continue
        layout = encoding.layout(codes)
        price = cost(encoding, layout) if cost else layout.size.bytes
        del layout  # that of a large tensor is large, and the next is made before this name is free
        if best is None or price < best[0]:
            best = price, encoding
    if best is None:
        msg = f"tensor '{spec.name}': the decoder knows {', '.join(known.encodings)}, none of which is tried by auto"
        raise ValueError(msg)
    return best[1]


def candidates(codes: Codes) -> list[Encoding]:
    """``CANDIDATES``, and where there are few distinct values each of them with a codebook."""
    result = list(CANDIDATES)
    nonzeros = codes.positions.size
    if nonzeros and codes.bits > 1:
        book = codes.codebook
        if (
            book is not None
            and book[0].size <= min(BOOK, nonzeros // 8)
            and book[1].bits < codes.bits
        ):
            result += [replace(one, values="codebook") for one in CANDIDATES]
    return result
