"""The contract of all encodings: exact, deterministic, of known size, safe against damage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.encoding import Encoding
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.encodings.run_length import RunLength
from hwmodel.errors import BlobError
from hwmodel.select import CANDIDATES, best_encoding
from hwmodel.tensor import DTYPES, TensorSpec

ENCODINGS = [*(get_encoding(name) for name in encoding_names()), RunLength(1), RunLength(12)]
all_encodings = pytest.mark.parametrize("encoding", ENCODINGS, ids=repr)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, TensorSpec]:
    """Arrays of any dtype, rank and density; values are any bits, NaN and -0.0 among them."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=0, max_size=4)))
    zero = 0
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        zero = draw(st.integers(info.min, info.max))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = int(np.prod(shape))
    bits = rng.integers(0, 256, (size, dtype.itemsize), dtype=np.uint8)
    array = bits.view(dtype).reshape(shape).copy() if size else np.zeros(shape, dtype)
    array[rng.random(shape) > draw(st.sampled_from([0, 0.02, 0.2, 0.7, 1]))] = zero
    return array, TensorSpec("w", shape, dtype.name, zero)


@all_encodings
@given(case=tensors())
@settings(max_examples=80, deadline=None)
def test_decoding_gives_back_every_bit(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec]
) -> None:
    array, spec = case
    segments = encoding.encode(array, spec)
    decoded = encoding.decode(segments, spec)
    assert decoded.dtype == array.dtype
    assert decoded.shape == array.shape
    assert decoded.tobytes() == array.tobytes()
    assert encoding.encode(array.copy(), spec) == segments


@all_encodings
@given(case=tensors())
@settings(max_examples=60, deadline=None)
def test_sizes_are_known_without_encoding(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec]
) -> None:
    array, spec = case
    size = encoding.size(array, spec)
    written = sum(map(len, encoding.encode(array, spec).values()))
    assert size.bytes == written
    bits = size.payload_bits + size.metadata_bits
    assert bits <= written * 8 < bits + 8 * 3


@all_encodings
def test_configurations_survive_json(encoding: Encoding) -> None:
    config = json.loads(json.dumps(encoding.to_config()))
    assert get_encoding(encoding.name, config) == encoding


@all_encodings
@given(case=tensors(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_damaged_segments_are_refused_or_decode_to_the_right_shape(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec], data: st.DataObject
) -> None:
    array, spec = case
    segments = encoding.encode(array, spec)
    name = data.draw(st.sampled_from(sorted(segments)))
    content = bytearray(segments[name])
    match data.draw(st.sampled_from(["flip", "cut", "grow", "drop"])):
        case "flip" if content:
            content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(
                st.integers(0, 7)
            )
        case "cut" if content:
            content = content[: data.draw(st.integers(0, len(content) - 1))]
        case "grow":
            content += bytes(data.draw(st.integers(1, 9)))
        case _:
            with pytest.raises(BlobError, match="expected segments"):
                encoding.decode({k: v for k, v in segments.items() if k != name}, spec)
            return
    try:
        decoded = encoding.decode({**segments, name: bytes(content)}, spec)
    except BlobError:
        return
    assert decoded.shape == spec.shape
    assert decoded.dtype == array.dtype


@pytest.mark.parametrize("name", encoding_names())
def test_unknown_configurations_are_refused(name: str) -> None:
    with pytest.raises(BlobError, match=name):
        get_encoding(name, {"nonsense": 1})


def test_unknown_names_are_refused() -> None:
    with pytest.raises(BlobError, match="known are dense"):
        get_encoding("zip")


@given(case=tensors())
@settings(max_examples=40, deadline=None)
def test_the_best_encoding_is_none_worse(case: tuple[np.ndarray, TensorSpec]) -> None:
    array, spec = case
    best = best_encoding(array, spec).size(array, spec).bytes
    assert best == min(encoding.size(array, spec).bytes for encoding in CANDIDATES)
