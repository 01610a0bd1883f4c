"""propagate: spikes into the inboxes of the neurons behind (contract, Networks of neurons)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def propagate(
    clock: NDArray[np.uint32],
    words: NDArray[np.uint64],
    rows: NDArray[np.uint32],
    targets: NDArray[np.uint32],
    weights: NDArray[np.int16],
    inbox: NDArray[np.int32],
    *,
    source_count: int,
    target_count: int,
    target_begin: int,
    target_end: int,
    synapse_count: int,
    longest_row: int,
    dense: int,
    step_offset: int,
    step_count: int,
    first_bit: int,
    word_begin: int,
    word_stride: int,
    delay: int,
    slot_count: int,
) -> None:
    """Add the weights of every source that fired in ``step_count`` steps, ``delay`` steps later."""
    fired = words[word_begin + np.arange(source_count) * word_stride]
    for step in range(step_count):
        slot = (int(clock[0]) + step_offset + step + delay) % slot_count
        for source in np.flatnonzero(fired >> np.uint64(first_bit + step) & np.uint64(1)).tolist():
            if dense:
                column = np.arange(target_count)
                weight = weights[source * target_count : (source + 1) * target_count]
            else:
                column = targets[rows[source] : rows[source + 1]].astype(np.int64)
                weight = weights[rows[source] : rows[source + 1]]
            chosen = (column >= target_begin) & (column < target_end)
            np.add.at(inbox, slot * target_count + column[chosen], weight[chosen].astype(np.int32))
