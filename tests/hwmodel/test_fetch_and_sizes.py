from __future__ import annotations

import math

import numpy as np
import pytest

from hwmodel.bits import pack_fields, unpack_fields, width_of
from hwmodel.encodings.bitmask import Bitmask
from hwmodel.encodings.csr import CSR
from hwmodel.encodings.run_length import RunLength
from hwmodel.entropy import entropy_bound_bits
from hwmodel.errors import BlobError
from hwmodel.tensor import TensorSpec


@pytest.mark.parametrize("width", [0, 1, 3, 8, 13, 31, 64])
def test_fields_round_trip(width: int) -> None:
    rng = np.random.default_rng(width)
    numbers = rng.integers(0, 2**width, 101, dtype=np.uint64) if width else np.zeros(101, np.uint64)
    data = pack_fields(numbers, width)
    assert len(data) == math.ceil(101 * width / 8)
    assert np.array_equal(unpack_fields(data, width, 101), numbers)


def test_fields_of_a_wrong_length_or_with_junk_are_refused() -> None:
    with pytest.raises(BlobError, match="take 2 bytes, found 1"):
        unpack_fields(b"\x01", 3, 4)
    with pytest.raises(BlobError, match="not zero"):
        unpack_fields(b"\xff\xff", 3, 4)


def test_width_of() -> None:
    assert [width_of(n) for n in (0, 1, 2, 3, 4, 5, 256, 257)] == [0, 0, 1, 2, 2, 3, 8, 9]


def test_sizes_follow_the_formulas() -> None:
    """The formulas of the literature: bitmask N + nV, CSR, and run length with its fillers."""
    array = np.zeros((8, 64), np.float32)
    array[1, 5] = array[1, 40] = array[7, 63] = 1
    spec = TensorSpec("w", array.shape, "float32")
    assert Bitmask().size(array, spec).metadata_bits == 512
    csr = CSR().size(array, spec)
    assert csr.metadata_bits == 8 + 3 * 6 + 9 * 2  # a byte says how wide pointers are
    positions = [69, 104, 511]
    gaps = [69, 34, 406]
    entries = 3 + sum(gap // 16 for gap in gaps)
    run = RunLength(4).size(array, spec)
    assert positions[-1] == array.size - 1
    assert (run.payload_bits, run.metadata_bits) == (entries * 32, 8 + 10 + entries * 4)


def test_no_encoding_beats_the_entropy_bound_on_random_masks() -> None:
    rng = np.random.default_rng(0)
    for density in (0.02, 0.1, 0.4):
        array = rng.standard_normal((200, 500)).astype(np.float32)
        array[rng.random(array.shape) > density] = 0
        spec = TensorSpec("w", array.shape, "float32")
        bound = entropy_bound_bits(array.size, int(np.count_nonzero(array)), 32) / 8
        for encoding in (Bitmask(), CSR(), RunLength(5)):
            assert encoding.size(array, spec).bytes > bound
