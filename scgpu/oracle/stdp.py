"""stdp: synapses that learn by pairs of spikes, and deliver (contract, section Networks of neurons)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpu.oracle.lif import signed


def stdp(
    clock: NDArray[np.uint32],
    source_words: NDArray[np.uint64],
    target_words: NDArray[np.uint64],
    source_traces: NDArray[np.int32],
    target_traces: NDArray[np.int32],
    sources: NDArray[np.uint32],
    targets: NDArray[np.uint32],
    weights: NDArray[np.int16],
    inbox: NDArray[np.int32],
    *,
    source_count: int,
    target_count: int,
    synapse_count: int,
    step_offset: int,
    step_count: int,
    first_bit: int,
    source_word_begin: int,
    source_word_stride: int,
    target_word_begin: int,
    delay: int,
    slot_count: int,
    data_width: int,
    fraction: int,
    a_plus: int,
    a_minus: int,
    w_min: int,
    w_max: int,
    dense: int,
) -> None:
    """Update every weight in each step, then add it to the inbox of ``delay`` steps later where the source fired."""
    least, most = (np.int64(number).astype(np.int32).astype(np.int64) for number in (w_min, w_max))
    if dense:
        source, target = np.divmod(np.arange(synapse_count), target_count)
    else:
        source, target = sources[:synapse_count].astype(np.int64), targets[:synapse_count].astype(np.int64)
    source_bits = source_words[source_word_begin + source * source_word_stride]
    target_bits = target_words[target_word_begin + target]
    w = weights[:synapse_count].astype(np.int64)
    for k in range(step_count):
        pre = source_bits >> np.uint64(first_bit + k) & np.uint64(1) == 1
        post = target_bits >> np.uint64(first_bit + k) & np.uint64(1) == 1
        before = source_traces[k * source_count + source].astype(np.int64)
        behind = target_traces[k * target_count + target].astype(np.int64)
        raised = signed(np.minimum(w + (before * a_plus >> fraction), most), data_width)
        lowered = signed(np.maximum(w - (behind * a_minus >> fraction), least), data_width)
        w = np.where(post, raised, np.where(pre, lowered, w))
        slot = (int(clock[0]) + step_offset + k + delay) % slot_count
        np.add.at(inbox[slot * target_count : (slot + 1) * target_count], target[pre], w[pre].astype(np.int32))
    weights[:synapse_count] = w
