"""The C decoder says what the Python package says, of blobs that are well and of blobs that are not."""

from __future__ import annotations

import io
import os
import random
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest

from hwmodel.blob import CHECKED, PREAMBLE, BlobEntry, open_blob, write_blob
from hwmodel.blob_index import RECORD
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.errors import BlobError
from hwmodel.tensor import DTYPES, TensorSpec

SOURCES = Path(__file__).parents[2] / "hwmodel" / "decoder" / "c"
DRIVER = Path(__file__).parent / "c" / "swb_driver.c"
CONFIGS = (
    {},
    {"chunk": 40, "align": 4},
    {"chunk": 9, "values": "codebook"},
)


def require(program: str) -> str:
    """A program's path; without it the test skips, but fails where CI says that it must be there."""
    path = shutil.which(program)
    if path is None:
        missing = program in os.environ.get("ONNXPRUNE_REQUIRE", "").split()
        (pytest.fail if missing else pytest.skip)(f"{program} is not installed")
    return path


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder with a driver around it, compiled so that any wrong access ends the program."""
    program = tmp_path_factory.mktemp("c") / "swb"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [SOURCES / "swb.c", SOURCES / "swb_chunks.c", DRIVER]
    subprocess.run(
        [require("gcc"), *flags, *sanitize, f"-I{SOURCES}", *sources, "-o", program], check=True
    )
    return program


def run(decoder: Path, blobs: list[bytes]) -> bytes:
    fed = b"".join(struct.pack("<I", len(blob)) + blob for blob in blobs)
    done = subprocess.run([decoder], input=fed, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


def expected(blob: bytes, path: Path) -> bytes:
    """What the driver should write of a blob, from the Python package."""
    path.write_bytes(blob)
    told = io.BytesIO()
    try:
        opened = open_blob(path)
    except BlobError as error:
        status = -1 if "not a weight blob" in str(error) or "version" in str(error) else -2
        return struct.pack("<qQ", status, 0)
    with opened:
        told.write(struct.pack("<qQ", 0, len(opened.tensors)))
        for tensor in opened.tensors:
            try:
                array = as_stored(opened.read(tensor.spec.name))
            except BlobError:
                told.write(struct.pack("<qQ", -2, 0))
                continue
            told.write(struct.pack("<qQ", 0, array.nbytes) + array.tobytes())
            chunks = tensor.encoding.chunk_bounds(tensor.spec).size - 1
            for chunk in range(min(chunks, 64)):
                part = as_stored(opened.read_chunk(tensor.spec.name, chunk))
                told.write(part.tobytes())
    return told.getvalue()


def as_stored(array: np.ndarray) -> np.ndarray:
    """C knows no 4-bit integers: they come in bytes."""
    wider = {"int4": np.int8, "uint4": np.uint8}.get(array.dtype.name)
    return array if wider is None else array.astype(wider)


def tensor(rng: np.random.Generator, number: int) -> tuple[np.ndarray, TensorSpec]:
    """Tensors of all dtypes and densities, of up to four axes."""
    name = sorted(DTYPES)[number % len(DTYPES)]
    dtype = DTYPES[name]
    shape = tuple(int(size) for size in rng.integers(1, 9, rng.integers(0, 5)))
    zero = int(rng.integers(0, 8)) if "int" in name else 0
    few = rng.integers(0, 8, shape)
    if "int" not in name:
        values = (few - 3.5).astype(dtype)
    else:
        values = (few - (8 if name == "int4" else 0)).astype(dtype)
    keep = rng.random(shape) < rng.choice([0, 0.05, 0.3, 1])
    array = np.where(keep, values, np.asarray(zero).astype(dtype))
    return np.asarray(array, dtype), TensorSpec(f"w{number}", shape, name, zero)


def blob_of(entries: list[BlobEntry]) -> bytes:
    file = io.BytesIO()
    write_blob(file, entries)
    return file.getvalue()


def test_all_encodings_decode_alike(decoder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    blobs = []
    for name in encoding_names():
        for config in CONFIGS:
            entries = []
            for number in range(16):
                array, spec = tensor(rng, number)
                entries.append(BlobEntry(spec, array, get_encoding(name, config)))
            blobs.append(blob_of(entries))
    blobs.append((Path(__file__).parents[1] / "golden" / "every_encoding.swb").read_bytes())
    told = run(decoder, blobs)
    assert told == b"".join(expected(blob, tmp_path / "b.swb") for blob in blobs)


def seal(content: bytearray) -> bytes:
    """The blob with all checksums made right again, so that damage has to be found otherwise."""
    magic, version, _, offset, length, count = PREAMBLE.unpack(content[: PREAMBLE.size])
    for number in range(count):
        start = offset + RECORD.size * number
        for segment in range(4):
            place = start + 104 + 24 * segment
            first, size = struct.unpack_from("<QQ", content, place)
            if first + size <= len(content) and size:
                crc = zlib.crc32(content[first : first + size])
                struct.pack_into("<I", content, place + 16, crc)
    head = PREAMBLE.pack(magic, version, 0, offset, length, count)
    crc = zlib.crc32(content[offset : offset + length], zlib.crc32(head[CHECKED:]))
    content[: PREAMBLE.size] = PREAMBLE.pack(magic, version, crc, offset, length, count)
    return bytes(content)


def mutate(blob: bytes, draw: random.Random) -> bytes:
    """A hostile blob: a few bits or bytes of a segment or of a record differ, checksums are right."""
    content = bytearray(blob)
    _, _, _, offset, _, _ = PREAMBLE.unpack(content[: PREAMBLE.size])
    segments = [
        struct.unpack_from("<QQ", content, offset + 104 + 24 * segment) for segment in range(4)
    ]
    places = [(first, size) for first, size in segments if size]
    if draw.random() < 0.3:
        places = [(offset + 8, RECORD.size - 8)]  # any field but the name's
    for _ in range(draw.choice([1, 1, 2, 5])):
        first, size = draw.choice(places)
        place = first + draw.randrange(size)
        content[place] = draw.choice(
            [content[place] ^ 1 << draw.randrange(8), 0, 0xFF, draw.randrange(256)]
        )
    return seal(content)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", encoding_names())
def test_hostile_blobs_are_judged_alike(
    decoder: Path, tmp_path: Path, name: str, seed: int
) -> None:
    """Neither decoder reads or writes out of place, and they accept and refuse the same."""
    rng, draw = np.random.default_rng(seed), random.Random(seed)
    blobs = []
    for number in range(60 if seed == 0 else 400):
        array, spec = tensor(rng, number)
        encoding = get_encoding(name, CONFIGS[number % len(CONFIGS)])
        blobs.append(mutate(blob_of([BlobEntry(spec, array, encoding)]), draw))
    told = run(decoder, blobs)
    assert told == b"".join(expected(blob, tmp_path / "b.swb") for blob in blobs)


def test_any_bytes_are_refused_without_harm(decoder: Path) -> None:
    draw = random.Random(2)
    blob = (Path(__file__).parents[1] / "golden" / "every_encoding.swb").read_bytes()
    blobs = [draw.randbytes(draw.randrange(300)) for _ in range(50)]
    blobs += [blob[: draw.randrange(len(blob))] for _ in range(50)]
    told = struct.unpack(f"<{2 * len(blobs)}q", run(decoder, blobs))
    assert set(told[::2]) <= {-1, -2}
    assert not any(told[1::2])
