"""The C decoder says what the Python package says, of blobs that are well and of blobs that are not."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwmodel.blob import CHECKED, PREAMBLE, VERSION, BlobEntry, open_blob, write_blob
from hwmodel.blob_records import Record, RecordReader, write_index
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
    sources = [*sorted(SOURCES.glob("*.c")), DRIVER]
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
            told.write(tensor.spec.name.encode())
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
    golden = Path(__file__).parents[1] / "golden"
    blobs += [path.read_bytes() for path in sorted(golden.glob("*.swb"))]
    told = run(decoder, blobs)
    assert told == b"".join(expected(blob, tmp_path / "b.swb") for blob in blobs)


def seal(content: bytes, index: bytes, end: int, tensors: int = 1) -> bytes:
    """A blob of these data and this index, its preamble right."""
    fields = (end, len(index), tensors)
    head = PREAMBLE.pack(content[:8], VERSION, 0, *fields)
    crc = zlib.crc32(index, zlib.crc32(head[CHECKED:]))
    return PREAMBLE.pack(content[:8], VERSION, crc, *fields) + content[PREAMBLE.size : end] + index


def damage(target: bytearray, place: int, draw: random.Random) -> None:
    target[place] = draw.choice(
        [target[place] ^ 1 << draw.randrange(8), 0, 0xFF, draw.randrange(256)]
    )


def mutate(blob: bytes, draw: random.Random) -> bytes:
    """A hostile blob of one tensor: a few bits or bytes of its data or its record differ.

    Checksums are made right again, so that damage has to be found otherwise.
    """
    _, _, _, end, _, _ = PREAMBLE.unpack(blob[: PREAMBLE.size])
    data, index = bytearray(blob[:end]), bytearray(blob[end:])
    record, header, inside = RecordReader(bytes(index)).next()
    name = index.index(record.name)
    kind = draw.random()
    for _ in range(draw.choice([1, 1, 2, 5])):
        if kind < 0.4 and sum(record.lengths):
            if record.inside is None:
                target, place = data, draw.randrange(PREAMBLE.size, end)
            else:
                target, place = index, inside + draw.randrange(len(record.inside))
        elif kind < 0.7 and record.header:
            target, place = index, header + draw.randrange(len(record.header))
        else:
            target, place = index, draw.randrange(len(index))
        if target is index and name <= place < name + len(record.name):
            continue  # the C decoder does not look at names
        damage(target, place, draw)
    with contextlib.suppress(BlobError):  # a record that can still be read gets right checksums
        record, _, _ = RecordReader(bytes(index)).next()
        again = write_index([checked(record, bytes(data))])
        if len(again) == len(index):
            index = bytearray(again)
    return seal(bytes(data), bytes(index), end)


def names_decide(blob: bytes, path: Path) -> bool:
    """Whether names are what is wrong, at which the C decoder does not look."""
    path.write_bytes(blob)
    try:
        with open_blob(path) as opened:  # the driver's names end with their first zero
            return any("\0" in tensor.spec.name for tensor in opened.tensors)
    except BlobError as error:
        return "decode byte" in str(error) or "tensor twice" in str(error)


def checked(record: Record, data: bytes) -> Record:
    """The first record of a blob with the checksums that its data have."""
    if record.inside is not None:
        return record
    place, crcs = PREAMBLE.size, []
    for length in record.lengths:
        crcs.append(zlib.crc32(data[place : place + length]))
        place += -(-length // 64) * 64
    return replace(record, crcs=tuple(crcs))


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
        hostile = mutate(blob_of([BlobEntry(spec, array, encoding)]), draw)
        if not names_decide(hostile, tmp_path / "b.swb"):
            blobs.append(hostile)
    told = run(decoder, blobs)
    assert told == b"".join(expected(blob, tmp_path / "b.swb") for blob in blobs)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_hostile_indices_of_many_tensors_are_judged_alike(
    decoder: Path, tmp_path: Path, seed: int
) -> None:
    """Records that share names, settings and headers with damaged ones before them."""
    draw, right = random.Random(seed), []
    blob = (Path(__file__).parents[1] / "golden" / "every_encoding.swb").read_bytes()
    _, _, _, end, _, tensors = PREAMBLE.unpack(blob[: PREAMBLE.size])
    blobs = []
    while len(blobs) < (300 if seed == 0 else 3000):
        index = bytearray(blob[end:])
        for _ in range(draw.choice([1, 1, 2, 5])):
            damage(index, draw.randrange(len(index)), draw)
        hostile = seal(blob[:end], bytes(index), end, tensors)
        path = tmp_path / "b.swb"
        if not names_decide(hostile, path):
            blobs.append(hostile)
            right.append(expected(hostile, path))
    told = run(decoder, blobs)
    assert told == b"".join(right)


def test_any_bytes_are_refused_without_harm(decoder: Path) -> None:
    draw = random.Random(2)
    blob = (Path(__file__).parents[1] / "golden" / "every_encoding.swb").read_bytes()
    blobs = [draw.randbytes(draw.randrange(300)) for _ in range(50)]
    blobs += [blob[: draw.randrange(len(blob))] for _ in range(50)]
    told = struct.unpack(f"<{2 * len(blobs)}q", run(decoder, blobs))
    assert set(told[::2]) <= {-1, -2}
    assert not any(told[1::2])
