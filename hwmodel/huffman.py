"""Canonical Huffman codes of bounded length, lowest bit first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hwmodel.errors import BlobError

if TYPE_CHECKING:
    from numpy.typing import NDArray

LONGEST = 12
"""Bits of the longest code: a decoder's table has 2 to the power of it entries."""


def code_lengths(often: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The best lengths of at most ``LONGEST`` bits (Larmore and Hirschberg, package-merge, 1990).

    Args:
        often: how often each symbol occurs, ``(symbols,)``, at most ``2 ** LONGEST`` of them.

    Returns:
        uint8 ``(symbols,)``; 0 for symbols that do not occur, 1 for one that is alone.
    """
    symbols = np.flatnonzero(often)
    lengths = np.zeros(often.size, np.uint8)
    if symbols.size < 2:
        lengths[symbols] = 1
        return lengths
    order = symbols[np.argsort(often[symbols], kind="stable")]
    leaves = often[order].astype(np.int64)
    weights, levels = leaves, [np.ones(leaves.size, np.bool_)]
    for _ in range(LONGEST - 1):
        pairs = weights[: weights.size // 2 * 2].reshape(-1, 2).sum(axis=1)
        both = np.concatenate([leaves, pairs])
        merged = np.argsort(both, kind="stable")
        weights = both[merged]
        levels.append(merged < leaves.size)
    taken = 2 * leaves.size - 2
    for is_leaf in reversed(levels):
        fresh = int(np.count_nonzero(is_leaf[:taken]))
        lengths[order[:fresh]] += 1
        taken = 2 * (taken - fresh)
    return lengths


def code_words(lengths: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The codes of such lengths, bits reversed so that the first bit of a code is its lowest.

    Codes of one length follow each other in the order of symbols, and shorter ones come first, as
    in DEFLATE (RFC 1951, 3.2.2).
    """
    words = np.zeros(lengths.size, np.uint64)
    code, previous = 0, 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        length = int(lengths[symbol])
        if length:
            code <<= length - previous
            words[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code, previous = code + 1, length
    return words


def decoding_table(lengths: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """For each pattern of as many bits as the longest code: the symbol, and 256 times its bits.

    Raises:
        BlobError: when these are not the lengths of a complete code (or of one symbol alone).
    """
    longest = int(lengths.max(initial=0))
    if longest > LONGEST:
        msg = f"a code of {longest} bits is longer than {LONGEST}"
        raise BlobError(msg)
    used = lengths[lengths > 0].astype(np.int64)
    table = np.zeros(1 << longest, np.uint16)
    filled = int((1 << (longest - used)).sum())
    if filled != table.size and not (used.size == 1 and longest == 1) and used.size:
        msg = "the lengths of codes are not those of a complete prefix code"
        raise BlobError(msg)
    words = code_words(lengths)
    for symbol in np.flatnonzero(lengths):
        length = int(lengths[symbol])
        table[int(words[symbol]) :: 1 << length] = symbol | length << 8
    return table
