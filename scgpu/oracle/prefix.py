"""prefix: ones among the first positions of a comparator sequence (contract, section Shared weight streams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def prefix(
    words: NDArray[np.uint64],
    order: NDArray[np.uint32],
    entries: NDArray[np.uint64],
    *,
    sample_begin: int,
    sample_count: int,
    input_count: int,
    input_begin: int,
    input_end: int,
    length: int,
    order_bits: int,
    order_stride: int,
) -> None:
    """entries[s, i, k] = 32 bits of a stream at positions order[i, 32 k ...], and the ones before them.

    The stream is that of sample ``sample_begin + s`` and input i. The bits are the entry's lower half,
    the count its upper half.
    """
    word_count, entry_count = (length + 63) // 64, length // 32 + 1
    samples = words[: (sample_begin + sample_count) * input_count * word_count].reshape(-1, input_count, word_count)
    out = entries[: sample_count * input_count * entry_count].reshape(sample_count, input_count, entry_count)
    for i in range(input_begin, input_end):
        if order_bits:
            row = order[(i - input_begin) * order_stride :]
            positions = row.view("<u2" if order_bits == 16 else "<u4")[:length].astype(np.int64)
        else:
            positions = np.arange(length)
        for s in range(sample_count):
            octets = np.ascontiguousarray(samples[sample_begin + s, i]).astype("<u8").view(np.uint8)
            bits = np.zeros(32 * entry_count, np.uint8)
            bits[:length] = np.unpackbits(octets, bitorder="little")[positions]
            groups = bits.reshape(entry_count, 32)
            before = np.cumsum(groups.sum(axis=1, dtype=np.uint64)) - groups.sum(axis=1, dtype=np.uint64)
            out[s, i] = np.packbits(groups, axis=1, bitorder="little").view("<u4")[:, 0] | before << np.uint64(32)
