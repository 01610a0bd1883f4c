"""bitwise: AND, OR, XOR and NOT of bitstreams; NOT keeps the tail zero (contract, section 1)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bitwise(
    left: NDArray[np.uint64],
    right: NDArray[np.uint64],
    result: NDArray[np.uint64],
    *,
    operation: int,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    source_word: int,
    first_word: int,
) -> None:
    """Result words of the operation numbered in `scgpu._abi`."""
    total = stream_count * word_count
    a, b = left[source_word:][:total], right[source_word:][:total]
    out = result[first_word:][:total]
    if operation == 3:
        out[:] = ~a
        out.reshape(stream_count, word_count)[:, -1] &= np.uint64((1 << tail_bits) - 1)
    else:
        out[:] = (np.bitwise_and, np.bitwise_or, np.bitwise_xor)[operation](a, b)
