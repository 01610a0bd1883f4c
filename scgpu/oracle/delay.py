"""delay: each stream later by a number of bits, zeros before it (contract, section Delays and faults)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def delay(
    words: NDArray[np.uint64],
    result: NDArray[np.uint64],
    *,
    stream_count: int,
    word_count: int,
    tail_bits: int,
    word_shift: int,
    bit_shift: int,
) -> None:
    """Bit t of a result is bit t - (64 word_shift + bit_shift) of its stream, or 0."""
    total, length, cycles = stream_count * word_count, 64 * (word_count - 1) + tail_bits, 64 * word_shift + bit_shift
    if not total:
        return
    octets = words[:total].reshape(stream_count, word_count).view(np.uint8)
    bits = np.unpackbits(octets, axis=1, bitorder="little")
    late = np.zeros_like(bits)
    if cycles < length:
        late[:, cycles:length] = bits[:, : length - cycles]
    result[:total] = np.packbits(late, axis=1, bitorder="little").view("<u8").reshape(-1)
