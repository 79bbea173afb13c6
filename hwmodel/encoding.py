"""The contract of all encodings; :mod:`hwmodel.encodings` finds them by name.

An encoding is a frozen dataclass whose fields are its configuration. It turns the codes of a tensor
(unsigned integers in which zero means pruned, see :class:`hwmodel.codes.Codes`) into four segments,
and back, exactly. ``tests/contracts/test_encodings.py`` checks every one. In stored order:

``header``
    what holds for the whole tensor (a Rice parameter, a Huffman table); may be empty.
``codebook``
    with ``values="codebook"`` the distinct nonzero codes; else empty.
``pointers``
    where each chunk but the first begins in ``data``, in units of ``align`` bytes, as bit fields
    just wide enough for the length of ``data``; empty where that follows from the header, or there
    is but one chunk.
``data``
    the chunks one after the other. A chunk is one bit string, metadata and values, filled up with
    zero bits to a multiple of ``align`` bytes, and decodes on its own.
"""

from __future__ import annotations

import abc
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

import numpy as np

from hwmodel.bits import field_bytes, pack_fields, unpack_fields, width_of
from hwmodel.codes import (
    LARGEST_CODEBOOK,
    Codes,
    codebook_bits,
    codebook_bytes,
    from_codebook,
    indexed_symbol,
)
from hwmodel.errors import BlobError
from hwmodel.layout import Frame, Layout, Plan, Size, take_segments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.decoding import DecoderSpec
    from hwmodel.streams import Reader, Writer
    from hwmodel.tensor import TensorSpec

