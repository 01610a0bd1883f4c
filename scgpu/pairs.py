"""pairs: ones that streams of two tensors have in common, all rows of one with all of the other."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

from scgpu._abi import PASS_WORDS
from scgpu.bitstream import Bitstream, Part
from scgpu.errors import TooLargeError
from scgpu.weights import dense_step


def pair_counts(a: Bitstream, b: Bitstream, row_streams: int = 1) -> NDArray[np.int64]:
    """Ones of a AND b, summed over a row of ``row_streams`` streams: int64 (rows of a, rows of b).

    Computed by operation dense on the device of ``a``. The streams have one length.

    Raises
    ------
    TooLargeError
        A count that could pass 2**32 - 1, or a row or the counts do not fit a buffer of the device.
    """
    if row_streams * a.length > 2**32 - 1:
        raise TooLargeError(
            f"{row_streams} streams of length={a.length} are {row_streams * a.length} bits: a count could pass "
            "2**32 - 1. Use shorter streams."
        )
    b = b._on(a._backend)
    counts = np.empty((math.prod(a.shape) // row_streams, math.prod(b.shape) // row_streams), np.int64)
    if counts.size:
        for mine, theirs in product(a._parts, b._parts):
            rows = slice(mine.begin // row_streams, mine.end // row_streams)
            columns = slice(theirs.begin // row_streams, theirs.end // row_streams)
            counts[rows, columns] = _counts_of_parts(a, mine, theirs, row_streams)
    return counts


def _counts_of_parts(a: Bitstream, mine: Part, theirs: Part, row_streams: int) -> NDArray[np.uint32]:
    """Counts of the rows of two buffers, shape (rows of mine, rows of theirs)."""
    backend = a._backend
    if (mine.end - mine.begin) % row_streams or (theirs.end - theirs.begin) % row_streams:
        raise TooLargeError(
            f"a row of {row_streams} streams of length={a.length} does not fit a buffer of {a.device}; "
            'use shorter streams or device="cpu"'
        )
    n_mine, n_theirs = (mine.end - mine.begin) // row_streams, (theirs.end - theirs.begin) // row_streams
    counts = backend.empty("u32", n_mine * n_theirs)
    row_words = row_streams * -(-a.length // 64)
    steps = [
        dense_step(
            theirs.buffer,
            mine.buffer,
            counts,
            sample_count=n_mine,
            neuron_count=n_theirs,
            row_words=row_words,
            word_begin=begin,
            word_end=min(begin + PASS_WORDS, row_words),
            accumulate=begin > 0,
        )
        for begin in range(0, row_words, PASS_WORDS)
    ]
    (out,) = backend.execute(steps, [counts])
    return out.reshape(n_mine, n_theirs)
