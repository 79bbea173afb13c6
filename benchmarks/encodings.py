"""Sizes and speeds of all encodings, beside the peers and the limits, on the same tensors in one run.

    python benchmarks/encodings.py [--models ../shared/models]

Three tables. Bits a weight of an int8 layer (256x3x3x256, Gaussian, pruned by magnitude): entropy of
the symbols, Vela's mlw_codec, zstd -19, CSR as scipy holds it, ONNX's sparse tensors, and ours, whole
and in chunks of 1024 weights that decode alone. Real models at 90 % sparsity in float32 and float16:
the whole blob file against the entropy bound. Speeds in dense bytes a second of processor time on one
core, and as ratios to zstd -3 and to numpy's packbits and unpackbits of the same tensor's mask.

Needs the extra ``bench``. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import io
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import record
import scipy.sparse
import zstandard
from ethosu import mlw_codec
from numpy.typing import NDArray

from hwmodel.blob import BlobEntry, write_blob
from hwmodel.codes import Codes
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.encodings.bitmask import Bitmask
from hwmodel.encodings.entropy import Entropy
from hwmodel.encodings.rice import Rice
from hwmodel.encodings.run_length import RunLength
from hwmodel.entropy import entropy_bound_bits
from hwmodel.select import best_encoding, share_tables
from hwmodel.tensor import TensorSpec
from onnxprune.errors import OnnxPruneError
from onnxprune.model_io import load_model
from passes.weights import collect_weights

if TYPE_CHECKING:
    from collections.abc import Callable

Array = NDArray[Any]
CHUNK = 1024
SPARSITIES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def gaussian(shape: tuple[int, ...], sparsity: float, dtype: str) -> tuple[Array, TensorSpec]:
    """Gaussian weights, seed 0, pruned by magnitude; integers are scaled to 127."""
    weights = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    kept = np.abs(weights) > np.quantile(np.abs(weights), sparsity)
    if dtype == "int8":
        weights = np.round(weights / np.abs(weights).max() * 127)
    return np.where(kept, weights, 0).astype(dtype), TensorSpec("w", shape, dtype)


def symbol_entropy(array: Array) -> float:
    """Bits of a weight, each independent of the others."""
    often = np.unique(array, return_counts=True)[1] / array.size
    return float(-(often * np.log2(often)).sum())


def integer_sizes(sparsity: float) -> dict[str, float]:
    """Bits a weight in every form."""
    array, spec = gaussian((256, 3, 3, 256), sparsity, "int8")
    codes, flat = Codes.of(array, spec), array.reshape(256, -1)
    nonzeros = int(np.count_nonzero(array))
    matrix = scipy.sparse.csr_matrix(flat)
    vela = mlw_codec.encode(flat.ravel().astype(int).tolist())
    assert list(mlw_codec.decode(vela)) == flat.ravel().tolist()
    sizes: dict[str, float] = {
        "vela": len(vela),
        "zstd-19": len(zstandard.compress(array.tobytes(), 19)),
        "scipy csr": matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes,
        "onnx sparse": nonzeros * (1 + 8),
    }
    ours = {"bitmask": Bitmask(), "run_length": RunLength(), "rice": Rice(), "entropy": Entropy()}
    for name, encoding in {**ours, "entropy, chunks": Entropy(chunk=CHUNK)}.items():
        sizes[name] = encoding.layout(codes).size.bytes
        stored = encoding.encode(array, spec)
        assert sum(map(len, stored.values())) == sizes[name]
        assert encoding.decode(stored, spec).tobytes() == array.tobytes()
    bits = {name: 8 * size / array.size for name, size in sizes.items()}
    return {"sparsity": sparsity, "entropy of symbols": symbol_entropy(array), **bits}


def model_sizes(path: Path, sparsity: float, dtype: str) -> dict[str, Any] | None:
    """The blob of a model's weights, each pruned by magnitude, against their entropy bound."""
    try:
        weights = collect_weights(load_model(path)).weights
    except OnnxPruneError:
        return None
    tensors, bound = [], 0.0
    for weight in weights:
        array = np.ascontiguousarray(weight.array())
        if array.dtype not in (np.float32, np.float16):
            continue
        kept = np.abs(array) > np.quantile(np.abs(array), sparsity)
        array = np.where(kept, array, 0).astype(dtype)
        array[array == 0] = 0  # no -0.0: pruning writes +0.0
        spec = TensorSpec(weight.name, array.shape, dtype)
        nonzeros = int(np.count_nonzero(array))
        bound += entropy_bound_bits(array.size, nonzeros, spec.value_bits) / 8
        tensors.append((array, spec))
    if not bound:
        return None
    encodings = share_tables(tensors, [best_encoding(*tensor) for tensor in tensors])
    entries = [
        BlobEntry(spec, array, encoding)
        for (array, spec), encoding in zip(tensors, encodings, strict=True)
    ]
    file = io.BytesIO()
    write_blob(file, entries)
    size = len(file.getvalue())
    names = b"\0".join(spec.name.encode() for _, spec in tensors)
    shapes = b"".join(bytes(str(spec.shape), "ascii") for _, spec in tensors)
    stored = [entry.encoding.encode(entry.array, entry.spec) for entry in entries]
    headers = {one["header"] for one in stored}  # tensors share them
    segments = sum(map(len, headers)) + sum(
        len(one[name]) for one in stored for name in ("codebook", "pointers", "data")
    )
    return {
        "model": path.name,
        "dtype": dtype,
        "weights": len(entries),
        "dense_bytes": sum(entry.spec.dense_bytes for entry in entries),
        "bound_bytes": round(bound),
        "encoded_bytes": segments,
        "blob_bytes": size,
        "names_and_shapes_bytes": len(zlib.compress(names + shapes, 9)),
        "encoded_over_bound": segments / bound - 1,
        "blob_over_bound": size / bound - 1,
        "encodings": dict(Counter(encoding.name for encoding in encodings)),
    }


