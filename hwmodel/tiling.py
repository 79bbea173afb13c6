"""From chunks of an encoded tensor to tiles, and the work that each tile is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel.pipeline import TileStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hwmodel.ranges import Ints


def tiles_of_chunks(
    head_bytes: int,
    chunk_starts: Ints,
    decode_clocks: Ints,
    compute_clocks: Ints,
    *,
    lanes: int = 1,
    chunks_per_tile: int | None = None,
) -> TileStream:
    """Tiles of whole chunks that lie one after the other.

    Args:
        head_bytes: what is fetched before the first chunk (headers, tables, pointers).
        chunk_starts: first byte of each chunk behind the head, and the end, ``(chunks + 1,)``.
        decode_clocks: of each chunk in one lane of the decoder, ``(chunks,)``.
        compute_clocks: of each chunk in the compute units, ``(chunks,)``.
        lanes: of the decoder; chunk i of a tile goes to lane ``i % lanes``.
        chunks_per_tile: how many make a tile; one for each lane when None.
    """
    size = chunks_per_tile or lanes
    chunks = decode_clocks.size
    starts = np.arange(0, chunks, size)
    ends = np.minimum(starts + size, chunks)
    begin = chunk_starts[starts] + head_bytes
    begin[:1] = 0
    length = chunk_starts[ends] + head_bytes - begin
    by_lane = _padded(decode_clocks, starts.size, size, lanes)
    compute = _padded(compute_clocks, starts.size, size, 1)
    if not chunks and head_bytes:
        return single_tile(head_bytes, 0, 0)
    return TileStream(
        np.stack([begin, length], axis=1),
        np.arange(1, starts.size + 1),
        by_lane.sum(axis=1).max(axis=1, initial=0),
        compute.sum(axis=(1, 2)),
    )


def single_tile(length: int, decode_clocks: int, compute_clocks: int) -> TileStream:
    """A tensor that is worked on when all of it is there."""
    return TileStream(
        np.array([[0, length]], np.int64),
        np.array([1], np.int64),
        np.array([decode_clocks], np.int64),
        np.array([compute_clocks], np.int64),
    )


def tiles_of_stream(
    length: int, decode_clocks: int, compute_clocks: int, piece_bytes: int
) -> TileStream:
    """Pieces of a tensor that is decoded as it comes, its work spread evenly over its bytes.

    For encodings in one chunk, of which it is not known how much work each byte is.
    """
    offsets = np.arange(0, length, piece_bytes, dtype=np.int64)
    lengths = np.minimum(piece_bytes, length - offsets)
    return TileStream(
        np.stack([offsets, lengths], axis=1),
        np.arange(1, offsets.size + 1),
        _spread(decode_clocks, offsets.size),
        _spread(compute_clocks, offsets.size),
    )


def lane_clocks(nonzero: NDArray[np.bool_], lanes: int, chunk: int) -> Ints:
    """Clocks that compute lanes take for each chunk: those of the lane with most nonzeros.

    A chunk's weights are dealt to the lanes in equal runs of ``ceil(chunk / lanes)``; a lane takes
    one nonzero a clock and skips zeros, so the lanes wait for the fullest.

    Args:
        nonzero: which weights are not zero, flat, in stored order.
        lanes: that work side by side.
        chunk: weights of a chunk; the last may have fewer.
    """
    if lanes < 1 or chunk < 1:
        msg = f"lanes and weights of a chunk must be at least 1, found {lanes} and {chunk}"
        raise ValueError(msg)
    share = -(-chunk // lanes)
    chunks = -(-nonzero.size // chunk)
    dealt = np.zeros((chunks, lanes * share), np.bool_)
    whole = nonzero.size // chunk
    dealt[:whole, :chunk] = nonzero[: whole * chunk].reshape(whole, chunk)
    if whole < chunks:
        dealt[whole, : nonzero.size - whole * chunk] = nonzero[whole * chunk :]
    counts = dealt.reshape(chunks, lanes, share).sum(axis=2, dtype=np.int64)
    fullest: Ints = counts.max(axis=1, initial=0)
    return fullest


def utilisation(nonzero: NDArray[np.bool_], lanes: int, chunk: int) -> float:
    """Share of the compute lanes' clocks in which they work; 1 when nothing is to do."""
    clocks = int(lane_clocks(nonzero, lanes, chunk).sum())
    return int(np.count_nonzero(nonzero)) / (clocks * lanes) if clocks else 1.0


def _spread(total: int, parts: int) -> Ints:
    return np.diff(np.arange(parts + 1, dtype=np.int64) * total // max(1, parts))


def _padded(clocks: Ints, tiles: int, size: int, lanes: int) -> Ints:
    """``(tiles, rounds, lanes)``, zeros where a tile or a round is not full."""
    rounds = -(-size // lanes)
    padded = np.zeros((tiles, size), np.int64)
    padded.ravel()[: clocks.size] = clocks
    full = np.zeros((tiles, rounds * lanes), np.int64)
    full[:, :size] = padded
    return full.reshape(tiles, rounds, lanes)
