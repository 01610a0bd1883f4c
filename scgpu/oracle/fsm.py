"""fsm: finite-state machines over bitstreams (contract, section State machines)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def fsm(
    first: NDArray[np.uint64],
    second: NDArray[np.uint64],
    third: NDArray[np.uint64],
    table: NDArray[np.uint32],
    states: NDArray[np.uint32],
    result: NDArray[np.uint64],
    other: NDArray[np.uint64],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    word_begin: int,
    word_end: int,
    input_count: int,
    output_count: int,
    state_count: int,
) -> None:
    """Bits of the words ``word_begin .. word_end`` of every stream, and the states after them."""
    shape = stream_count, word_count
    inputs = [words[: stream_count * word_count].reshape(shape) for words in (first, second, third)[:input_count]]
    outputs = [words[: stream_count * word_count].reshape(shape) for words in (result, other)[:output_count]]
    rows = table[: state_count << input_count].reshape(state_count, 1 << input_count)
    state = states[:stream_count].copy()
    for word in range(word_begin, word_end):
        made = np.zeros((2, stream_count), np.uint64)
        for t in range(tail_bits if word == word_count - 1 else 64):
            symbol = np.zeros(stream_count, np.uint64)
            for place, words in enumerate(inputs):
                symbol |= (words[:, word] >> np.uint64(t) & np.uint64(1)) << np.uint64(place)
            entry = rows[state, symbol]
            state = entry & np.uint32(0xFFFF)
            for place in range(2):
                made[place] |= (entry.astype(np.uint64) >> np.uint64(16 + 8 * place) & np.uint64(1)) << np.uint64(t)
        for place, words in enumerate(outputs):
            words[:, word] = made[place]
    states[:stream_count] = state
