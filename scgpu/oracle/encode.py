"""encode: bit t of a stream is 1 if and only if U(t) < T (contract, section 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpu.oracle.philox import rounds_of

ALWAYS = 0xFFFF_FFFF
WORDS_AT_ONCE = 1 << 11  # 32-bit words whose 32 numbers U are made together: they fit a second-level cache


def uniforms(
    word: NDArray[np.uint64],
    stream: NDArray[np.uint64],
    sample: NDArray[np.uint64],
    domain: int,
    key_lo: int,
    key_hi: int,
) -> NDArray[np.uint32]:
    """The 32 integers U of each 32-bit stream word, shape (words, 32)."""
    lanes = np.arange(32, dtype=np.uint32)
    u = np.zeros((word.size, 32), np.uint32)
    key = (np.full_like(word, key_lo), np.full_like(word, key_hi))
    for block in range(8):
        counter = (
            np.uint64(8) * word + np.uint64(block),
            stream,
            sample,
            np.full_like(word, domain),
        )
        for draw in rounds_of(counter, key, 10):
            # bit l of draw k is bit 31 - k of U[l]: each draw is the next lower bit of all lanes
            u = u << np.uint32(1) | draw.astype(np.uint32)[:, None] >> lanes & np.uint32(1)
    return u


def encode(
    thresholds: NDArray[np.uint32],
    words: NDArray[np.uint64],
    *,
    sample_count: int,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    first_sample: int,
    first_stream: int,
    first_word: int,
    threshold_offset: int,
    domain: int,
    key_lo: int,
    key_hi: int,
) -> None:
    """Fill words[sample, stream, w] from thresholds[sample, stream]: word first_word + w of the stream."""
    total = 2 * sample_count * stream_count * word_count
    halves = words[: total // 2].view("<u4")
    rows = thresholds[threshold_offset : threshold_offset + sample_count * stream_count]
    for begin in range(0, total, WORDS_AT_ONCE):
        index = np.arange(begin, min(begin + WORDS_AT_ONCE, total), dtype=np.uint64)
        row, word = np.divmod(index, np.uint64(2 * word_count))
        sample, stream = np.divmod(row, np.uint64(stream_count))
        word += np.uint64(2 * first_word)
        u = uniforms(word, stream + np.uint64(first_stream), sample + np.uint64(first_sample), domain, key_lo, key_hi)
        threshold = rows[row.astype(np.int64)][:, None]
        bits = (u < threshold) | (threshold == ALWAYS)
        halves[begin : begin + index.size] = np.packbits(bits, axis=1, bitorder="little").view("<u4")[:, 0]
    last = words[: total // 2].reshape(-1, word_count)[:, -1]
    last &= np.uint64((1 << tail_bits) - 1)