Segments = dict[str, bytes]
ChunkedBy = Literal["elements", "rows", "columns"]
VALUES = ("raw", "codebook")
_NOTHING = Plan(b"", np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Encoding(abc.ABC):
    """How a tensor is stored. Fields are the configuration, plain JSON values.

    Attributes:
        chunk: elements of a chunk, or of as many whole rows (columns for ``csc`` and
            ``relative_index``) as fit, at least one; 0 makes the tensor one chunk.
        align: bytes; each chunk begins and ends at a multiple of it. 1 to 65536, a power of two.
        values: ``raw`` as they are, or ``codebook``: numbers of the distinct values.
    """

    name: ClassVar[str]
    chunked_by: ClassVar[ChunkedBy] = "elements"

    chunk: int = field(default=0, kw_only=True)
    align: int = field(default=1, kw_only=True)
    values: str = field(default="raw", kw_only=True)

    def __post_init__(self) -> None:
        """Check the configuration.

        Raises:
            ValueError: naming the field.
        """
        self._check("chunk", 0, 2**40)
        self._check("align", 1, 2**16)
        if self.align & (self.align - 1):
            msg = f"{self.name} aligns chunks to a power of two, found {self.align}"
            raise ValueError(msg)
        if self.values not in VALUES:
            msg = f"{self.name} stores values as {' or '.join(VALUES)}, found {self.values!r}"
            raise ValueError(msg)

    @final
    def encode(self, array: NDArray[Any], spec: TensorSpec) -> Segments:
        """The tensor as segments, in the order in which they are stored.

        Raises:
            ValueError: when the tensor cannot be stored so (no ``n:m`` pattern, no small codebook).
        """
        from hwmodel.streams import Writer

        codes = Codes.of(array, spec)
        book, seen = self._seen(codes)
        frame = self._frame(seen)
        plan = self._plan(seen, frame) if seen.size else _NOTHING
        layout = self._layout(plan, frame, book)
        writer = Writer(layout.chunk_starts)
        if seen.size:
            self._write(seen, frame, plan.header, writer)
        units = layout.chunk_starts[1:-1] // self.align
        return {
            "header": plan.header,
            "codebook": codebook_bytes(book),
            "pointers": pack_fields(units, layout.pointer_bits),
            "data": writer.data(),
        }

    @final
    def decode(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """The array of which these are the segments, bit for bit.

        Raises:
            BlobError: when segments are missing, of a wrong length, or contradict the spec.
        """
        header, book, pointers, data = take_segments(segments)
        frame = self._spec_frame(spec, book, len(data))
        starts = self._starts(header, frame, pointers, len(data))
        codes = self._decode(header, data, starts, frame)
        if self.chunked_by == "columns":
            codes = np.ascontiguousarray(codes.reshape(frame.rows, frame.columns).T).ravel()
        return spec.array(self._valued(codes, book, spec))

    @final
    def decode_chunk(
        self, segments: Mapping[str, bytes], spec: TensorSpec, chunk: int
    ) -> NDArray[Any]:
        """One chunk alone, flat, in stored order: elements ``chunk_bounds[chunk : chunk + 2]``.

        Stored order is row after row, for ``csc`` and ``relative_index`` column after column.

        Args:
            segments: as for :meth:`decode`, but ``data`` holds only the bytes of the chunk, which
                :meth:`chunk_bytes` tells; ``pointers`` are not read.
            spec: of the whole tensor.
            chunk: its number.

        Raises:
            BlobError: as :meth:`decode`.
        """
        header, book, _, data = take_segments(segments)
        frame = self._spec_frame(spec, book, None).only(chunk)
        codes = self._decode(header, data, np.array([0, len(data)]), frame)
        return spec.flat(self._valued(codes, book, spec))

    @final
    def chunk_bounds(self, spec: TensorSpec) -> NDArray[np.int64]:
        """First element of each chunk in stored order, and the end, int64 ``(chunks + 1,)``."""
        return self._bounds(*self._turned(spec.rows, spec.columns))[0]

    @final
    def chunk_bytes(
        self, spec: TensorSpec, segments: Mapping[str, bytes], data_bytes: int
    ) -> NDArray[np.int64]:
        """First byte of each chunk in ``data``, and the end, int64 ``(chunks + 1,)``.

        Args:
            spec: of the tensor.
            segments: all but ``data``.
            data_bytes: length of ``data``.

        Raises:
            BlobError: as :meth:`decode`.
        """
        frame = self._spec_frame(spec, segments["codebook"], data_bytes)
        return self._starts(segments["header"], frame, segments["pointers"], data_bytes)

    @final
    def granularity(self, spec: TensorSpec) -> int:
        """Elements that must be decoded to get at one: those of a chunk."""
        return self._bounds(*self._turned(spec.rows, spec.columns))[1]

    @final
    def layout(self, codes: Codes) -> Layout:
        """Where everything would lie, without encoding.

        Several encodings of one ``Codes`` share what they compute.

        Raises:
            ValueError: as :meth:`encode`.
        """
        book, seen = self._seen(codes)
        frame = self._frame(seen)
        plan = self._plan(seen, frame) if seen.size else _NOTHING
        return self._layout(plan, frame, book)

    @final
    def size(self, array: NDArray[Any], spec: TensorSpec) -> Size:
        """The exact size of the encoded tensor, without encoding it."""
        return self.layout(Codes.of(array, spec)).size

    @final
    def decode_cycles(self, codes: Codes, decoder: DecoderSpec) -> NDArray[np.int64]:
        """Decoder clocks that one lane takes for each chunk, int64 ``(chunks,)``.

        From the clock in which the chunk is started to the one in which its last value is placed,
        both counted, when every bit is there as soon as it is wanted: the work, which each encoding
        documents, plus ``decoder.fill``. Exact for the codes given, not an average. Chunks are those
        of :meth:`layout`, in the same order; ``DecoderSpec.cycles`` tells what several lanes take.

        Args:
            codes: of the tensor; ``Codes.of(array, spec)``.
            decoder: its lanes do not matter here.

        Raises:
            ValueError: as :meth:`encode`.
        """
        _, seen = self._seen(codes)
        if not seen.size:
            return np.zeros(0, np.int64)
        return self._work(seen, self._frame(seen), decoder) + decoder.fill

    @final
    def to_config(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The encoding with these fields.

        Raises:
            BlobError: for an unknown field or a value that is not allowed.
        """
        known = {one.name for one in fields(cls)}
        try:
            if unknown := sorted(map(str, set(config) - known)):
                msg = f"its fields are {', '.join(sorted(known))}, not {', '.join(unknown)}"
                raise ValueError(msg)
            return cls(**config)
        except (TypeError, ValueError) as error:
            msg = f"encoding '{cls.name}' cannot have the configuration {dict(config)}: {error}"
            raise BlobError(msg) from error

    # What an encoding brings:

    @classmethod
    def config_of(cls, header: bytes) -> dict[str, Any]:
        """What a stored header says that a configuration can say too; nothing unless it has to."""
        del header
        return {}

    @abc.abstractmethod
    def _plan(self, codes: Codes, frame: Frame) -> Plan:
        """The exact size of each chunk and the header, without encoding."""

    @abc.abstractmethod
    def _write(self, codes: Codes, frame: Frame, header: bytes, writer: Writer) -> None:
        """Write all chunks, as many bits as planned."""

    @abc.abstractmethod
    def _read(self, header: bytes, frame: Frame, reader: Reader) -> NDArray[Any]:
        """Codes ``(elements,)`` of ``frame.dtype``; :class:`BlobError` on anything unexpected."""

    @abc.abstractmethod
    def _work(self, codes: Codes, frame: Frame, decoder: DecoderSpec) -> NDArray[np.int64]:
        """Clocks of work for each chunk, as :meth:`decode_cycles` defines them, without ``fill``."""

    def _fixed_bits(self, header: bytes, frame: Frame) -> NDArray[np.int64] | None:
        """Bits of each chunk where they follow from header and frame, so that none is pointed to."""
        del header, frame
        return None

    # What they share:

    def _check(self, name: str, low: int, high: int) -> None:
        number = getattr(self, name)
        if not isinstance(number, int) or isinstance(number, bool) or not low <= number <= high:
            msg = f"{self.name} needs {name} from {low} to {high}, found {number!r}"
            raise ValueError(msg)

    def _seen(self, codes: Codes) -> tuple[NDArray[Any] | None, Codes]:
        book = None
        if self.values == "codebook":
            if codes.codebook is None:
                msg = f"there are more than {LARGEST_CODEBOOK} distinct nonzero values, too many for a codebook"
                raise ValueError(msg)
            book, codes = codes.codebook
        return book, codes.transposed if self.chunked_by == "columns" else codes

    def _valued(self, codes: NDArray[Any], book: bytes, spec: TensorSpec) -> NDArray[Any]:
        if self.values == "raw":
            return codes
        return from_codebook(codes, book, spec.code_dtype, spec.value_bits)

    def _frame(self, codes: Codes) -> Frame:
        bounds, full = self._bounds(codes.rows, codes.columns)
        return Frame(codes.bits, codes.rows, codes.columns, bounds, full, codes.symbol)

    def _spec_frame(self, spec: TensorSpec, book: bytes, data_bytes: int | None) -> Frame:
        rows, columns = self._turned(spec.rows, spec.columns)
        if data_bytes is not None and self._chunks(rows, columns) > data_bytes:
            msg = f"{self._chunks(rows, columns)} chunks cannot stand in {data_bytes} bytes"
            raise BlobError(msg)
        bounds, full = self._bounds(rows, columns)
        bits, symbol = spec.value_bits, spec.symbol
        if self.values == "codebook":
            bits = codebook_bits(len(book) // spec.code_dtype.itemsize)
            symbol = indexed_symbol(bits)
        elif book:
            msg = f"values are raw, but there is a codebook of {len(book)} bytes"
            raise BlobError(msg)
        return Frame(bits, rows, columns, bounds, full, symbol)

    def _turned(self, rows: int, columns: int) -> tuple[int, int]:
        return (columns, rows) if self.chunked_by == "columns" else (rows, columns)

    def _step(self, rows: int, columns: int) -> int:
        """Elements of a whole chunk; at least 1."""
        elements = max(1, rows * columns)
        step = min(self.chunk or elements, elements)
        return (
            step
            if self.chunked_by == "elements"
            else max(1, step // max(1, columns)) * max(1, columns)
        )

    def _chunks(self, rows: int, columns: int) -> int:
        return -(-rows * columns // self._step(rows, columns))

    def _bounds(self, rows: int, columns: int) -> tuple[NDArray[np.int64], int]:
        """First element of each chunk and the end, and the elements of a whole chunk."""
        elements, step = rows * columns, self._step(rows, columns)
        starts = np.arange(0, elements, step, dtype=np.int64)
        return np.append(starts, np.int64(elements)), step

    def _layout(self, plan: Plan, frame: Frame, book: NDArray[Any] | None) -> Layout:
        starts = self._chunk_starts(plan.payload_bits + plan.metadata_bits)
        pointer_bits = 0
        if frame.chunks > 1 and self._fixed_bits(plan.header, frame) is None:
            pointer_bits = width_of(int(starts[-1]) // self.align + 1)
        return Layout(
            len(plan.header),
            len(codebook_bytes(book)),
            field_bytes(pointer_bits, max(0, frame.chunks - 1)),
            pointer_bits,
            starts,
            frame.sizes,
            plan.payload_bits,
            plan.metadata_bits,
        )

    def _chunk_starts(self, bits: NDArray[np.int64]) -> NDArray[np.int64]:
        units = -(-bits // (8 * self.align))
        return np.concatenate([[0], np.cumsum(units * self.align)]).astype(np.int64)

    def _starts(
        self, header: bytes, frame: Frame, pointers: bytes, data_bytes: int
    ) -> NDArray[np.int64]:
        fixed = self._fixed_bits(header, frame) if frame.chunks else None
        if fixed is not None:
            starts = self._chunk_starts(fixed)
        else:
            starts = np.zeros(frame.chunks + 1, np.int64)
            starts[-1] = data_bytes
        pointer_bits = 0
        if fixed is None and frame.chunks > 1:
            pointer_bits = width_of(data_bytes // self.align + 1)
            units = unpack_fields(pointers, pointer_bits, frame.chunks - 1).astype(np.int64)
            starts[1:-1] = units * self.align
        elif pointers:
            msg = f"{len(pointers)} bytes of pointers stand where there are none"
            raise BlobError(msg)
        whole = starts[-1] == data_bytes and data_bytes % self.align == 0
        if not whole or (np.diff(starts) < 0).any():
            msg = f"chunks aligned to {self.align} do not follow each other from byte 0 to {data_bytes}"
            raise BlobError(msg)
        return starts

    def _decode(
        self, header: bytes, data: bytes, starts: NDArray[np.int64], frame: Frame
    ) -> NDArray[Any]:
        from hwmodel.streams import Reader

        if not frame.elements:
            if header or data:
                msg = "there are bytes, but no elements"
                raise BlobError(msg)
            return np.zeros(0, frame.dtype)
        reader = Reader(data, starts)
        codes = self._read(header, frame, reader)
        reader.finish(self.align)
        return codes


def expect_header(header: bytes, length: int) -> None:
    """Check a header's length.

    Raises:
        BlobError: when it is another.
    """
    if len(header) != length:
        msg = f"expected a header of {length} bytes, found {len(header)}"
        raise BlobError(msg)
