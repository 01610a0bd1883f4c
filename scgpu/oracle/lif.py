"""lif: leaky integrate-and-fire neurons in fixed point (contract, section Neurons)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]


def signed(value: Integers, width: int) -> Integers:
    """The low ``width`` bits of each value as a two's complement number."""
    half = 1 << (width - 1)
    return (value + half) % (2 * half) - half


def masked(value: Integers, width: int) -> Integers:
    """M of the contract: ``width`` bits, of which 16 are kept."""
    return signed(signed(value, width), 16)


def lif(
    parameters: NDArray[np.int16],
    state: NDArray[np.int16],
    currents: NDArray[np.int16],
    noises: NDArray[np.int16],
    words: NDArray[np.uint64],
    spikes: NDArray[np.uint32],
    voltages: NDArray[np.int16],
    counts: NDArray[np.uint32],
    *,
    neuron_count: int,
    step_begin: int,
    step_count: int,
    data_width: int,
    fraction: int,
    parameter_stride: int,
    current_neuron_stride: int,
    current_step_stride: int,
    noise_neuron_stride: int,
    noise_step_stride: int,
    record_words: int,
    word_begin: int,
    first_bit: int,
    row_words: int,
    record_begin: int,
    record_spikes: int,
    spike_stride: int,
    record_voltages: int,
    voltage_stride: int,
) -> None:
    """Advance ``neuron_count`` neurons by ``step_count`` steps and record what is asked for."""
    neuron = np.arange(neuron_count)
    table = parameters[: 6 * parameter_stride].reshape(6, parameter_stride).astype(np.int64)
    leak_k, gain_k, v_rest, v_reset, v_threshold, period = table[:, neuron * (parameter_stride > 1)]
    v, refractory = state[: 2 * neuron_count].reshape(neuron_count, 2).T.astype(np.int64)
    word = np.zeros(neuron_count, np.uint64)
    for step in range(step_count):
        t = step_begin + step
        current = currents[neuron * current_neuron_stride + t * current_step_stride].astype(np.int64)
        noise = noises[neuron * noise_neuron_stride + t * noise_step_stride].astype(np.int64)
        resting = refractory > 0
        difference = masked(v_rest - v, 2 * data_width)
        leak = masked(difference * leak_k >> fraction, data_width)
        drive = masked(current * gain_k >> fraction, data_width)
        reached = masked(v + leak + drive + noise, data_width)
        spike = ~resting & (reached >= v_threshold)
        v = np.where(resting, v_rest, np.where(spike, v_reset, reached))
        refractory = np.where(resting, refractory - 1, np.where(spike, period, refractory))
        counts[:neuron_count] += spike
        word |= spike.astype(np.uint64) << np.uint64(step % 64)
        if record_words and (step % 64 == 63 or step == step_count - 1):
            index = neuron * row_words + word_begin + step // 64
            earlier = words[index] & np.uint64((1 << first_bit) - 1) if first_bit else np.uint64(0)
            words[index] = earlier | word << np.uint64(first_bit)
            word[:] = 0
        if record_spikes:
            spikes[neuron * spike_stride + record_begin + step] = spike
        if record_voltages:
            voltages[neuron * voltage_stride + record_begin + step] = masked(v, data_width)
    state[: 2 * neuron_count].reshape(neuron_count, 2).T[:] = v, refractory
