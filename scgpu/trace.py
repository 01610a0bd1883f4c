"""trace: decaying traces of spikes, for synapses that learn."""

from __future__ import annotations

from typing import Any

from scgpu.backend import Step
from scgpu.stdp import PairStdp


def trace_step(
    rule: PairStdp,
    words: Any,
    state: Any,
    traces: Any,
    *,
    amplitude: int,
    neuron_count: int,
    step_count: int,
    first_bit: int,
    word_begin: int,
    word_stride: int,
) -> Step:
    """The kernel call that makes the traces of a population for the steps of an interval.

    Parameters
    ----------
    rule : PairStdp
        Its decay and number format.
    words : buffer of u64
        Spikes: step k of neuron i is bit ``first_bit`` + k, at most bit 63, of the word
        ``word_begin`` + i * ``word_stride``.
    state : buffer of i32, ``neuron_count`` elements
        The traces before the interval, and after the call those after it; 0 at the start of a run.
    traces : buffer of i32, ``step_count`` * ``neuron_count`` elements
        Receives the trace of each neuron after each step, a row for each step.
    amplitude : int
        What a spike adds: ``rule.a_plus`` for sources, ``abs(rule.a_minus)`` for targets.
    """
    params = {
        "neuron_count": neuron_count,
        "step_count": step_count,
        "first_bit": first_bit,
        "word_begin": word_begin,
        "word_stride": word_stride,
        "data_width": rule.data_width,
        "fraction": rule.fraction,
        "amplitude": amplitude & 0xFFFF_FFFF,
        "decay": rule.decay & 0xFFFF_FFFF,
        "trace_stride": neuron_count,
    }
    return Step("trace", params, (words, state, traces))
