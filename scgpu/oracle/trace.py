"""trace: decaying traces of spikes (contract, section Networks of neurons)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpu.oracle.lif import signed


def trace(
    words: NDArray[np.uint64],
    state: NDArray[np.int32],
    traces: NDArray[np.int32],
    *,
    neuron_count: int,
    step_count: int,
    first_bit: int,
    word_begin: int,
    word_stride: int,
    data_width: int,
    fraction: int,
    amplitude: int,
    decay: int,
    trace_stride: int,
) -> None:
    """traces[k * trace_stride + i] = the trace of neuron i after step k; its spike is bit first_bit + k of its word."""
    added, kept = (np.int64(number).astype(np.int32).astype(np.int64) for number in (amplitude, decay))
    spikes = words[word_begin + np.arange(neuron_count) * word_stride]
    x = state[:neuron_count].astype(np.int64)
    for k in range(step_count):
        fired = spikes >> np.uint64(first_bit + k) & np.uint64(1) == 1
        x = signed(x * kept >> fraction, data_width)
        x = np.where(fired, signed(x + added, data_width), x)
        traces[k * trace_stride : k * trace_stride + neuron_count] = x
    state[:neuron_count] = x
