"""drive: what comes into neurons in some steps, from synapses and from outside (contract, Networks of neurons)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def drive(
    clock: NDArray[np.uint32],
    inbox: NDArray[np.int32],
    constants: NDArray[np.int16],
    currents: NDArray[np.int16],
    drives: NDArray[np.int16],
    *,
    neuron_count: int,
    step_offset: int,
    step_count: int,
    slot_count: int,
    constant_stride: int,
    current_neuron_stride: int,
    current_step_count: int,
    row_stride: int,
) -> None:
    """Empty the inbox of ``step_count`` steps into drives[step, neuron], with the currents of these steps."""
    neuron = np.arange(neuron_count)
    for step in range(step_count):
        t = int(clock[0]) + step_offset + step
        begin = t % slot_count * neuron_count
        slot = inbox[begin : begin + neuron_count]
        total = slot + constants[neuron * constant_stride].astype(np.int32)
        if t < current_step_count:
            total += currents[neuron * current_neuron_stride + t]
        drives[step * row_stride + neuron] = np.clip(total, -(2**15), 2**15 - 1)
        slot[:] = 0
