"""compare: bit t is 1 if and only if number t of the sequence is below T (contract, section Sequences of numbers)."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

ALWAYS = 0xFFFF_FFFF
WORDS_AT_ONCE = 1 << 14  # of a stream, so that long ones fit the memory


def compare(
    thresholds: NDArray[np.uint32],
    places: NDArray[np.uint32],
    sequences: NDArray[np.uint32],
    words: NDArray[np.uint64],
    *,
    sample_count: int,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    period: int,
    sequence_count: int,
    place_stride: int,
    threshold_offset: int,
) -> None:
    """Fill words[sample, stream, w] from thresholds[sample, stream] and the stream's place (sequence, phase)."""
    rows = sequences[: sequence_count * period].reshape(sequence_count, period)
    out = words[: sample_count * stream_count * word_count].reshape(sample_count, stream_count, word_count)
    length = 64 * (word_count - 1) + tail_bits
    for stream, begin in itertools.product(range(stream_count), range(0, word_count, WORDS_AT_ONCE)):
        end = min(begin + WORDS_AT_ONCE, word_count)
        t = np.arange(64 * begin, 64 * end)
        sequence, phase = (int(number) for number in places[2 * stream * place_stride :][:2])
        numbers = rows[sequence, (phase + t) % period]
        for sample in range(sample_count):
            threshold = thresholds[threshold_offset + sample * stream_count + stream]
            bits = ((numbers < threshold) | (threshold == ALWAYS)) & (t < length)
            out[sample, stream, begin:end] = np.packbits(bits, bitorder="little").view("<u8")
