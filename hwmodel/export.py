"""Blobs, or what one tensor has in one, as memory images for test benches and firmware."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from hwmodel.blob_index import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Image:
    """Bytes from address 0 on, and what lies where.

    Attributes:
        content: the bytes.
        places: name, offset and length in bytes of each part, rising.
    """

    content: bytes
    places: tuple[tuple[str, int, int], ...]


def image_of(segments: Mapping[str, bytes]) -> Image:
    """The segments of a tensor one after the other, each at a multiple of 64 bytes."""
    content, places = bytearray(), []
    for name, data in segments.items():
        content += bytes(-len(content) % ALIGNMENT)
        places.append((name, len(content), len(data)))
        content += data
    return Image(bytes(content), tuple(places))


def write_memh(file: TextIO, image: Image, word_bytes: int) -> None:
    """Text for Verilog's ``$readmemh``: a word a line in hexadecimal, its first byte the lowest.

    Args:
        file: open for writing.
        image: what to write; the last word is filled up with zeros.
        word_bytes: of a word, at least 1.
    """
    file.writelines(
        f"// {name}: {length} bytes from byte {offset}\n" for name, offset, length in image.places
    )
    for start in range(0, len(image.content), word_bytes):
        word = image.content[start : start + word_bytes].ljust(word_bytes, b"\0")
        file.write(word[::-1].hex() + "\n")


def write_c(file: TextIO, image: Image, name: str) -> None:
    """A C99 array, and the offset and length of each part as constants.

    Args:
        file: open for writing.
        image: what to write.
        name: what the array is called; what cannot stand in a C name becomes ``_``.
    """
    symbol = c_name(name)
    file.write("#include <stdint.h>\n\n")
    if image.places:
        constants = (
            f"    {symbol}_{c_name(part)}_offset = {offset}, {symbol}_{c_name(part)}_bytes = {length}"
            for part, offset, length in image.places
        )
        file.write("enum {\n" + ",\n".join(constants) + "\n};\n\n")
    file.write("/* Place it at a multiple of 64 bytes where the hardware reads it. */\n")
    file.write(f"const uint8_t {symbol}[{max(1, len(image.content))}] = {{\n")
    for start in range(0, max(1, len(image.content)), 16):
        line = ", ".join(str(byte) for byte in image.content[start : start + 16] or b"\0")
        file.write(f"    {line},\n")
    file.write("};\n")


def c_name(name: str) -> str:
    """A name that C allows."""
    plain = re.sub(r"[^0-9A-Za-z_]", "_", name)
    return f"_{plain}" if not plain or plain[0].isdigit() else plain
