"""conditional: an input bit says which place of the weight stream moves on (contract, section Arithmetic)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def conditional(
    inputs: NDArray[np.uint64],
    weights: NDArray[np.uint64],
    places: NDArray[np.uint32],
    result: NDArray[np.uint64],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    word_begin: int,
    word_end: int,
    period: int,
    bipolar: int,
    first_input: int,
    first_weight: int,
) -> None:
    """Products of the words ``word_begin .. word_end`` of every stream, and the places after them."""
    weight_words = -(-period // 64)
    rows = weights[first_weight * weight_words :][: stream_count * weight_words].reshape(stream_count, weight_words)
    at = slice(first_input * word_count, (first_input + stream_count) * word_count)
    x, out = (words[at].reshape(stream_count, word_count) for words in (inputs, result))
    moved = places[: 2 * stream_count].reshape(stream_count, 2)
    stream = np.arange(stream_count)
    for word in range(word_begin, word_end):
        made = np.zeros(stream_count, np.uint64)
        for t in range(tail_bits if word == word_count - 1 else 64):
            zero = (x[:, word] >> np.uint64(t) & np.uint64(1) ^ np.uint64(1)).astype(np.intp)
            place = moved[stream, zero]
            bit = rows[stream, place // 64] >> (place % 64).astype(np.uint64) & np.uint64(1)
            product = np.where(zero, bit ^ np.uint64(1) if bipolar else np.uint64(0), bit)
            made |= product << np.uint64(t)
            if bipolar:
                moved[stream, zero] = (place + 1) % period
            else:
                moved[:, 0] = (moved[:, 0] + (1 - zero)) % period
        out[:, word] = made