def seconds(*actions: Callable[[], Any], rounds: int = 7) -> list[float]:
    """The least processor time of each action, taken in turns so that noise falls on all alike."""
    best = [float("inf")] * len(actions)
    for action in actions:
        action()
    for _ in range(rounds):
        for i, action in enumerate(actions):
            start = time.process_time()
            action()
            best[i] = min(best[i], time.process_time() - start)
    return best


def speeds(sparsity: float, dtype: str, names: list[str]) -> list[dict[str, Any]]:
    """Speed of each encoding, whole and in chunks, on a tensor of 2 million weights."""
    array, spec = gaussian((1024, 2048), sparsity, dtype)
    dense, mask = array.tobytes(), array != 0
    bits, squeezed = np.packbits(mask), zstandard.compress(dense, 3)
    rows = []
    for name in names:
        for chunk in (0, CHUNK):
            encoding = get_encoding(name, {"chunk": chunk})
            stored = encoding.encode(array, spec)
            assert encoding.decode(stored, spec).tobytes() == dense
            encode, decode, pack, unpack, press, unpress, size = seconds(
                lambda encoding=encoding: encoding.encode(array, spec),
                lambda encoding=encoding, stored=stored: encoding.decode(stored, spec),
                lambda: np.packbits(mask),
                lambda: np.unpackbits(bits),
                lambda: zstandard.compress(dense, 3),
                lambda: zstandard.decompress(squeezed),
                lambda encoding=encoding: encoding.size(array, spec),
            )
            rows.append(
                {
                    "encoding": name,
                    "chunk": chunk,
                    "dtype": dtype,
                    "sparsity": sparsity,
                    "encode_MBps": len(dense) / encode / 1e6,
                    "decode_MBps": len(dense) / decode / 1e6,
                    "size_ms": size * 1e3,
                    "encode_to_packbits": pack / encode,
                    "decode_to_unpackbits": unpack / decode,
                    "encode_to_zstd": press / encode,
                    "decode_to_zstd": unpress / decode,
                }
            )
    return rows


