"""The contract of all encodings; :mod:`hwmodel.encodings` finds them by name.

An encoding is a frozen dataclass whose fields are its configuration. It turns the codes of a tensor
(unsigned integers in which zero means pruned, see :meth:`hwmodel.tensor.TensorSpec.codes`) into
named segments of bytes, and back, exactly. ``tests/contracts/test_encodings.py`` checks every one.
"""

from __future__ import annotations

import abc
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, final

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from hwmodel.tensor import TensorSpec

Segments = dict[str, bytes]


@dataclass(frozen=True)
class Size:
    """What an encoded tensor takes, before any alignment.

    Attributes:
        payload_bits: values.
        metadata_bits: coordinates.
        bytes: all segments, each rounded up to whole bytes.
    """

    payload_bits: int
    metadata_bits: int
    bytes: int


@dataclass(frozen=True)
class Encoding(abc.ABC):
    """How a tensor is stored. Fields are the configuration, plain JSON values."""

    name: ClassVar[str]

    @final
    def encode(self, array: NDArray[Any], spec: TensorSpec) -> Segments:
        """The tensor as segments, in the order in which they are stored."""
        return self.encode_codes(spec.codes(array), spec)

    @final
    def decode(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """The array of which these are the segments, bit for bit.

        Raises:
            BlobError: when segments are missing, of a wrong length, or contradict the spec.
        """
        return spec.array(self.decode_codes(segments, spec))

    @final
    def size(self, array: NDArray[Any], spec: TensorSpec) -> Size:
        """The exact size of the encoded tensor, without encoding it."""
        return self.size_of_codes(spec.codes(array), spec)

    @abc.abstractmethod
    def encode_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Segments:
        """Encode codes ``(elements,)`` of ``spec.value_bits`` bits."""

    @abc.abstractmethod
    def decode_codes(self, segments: Mapping[str, bytes], spec: TensorSpec) -> NDArray[Any]:
        """Decode to codes ``(elements,)``; raises :class:`BlobError` on anything unexpected."""

    @abc.abstractmethod
    def size_of_codes(self, codes: NDArray[Any], spec: TensorSpec) -> Size:
        """The exact size for codes ``(elements,)``."""

    @final
    def to_config(self) -> dict[str, Any]:
        """The fields, for a blob's header."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The encoding with these fields.

        Raises:
            BlobError: for an unknown field or a value that is not allowed.
        """
        try:
            return cls(**config)
        except (TypeError, ValueError) as error:
            msg = f"encoding '{cls.name}' cannot have the configuration {dict(config)}"
            raise BlobError(msg) from error


def take_segments(segments: Mapping[str, bytes], *names: str) -> list[bytes]:
    """The segments of these names, which must be all there are.

    Raises:
        BlobError: when one is missing or unknown.
    """
    if set(segments) != set(names):
        msg = f"expected segments {sorted(names)}, found {sorted(segments)}"
        raise BlobError(msg)
    return [segments[name] for name in names]


def read_values(data: bytes, spec: TensorSpec, count: int) -> NDArray[Any]:
    """Codes stored one after the other, ``(count,)``.

    Raises:
        BlobError: when ``data`` is not exactly that long.
    """
    size = spec.value_bits // 8
    if len(data) != count * size:
        msg = f"{count} values of {spec.dtype} take {count * size} bytes, found {len(data)}"
        raise BlobError(msg)
    return np.frombuffer(data, f"<u{size}").astype(f"u{size}")
