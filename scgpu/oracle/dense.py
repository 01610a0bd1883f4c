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
    initial: int,
    accumulate: int,
    bipolar: int,
) -> None:
    """counts[sample, neuron] = base + popcount(AND), or base - popcount(XOR) for bipolar streams."""
    w = weights[: neuron_count * row_words].reshape(neuron_count, row_words)[:, word_begin:word_end]
    x = inputs[: sample_count * row_words].reshape(sample_count, row_words)[:, word_begin:word_end]
    out = counts[count_offset : count_offset + sample_count * neuron_count].reshape(sample_count, neuron_count)
    for sample in range(sample_count):
        products = w ^ x[sample] if bipolar else w & x[sample]
        ones = np.bitwise_count(products).sum(axis=1, dtype=np.int64)
        base = out[sample].astype(np.int64) if accumulate else initial
        out[sample] = (base - ones if bipolar else base + ones) & 0xFFFF_FFFF