def print_sizes(rows: list[dict[str, float]]) -> None:
    """A line for each sparsity: bits a weight, and per cent over the entropy."""
    print("int8, bits a weight (per cent over the entropy of its symbols)\n")
    for row in rows:
        limit = row["entropy of symbols"]
        print(f"{row['sparsity']:.0%} sparse, entropy {limit:.4f}")
        for name, bits in list(row.items())[2:]:
            print(f"    {name:16} {bits:8.4f}  {bits / limit - 1:+8.2%}")


def print_models(rows: list[dict[str, Any]]) -> None:
    """A line for each model."""
    print("\nmodels, bytes against the entropy bound\n")
    for row in rows:
        print(
            f"{row['model']:40} {row['dtype']:8} bound {row['bound_bytes']:9,d}  encoded"
            f" {row['encoded_over_bound']:+7.2%}  file {row['blob_over_bound']:+7.2%}"
            f"  {row['weights']:3d} weights, names and shapes {row['names_and_shapes_bytes']:,d}"
            f"  {row['encodings']}"
        )


def print_speeds(rows: list[dict[str, Any]]) -> None:
    """A line for each encoding."""
    print("\nspeed, MB of dense bytes a second; times numpy's packbits / zstd -3\n")
    for row in rows:
        name = row["encoding"] + ("/1024" if row["chunk"] else "")
        print(
            f"{row['dtype']:8} {row['sparsity']:4.0%} {name:20}"
            f" encode {row['encode_MBps']:6.0f} ({row['encode_to_packbits']:.4f}, {row['encode_to_zstd']:5.2f})"
            f"  decode {row['decode_MBps']:6.0f} ({row['decode_to_unpackbits']:.4f}, {row['decode_to_zstd']:5.2f})"
            f"  size {row['size_ms']:6.2f} ms"
        )


def tables(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures as they are shown."""
    made = []
    if sizes := result.get("sizes"):
        names = [name for name in sizes[0] if name != "sparsity"]
        lines = [
            {"form": name} | {f"{row['sparsity']:.0%}": row[name] for row in sizes}
            for name in names
        ]
        forms = {"form": "{}"} | {f"{row['sparsity']:.0%}": "{:.4f}" for row in sizes}
        made.append(record.table("Bits a weight, int8, by sparsity", lines, forms))
    if models := result.get("models"):
        forms = {"model": "{}", "dtype": "{}", "weights": "{}", "bound_bytes": "{:,}"}
        forms |= {"encoded_over_bound": "encoded|{:+.2%}", "blob_over_bound": "file|{:+.2%}"}
        title = "Bytes over the entropy bound, real models at 90 %"
        made.append(record.table(title, models, forms))
    if speeds := result.get("speeds"):
        forms = {"dtype": "{}", "sparsity": "{:.0%}", "encoding": "{}", "chunk": "{}"}
        forms |= {"encode_MBps": "{:.0f}", "encode_to_zstd": "{:.2f}"}
        forms |= {"decode_MBps": "{:.0f}", "decode_to_zstd": "{:.2f}", "size_ms": "{:.2f}"}
        title = "Speed in MB of dense bytes a second, and as multiples of zstd -3"
        made.append(record.table(title, speeds, forms))
    return made


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--models", type=Path, default=Path("../shared/models"))
    parser.add_argument("--only", choices=["sizes", "models", "speeds"])
    arguments = parser.parse_args()
    result: dict[str, Any] = {}
    if arguments.only in (None, "sizes"):
        result["sizes"] = [integer_sizes(s) for s in SPARSITIES]
        print_sizes(result["sizes"])
    if arguments.only in (None, "models") and arguments.models.is_dir():
        found = [
            model_sizes(path, 0.9, dtype)
            for path in sorted(arguments.models.glob("*.onnx"))
            for dtype in ("float32", "float16")
        ]
        result["models"] = [row for row in found if row]
        print_models(result["models"])
    if arguments.only in (None, "speeds"):
        result["speeds"] = [
            row
            for dtype, sparsity in (("int8", 0.5), ("int8", 0.9), ("float32", 0.9))
            for row in speeds(sparsity, dtype, list(encoding_names()))
        ]
        print_speeds(result["speeds"])
    record.write(__file__, tables(result), result, arguments.json)


if __name__ == "__main__":
    main()
