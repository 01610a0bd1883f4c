"""pack: single bits into bitstream words (contract, section Bitstreams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack(
    bits: NDArray[np.uint8],
    words: NDArray[np.uint64],
    refused: NDArray[np.uint32],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    first_word: int,
) -> None:
    """Bit t of words[t // 64] = bits[t] != 0 in each row; refused[0] = 1 where a byte is neither 0 nor 1."""
    length = 64 * (word_count - 1) + tail_bits
    rows = bits[: stream_count * length].reshape(stream_count, length)
    padded = np.zeros((stream_count, 64 * word_count), np.bool_)
    padded[:, :length] = rows != 0
    out = words[first_word : first_word + stream_count * word_count].reshape(stream_count, word_count)
    out[:] = 0
    for t in range(64):
        out |= padded[:, t::64].astype(np.uint64) << np.uint64(t)
    if (rows > 1).any():
        refused[0] = 1
