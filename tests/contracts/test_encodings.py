"""The contract of all encodings: exact, deterministic, of known size, safe against damage."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodel.codes import Codes
from hwmodel.decoding import DecoderSpec
from hwmodel.encoding import Encoding
from hwmodel.encodings import encoding_names, get_encoding
from hwmodel.encodings.block import Block
from hwmodel.encodings.elias_fano import EliasFano
from hwmodel.encodings.nm import NM
from hwmodel.encodings.rice import Rice
from hwmodel.encodings.run_length import RunLength
from hwmodel.encodings.segments import Segments
from hwmodel.encodings.two_level import TwoLevel
from hwmodel.errors import BlobError
from hwmodel.select import CANDIDATES, best_encoding
from hwmodel.tensor import DTYPES, TensorSpec

ENCODINGS = [
    *(get_encoding(name) for name in encoding_names()),
    *(get_encoding(name, {"chunk": 24, "align": 8}) for name in encoding_names()),
    *(get_encoding(name, {"chunk": 7, "values": "codebook"}) for name in encoding_names()),
    RunLength(1),
    RunLength(12, chunk=100),
    TwoLevel(4, chunk=10),
    NM(5, 5),
    Block(3, 2, chunk=50),
    EliasFano(0),
    Rice(0, chunk=33),
    Rice(31),
    Segments(5, chunk=33),
]
all_encodings = pytest.mark.parametrize("encoding", ENCODINGS, ids=repr)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, TensorSpec]:
    """Arrays of any dtype, rank and density; values are any bits, NaN and -0.0 among them."""
    dtype = DTYPES[draw(st.sampled_from(sorted(DTYPES)))]
    shape = tuple(draw(st.lists(st.integers(0, 7), min_size=0, max_size=4)))
    name, zero = dtype.name, 0
    if "int" in name:
        bits = 4 if name.endswith("int4") else 8
        low = 0 if name.startswith("u") else -(1 << (bits - 1))
        zero = draw(st.integers(low, low + (1 << bits) - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = int(np.prod(shape))
    bits = rng.integers(0, 256, (size, dtype.itemsize), dtype=np.uint8)
    array = bits.view(dtype).reshape(shape).copy() if size else np.zeros(shape, dtype)
    if dtype.name.endswith("int4"):
        array = (bits.ravel() % 16).view(np.int8).reshape(shape).astype(dtype)
    array[rng.random(shape) > draw(st.sampled_from([0, 0.02, 0.2, 0.7, 1]))] = zero
    return array, TensorSpec("w", shape, dtype.name, zero)


@all_encodings
@given(case=tensors())
@settings(max_examples=30, deadline=None)
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
@settings(max_examples=20, deadline=None)
def test_sizes_are_known_without_encoding(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec]
) -> None:
    array, spec = case
    segments = encoding.encode(array, spec)
    layout = encoding.layout(Codes.of(array, spec))
    assert layout.segment_bytes == {name: len(data) for name, data in segments.items()}
    size = encoding.size(array, spec)
    assert size == layout.size
    assert size.bytes == sum(map(len, segments.values()))
    assert size.payload_bits + size.metadata_bits + size.padding_bits == 8 * size.bytes
    assert min(size.payload_bits, size.metadata_bits, size.padding_bits) >= 0
    gaps = 8 * np.diff(layout.chunk_starts) - layout.payload_bits - layout.metadata_bits
    assert ((gaps >= 0) & (gaps < 8 * encoding.align)).all()
    assert not (layout.chunk_starts % encoding.align).any()


@all_encodings
@given(case=tensors())
@settings(max_examples=15, deadline=None)
def test_each_chunk_decodes_on_its_own(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec]
) -> None:
    array, spec = case
    segments = encoding.encode(array, spec)
    bounds = encoding.chunk_bounds(spec)
    starts = encoding.chunk_bytes(spec, segments, len(segments["data"]))
    assert bounds[-1] == array.size
    assert np.diff(bounds).max(initial=0) <= encoding.granularity(spec)
    stored = array.reshape(spec.rows, spec.columns)
    if encoding.chunked_by == "columns":
        stored = np.ascontiguousarray(stored.T)
    for chunk in range(bounds.size - 1):
        only = {
            **segments,
            "pointers": b"",
            "data": segments["data"][slice(*starts[chunk : chunk + 2])],
        }
        part = encoding.decode_chunk(only, spec, chunk)
        assert part.tobytes() == stored.ravel()[slice(*bounds[chunk : chunk + 2])].tobytes()


@all_encodings
@given(case=tensors(), width=st.integers(1, 9), word_bits=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_cycles_have_the_bounds_that_any_decoder_has(
    encoding: Encoding, case: tuple[np.ndarray, TensorSpec], width: int, word_bits: int
) -> None:
    array, spec = case
    codes = Codes.of(array, spec)
    decoder = DecoderSpec(width=width, word_bits=word_bits, fill=3)
    cycles = encoding.decode_cycles(codes, decoder)
    stored = codes.transposed if encoding.chunked_by == "columns" else codes
    nonzeros = stored.counts(encoding.chunk_bounds(spec))
    assert cycles.shape == nonzeros.shape
    assert cycles.dtype == np.int64
    assert (cycles >= 3 + np.ceil(nonzeros / width)).all()
    wider = encoding.decode_cycles(codes, DecoderSpec(width=width + 1, word_bits=word_bits, fill=3))
    assert (wider <= cycles).all()
    assert decoder.cycles(cycles) == cycles.sum()


@all_encodings
def test_configurations_survive_json(encoding: Encoding) -> None:
    config = json.loads(json.dumps(encoding.to_config()))
    assert get_encoding(encoding.name, config) == encoding


@all_encodings
@given(case=tensors(), data=st.data())
@settings(max_examples=20, deadline=None)
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
