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
from hwmodel.encodings.entropy import Entropy, shared_table
from hwmodel.encodings.nm import NM
from hwmodel.encodings.relative_index import RelativeIndex
from hwmodel.encodings.rice import Rice
from hwmodel.encodings.run_length import RunLength
from hwmodel.encodings.segments import Segments
from hwmodel.encodings.two_level import TwoLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    Segments(),
    CSR(),
    CSC(),
    RunLength(),
    RelativeIndex(),
    EliasFano(),
    Rice(),
    Entropy(),
)
"""What is compared; those that are simpler to decode stand first."""
SMALL = 2**14
"""Tensors of up to so many elements may share a table with others."""
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


def share_tables(
    tensors: Sequence[tuple[NDArray[Any], TensorSpec]], encodings: Sequence[Encoding]
) -> list[Encoding]:
    """The same encodings, but small tensors that gain by it in ``entropy`` with one table.

    A table takes 10 to 40 bytes, which a tensor of few values does not win back alone.

    Args:
        tensors: that stand in one blob, one after the other.
        encodings: the best for each alone, by bytes, all with the same chunks and alignment.
    """
    result = list(encodings)
    groups: dict[tuple[str, int], list[int]] = {}
    for number, ((array, spec), encoding) in enumerate(zip(tensors, encodings, strict=True)):
        if array.size and encoding.chunk == 0:
            groups.setdefault((spec.dtype, encoding.align), []).append(number)
    for (_, align), numbers in groups.items():
        codes = {number: Codes.of(*tensors[number]) for number in numbers}
        alone = {number: encodings[number].layout(codes[number]).size.bytes for number in numbers}
        shared, gain = _sharing(codes, alone, align)
        if gain > 0:
            result = [shared.get(number, one) for number, one in enumerate(result)]
    return result


def _sharing(
    codes: dict[int, Codes], alone: dict[int, int], align: int
) -> tuple[dict[int, Encoding], int]:
    """Which tensors to store with one table, and how many bytes that gains in all."""
    members = [number for number, one in codes.items() if one.positions.size]
    for _ in range(2):  # what does not gain leaves, and the table becomes that of the others
        if not members:
            return {}, 0
        encoding = Entropy(align=align, table=shared_table([codes[number] for number in members]))
        head = len(encoding.table) // 2
        gains = {
            number: alone[number] + head - encoding.layout(codes[number]).size.bytes
            for number in members
        }
        members = [number for number in members if gains[number] > 0]
    return dict.fromkeys(members, encoding), sum(gains[number] for number in members) - head


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
