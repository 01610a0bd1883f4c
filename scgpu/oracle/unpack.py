"""unpack: bitstream words into single bits (contract, section Bitstreams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def unpack(
    words: NDArray[np.uint64],
    bits: NDArray[np.uint8],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    first_word: int,
) -> None:
    """bits[t] = (words[t // 64] >> (t % 64)) & 1 in each row."""
    length = 64 * (word_count - 1) + tail_bits
    streams = words[first_word : first_word + stream_count * word_count].reshape(stream_count, word_count)
    rows = bits[: stream_count * length].reshape(stream_count, length)
    for t in range(min(length, 64)):
        places = rows[:, t::64]
        places[:] = streams[:, : places.shape[1]] >> np.uint64(t) & np.uint64(1)
