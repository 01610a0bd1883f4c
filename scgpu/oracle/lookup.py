"""lookup: products with shared weight streams by rank (contract, section Shared weight streams)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def lookup(
    ranks: NDArray[np.uint32],
    entries: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    *,
    sample_count: int,
    neuron_count: int,
    input_count: int,
    input_begin: int,
    input_end: int,
    length: int,
    rank_bits: int,
    rank_stride: int,
    count_offset: int,
    count_stride: int,
    initial: int,
    accumulate: int,
    bipolar: int,
) -> None:
    """base + ones of AND, or base - ones of XOR for bipolar streams; base is there or ``initial``.

    AND of a stream with the weight of rank r has as many ones as the stream among the first r
    positions; XOR has r, plus the stream's ones, less twice that.
    """
    entry_count = length // 32 + 1
    table = entries[: sample_count * input_count * entry_count].reshape(sample_count, input_count, entry_count)
    for sample in range(sample_count):
        ones = np.zeros(neuron_count, np.int64)
        for i in range(input_begin, input_end):
            row = ranks[i * rank_stride :].view("<u2" if rank_bits == 16 else "<u4")
            rank = row[:neuron_count].astype(np.uint64)
            entry = table[sample, i][rank // np.uint64(32)]
            first = entry & ((np.uint64(1) << rank % np.uint64(32)) - np.uint64(1))
            both = (entry >> np.uint64(32)).astype(np.int64) + np.bitwise_count(first)
            last = table[sample, i, -1]
            total = int(last >> np.uint64(32)) + int(last & np.uint64(0xFFFF_FFFF)).bit_count()
            ones += rank.astype(np.int64) + total - 2 * both if bipolar else both
        begin = count_offset + sample * count_stride
        out = counts[begin : begin + neuron_count]
        base = out.astype(np.int64) if accumulate else initial
        out[:] = (base - ones if bipolar else base + ones) & 0xFFFF_FFFF
