"""accumulate: the carries of accumulators that bitstreams are added to (contract, section Arithmetic on bitstreams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def accumulate(
    inputs: NDArray[np.uint64],
    numbers: NDArray[np.int32],
    result: NDArray[np.uint64],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    word_begin: int,
    word_end: int,
    input_count: int,
    input_stride: int,
    first_word: int,
    shift: int,
    offset: int,
    scale: int,
    limit: int,
) -> None:
    """Carries of the words ``word_begin .. word_end`` of every stream, and the numbers held after them."""
    blocks = [inputs[k * input_stride * word_count :][: stream_count * word_count] for k in range(input_count)]
    streams = [block.reshape(stream_count, word_count) for block in blocks]
    out = result[first_word:][: stream_count * word_count].reshape(stream_count, word_count)
    held = numbers[:stream_count].astype(np.int64)
    for word in range(word_begin, word_end):
        made = np.zeros(stream_count, np.uint64)
        for t in range(tail_bits if word == word_count - 1 else 64):
            ones = np.zeros(stream_count, np.int64)
            for words in streams:
                ones += (words[:, word] >> np.uint64(t) & np.uint64(1)).astype(np.int64)
            held = np.clip(held + (ones << shift) - offset, -limit, limit)
            full = held >= scale
            held -= scale * full
            made |= full.astype(np.uint64) << np.uint64(t)
        out[:, word] = made
    numbers[:stream_count] = held
