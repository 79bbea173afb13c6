"""A blob, or one tensor of it, as a memory image for a test bench or firmware."""

from __future__ import annotations

from pathlib import Path

from hwmodel.blob import open_blob
from hwmodel.export import Image, image_of, write_c, write_memh
from onnxprune.errors import RecipeError
from onnxprune.files import replacing
from onnxprune.hardware import blob_errors

SUFFIXES = (".bin", ".memh", ".c", ".h")


def export(
    blob: str | Path, output: str | Path, *, tensor: str | None = None, word_bytes: int = 8
) -> None:
    """Write a blob, or one tensor of it, as a memory image for a test bench or firmware.

    Args:
        blob: path of a ``.swb`` file.
        output: path to write: ``.bin`` for the bytes, ``.memh`` for Verilog's ``$readmemh``, ``.c`` or
            ``.h`` for a C array.
        tensor: only the segments of this one, each at a multiple of 64 bytes; None for the file.
        word_bytes: of a word of ``.memh``.

    Raises:
        BlobError, RecipeError, OutputError: when one of the arguments cannot be used.
    """
    source, target = Path(blob), Path(output)
    if target.suffix not in SUFFIXES:
        msg = f"'{target}' should end in .bin, .memh, .c or .h, which says what to write"
        raise RecipeError(msg)
    if not 1 <= word_bytes <= 1024:
        msg = f"a word has 1 to 1024 bytes, found {word_bytes}"
        raise RecipeError(msg)
    with blob_errors(source), open_blob(source) as opened:
        image = (
            Image(source.read_bytes(), ()) if tensor is None else image_of(opened.segments(tensor))
        )
    with replacing(target) as temporary:
        if target.suffix == ".bin":
            temporary.write_bytes(image.content)
            return
        with temporary.open("w", encoding="ascii") as file:
            if target.suffix == ".memh":
                write_memh(file, image, word_bytes)
            else:
                write_c(file, image, tensor or target.stem)
