"""Blobs from the command line: chunks, decoders, memory images."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hwmodel.blob import open_blob
from onnxprune import api
from onnxprune.errors import BlobError, RecipeError


@pytest.fixture
def pruned(mlp: Path, tmp_path: Path) -> Path:
    path = tmp_path / "pruned.onnx"
    api.prune(mlp, path, sparsity=0.7)
    return path


def test_chunks_and_alignment_are_as_asked(pruned: Path, tmp_path: Path) -> None:
    blob = tmp_path / "w.swb"
    api.encode(pruned, blob, encoding="rice", chunk=32, align=16)
    with open_blob(blob) as opened:
        for tensor in opened.tensors:
            assert (tensor.encoding.name, tensor.encoding.chunk) == ("rice", 32)
            assert tensor.encoding.align == 16
            whole = opened.read(tensor.spec.name).ravel()
            assert opened.read_chunk(tensor.spec.name, 1).tobytes() == whole[32:64].tobytes()


def test_auto_takes_what_the_decoder_knows(pruned: Path, tmp_path: Path) -> None:
    report = api.encode(pruned, tmp_path / "w.swb", decoder=["bitmask", "csr"])
    assert {weight.encoding for weight in report.weights or ()} <= {"bitmask", "csr"}


def test_auto_cycles_may_take_more_bytes_but_no_more_cycles(pruned: Path, tmp_path: Path) -> None:
    settings = {"memory": "ddr4-2400", "decoder_lanes": 4, "decoder_width": 2, "chunk": 64}
    totals = {}
    for encoding in ("auto", "auto-cycles"):
        blob = tmp_path / f"{encoding}.swb"
        api.encode(pruned, blob, encoding=encoding, **settings)
        hardware = {"memory": "ddr4-2400", "decoder_lanes": (4,), "decoder_width": 2}
        totals[encoding] = api.estimate(blob, **hardware).totals
    assert totals["auto-cycles"].fetch_cycles <= totals["auto"].fetch_cycles


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoding": "zip"}, "no encoding 'zip'"),
        ({"decoder": ["auto"]}, "no encoding 'auto'; known are dense"),
        ({"encoding": "rice", "decoder": ["bitmask"]}, "the decoder knows bitmask, not 'rice'"),
        ({"encoding": "auto-cycles"}, "needs a memory"),
        ({"align": 3}, "power of two up to 65536, found 3"),
        ({"chunk": -1}, "found -1"),
        ({"decoder_width": 0}, "width must be"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    pruned: Path, tmp_path: Path, settings: dict, message: str
) -> None:
    blob = tmp_path / "w.swb"
    with pytest.raises(RecipeError, match=message):
        api.encode(pruned, blob, **settings)
    assert not blob.exists()


def image_of(blob: Path, name: str) -> bytes:
    with open_blob(blob) as opened:
        parts = opened.segments(name).values()
    content = b""
    for part in parts:
        content += bytes(-len(content) % 64) + part
    return content


def test_images_hold_the_segments(pruned: Path, tmp_path: Path) -> None:
    blob = tmp_path / "w.swb"
    api.encode(pruned, blob, encoding="entropy", chunk=50)
    for suffix in ("bin", "memh", "c"):
        api.export(blob, tmp_path / f"w.{suffix}", tensor="fc0.weight", word_bytes=4)
    expected = image_of(blob, "fc0.weight")
    assert (tmp_path / "w.bin").read_bytes() == expected
    lines = (tmp_path / "w.memh").read_text().splitlines()
    words = [bytes.fromhex(line)[::-1] for line in lines if not line.startswith("//")]
    assert {len(word) for word in words} == {4}
    assert b"".join(words) == expected + bytes(-len(expected) % 4)
    notes = re.findall(r"// (\w+): (\d+) bytes from byte (\d+)", "\n".join(lines))
    assert [note[0] for note in notes] == ["header", "codebook", "pointers", "data"]
    assert int(notes[3][1]) + int(notes[3][2]) == len(expected)
    body = (tmp_path / "w.c").read_text().split("= {\n")[-1]
    assert bytes(map(int, re.findall(r"\d+", body))) == expected
    api.export(blob, tmp_path / "all.bin")
    assert (tmp_path / "all.bin").read_bytes() == blob.read_bytes()


def test_the_c_array_compiles(pruned: Path, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    blob = tmp_path / "w.swb"
    api.encode(pruned, blob)
    api.export(blob, tmp_path / "w.h", tensor="fc1.weight")
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "w.h"\n'
        "int main(void) { fwrite(fc1_weight, 1, fc1_weight_data_offset + fc1_weight_data_bytes, stdout); }\n"
    )
    command = ["gcc", "-std=c99", "-Wall", "-Werror", "main.c", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "main"], capture_output=True, check=True)
    assert done.stdout == image_of(blob, "fc1.weight")


def test_errors_of_export_name_what_there_is(pruned: Path, tmp_path: Path) -> None:
    blob = tmp_path / "w.swb"
    api.encode(pruned, blob)
    with pytest.raises(RecipeError, match=r"should end in \.bin, \.memh"):
        api.export(blob, tmp_path / "w.txt")
    with pytest.raises(BlobError, match=r"it holds fc0\.weight, fc1\.weight"):
        api.export(blob, tmp_path / "w.bin", tensor="fc9")
    with pytest.raises(RecipeError, match="1 to 1024 bytes"):
        api.export(blob, tmp_path / "w.memh", word_bytes=0)
    with pytest.raises(BlobError, match="there is no file"):
        api.export(tmp_path / "none.swb", tmp_path / "w.bin")
    assert {one.name for one in tmp_path.iterdir()} == {"mlp.onnx", "pruned.onnx", "w.swb"}


def test_uint8_with_a_zero_point_and_int4_come_back(tmp_path: Path) -> None:
    """What the blob calls zero is the zero point, also for values of 4 bits."""
    import ml_dtypes

    from hwmodel.blob import BlobEntry, write_blob
    from hwmodel.select import best_encoding
    from hwmodel.tensor import TensorSpec

    rng = np.random.default_rng(0)
    cases = {
        "uint8": np.where(rng.random((40, 50)) < 0.1, rng.integers(0, 256, (40, 50)), 128),
        "int4": np.where(rng.random((40, 50)) < 0.1, rng.integers(-8, 8, (40, 50)), 0),
    }
    path = tmp_path / "w.swb"
    entries = []
    for name, values in cases.items():
        array = values.astype(ml_dtypes.int4 if name == "int4" else np.uint8)
        spec = TensorSpec(name, array.shape, name, 128 if name == "uint8" else 0)
        entries.append(BlobEntry(spec, array, best_encoding(array, spec)))
    with path.open("wb") as file:
        write_blob(file, entries)
    assert path.stat().st_size < 2500  # 3000 bytes dense
    with open_blob(path) as blob:
        for entry in entries:
            assert np.array_equal(blob.read(entry.spec.name), entry.array)
