"""dense: ones in the products of bitstreams, summed over the inputs (contract, section 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dense(
    weights: NDArray[np.uint64],
    inputs: NDArray[np.uint64],
    counts: NDArray[np.uint32],
    *,
    sample_count: int,
    neuron_count: int,
    row_words: int,
    word_begin: int,
    word_end: int,
    count_offset: int,
    count_stride: int,
    initial: int,
    accumulate: int,
    bipolar: int,
) -> None:
    """base + popcount(AND), or base - popcount(XOR) for bipolar streams; base is there or ``initial``.

    The count of (sample, neuron) lies at ``count_offset + sample * count_stride + neuron``.
    """
    w = weights[: neuron_count * row_words].reshape(neuron_count, row_words)[:, word_begin:word_end]
    x = inputs[: sample_count * row_words].reshape(sample_count, row_words)[:, word_begin:word_end]
    for sample in range(sample_count):
        products = w ^ x[sample] if bipolar else w & x[sample]
        ones = np.bitwise_count(products).sum(axis=1, dtype=np.int64)
        begin = count_offset + sample * count_stride
        out = counts[begin : begin + neuron_count]
        base = out.astype(np.int64) if accumulate else initial
        out[:] = (base - ones if bipolar else base + ones) & 0xFFFF_FFFF
