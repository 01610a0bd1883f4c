"""poisson: Poisson-distributed numbers of weights, added to what arrives at a step (contract, section Networks)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scgpu.oracle.philox import rounds_of


def poisson(
    clock: NDArray[np.uint32],
    thresholds: NDArray[np.uint32],
    inbox: NDArray[np.int32],
    *,
    neuron_count: int,
    block_begin: int,
    block_end: int,
    step_offset: int,
    step_count: int,
    slot_count: int,
    domain: int,
    key_lo: int,
    key_hi: int,
    weight: int,
    entry_count: int,
) -> None:
    """inbox[t % slot_count, i] += weight * n for the neurons of some blocks; n entries are at most the draw."""
    slots = inbox[: slot_count * neuron_count].reshape(slot_count, neuron_count)
    block = np.arange(block_begin, block_end, dtype=np.uint64)
    key = (np.full_like(block, key_lo), np.full_like(block, key_hi))
    for k in range(step_count):
        t = (int(clock[0]) + step_offset + k) & 0xFFFF_FFFF
        counter = (np.full_like(block, t), block, np.zeros_like(block), np.full_like(block, domain))
        slot = slots[t % slot_count, 4 * block_begin : 4 * block_end]
        draws = np.stack(rounds_of(counter, key, 10), axis=-1).reshape(-1)[: slot.size]
        numbers = (draws[:, None] >= thresholds[:entry_count]).sum(axis=1, dtype=np.int64)
        slot[:] = (slot + weight * numbers).astype(np.uint32).view(np.int32)
