"""stdp: synapses of a projection that learn by pairs of spikes, and deliver what they have learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scgpu import arguments
from scgpu.backend import Step
from scgpu.lif import HIGH, LOW, Format


@dataclass(frozen=True)
class PairStdp:
    """How the synapses of a projection learn: pairs of spikes, exponential traces, fixed point.

    Each step does to a synapse exactly what `StdpSynapse.step` does, ``pre`` being a spike of
    the source in that step and ``post`` one of the target; the delay of the projection plays no part
    in the pairing. A spike of the source delivers the weight after the update of its own step.

    Parameters
    ----------
    a_plus, a_minus : int
        What a spike adds to the trace of the source and of the target; -32768 to 32767. The sign of
        ``a_minus`` does not matter. A negative ``a_plus`` makes a spike of the target depress.
    decay : int
        Share of a trace that is left after a step, times 2**fraction; -32768 to 32767.
    w_min, w_max : int
        Least weight after a depression, largest after a potentiation; -32768 to 32767.
    data_width : int
        Bits of a number, 1 to 16.
    fraction : int
        Bits that a product is shifted to the right, 0 to 31.

    Raises
    ------
    ValueError
        A number out of range, or ``w_min`` above ``w_max``.
    TypeError
        Something that is no integer.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.PairStdp(a_plus=64, a_minus=48, w_max=1000).decay
    250
    """

    a_plus: int = 16
    a_minus: int = 16
    decay: int = 250
    w_min: int = 0
    w_max: int = 32767
    data_width: int = 16
    fraction: int = 8

    def __post_init__(self) -> None:
        checked = {name: arguments.integer(name, getattr(self, name), LOW, HIGH) for name in ("a_plus", "a_minus")}
        checked["decay"] = arguments.integer("decay", self.decay, LOW, HIGH)
        checked["w_min"] = arguments.integer("w_min", self.w_min, LOW, HIGH)
        checked["w_max"] = arguments.integer("w_max", self.w_max, checked["w_min"], HIGH)
        checked |= Format.checked(self.data_width, self.fraction)._asdict()
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # numbers of NumPy become Python's


def stdp_step(
    rule: PairStdp,
    clock: Any,
    words: tuple[Any, Any],
    traces: tuple[Any, Any],
    synapses: tuple[Any, Any],
    weights: Any,
    inbox: Any,
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
    dense: bool,
) -> Step:
    """The kernel call that makes the synapses of a projection learn and deliver in the steps of an interval.

    Parameters
    ----------
    rule : PairStdp
        How they learn.
    clock : buffer of u32, 1 element
        The absolute step t of the interval is its number, plus ``step_offset``, plus k; below 2**32.
    words : pair of buffers of u64
        Spikes of the sources and of the targets: step k is bit ``first_bit`` + k, at most bit 63, of
        the words ``source_word_begin`` + i * ``source_word_stride`` and ``target_word_begin`` + i.
    traces : pair of buffers of i32
        What `scgpu.trace.trace_step` made for the sources and for the targets in these steps.
    synapses : pair of buffers of u32
        Source and target of each synapse, sources never falling. Where ``dense`` they are not read,
        may be empty, and synapse s leads from source s // target_count to target s % target_count.
    weights : buffer of i16, ``synapse_count`` elements
        The weights before the interval, and after the call those after it.
    inbox : buffer of i32, ``slot_count`` * ``target_count`` elements
        A spike of the source in step t adds the weight to row (t + ``delay``) % ``slot_count``;
        ``delay`` is at most ``slot_count``.
    """
    params = {
        "source_count": source_count,
        "target_count": target_count,
        "synapse_count": synapse_count,
        "step_offset": step_offset,
        "step_count": step_count,
        "first_bit": first_bit,
        "source_word_begin": source_word_begin,
        "source_word_stride": source_word_stride,
        "target_word_begin": target_word_begin,
        "delay": delay,
        "slot_count": slot_count,
        "data_width": rule.data_width,
        "fraction": rule.fraction,
        "a_plus": abs(rule.a_plus),
        "a_minus": abs(rule.a_minus),
        "w_min": rule.w_min & 0xFFFF_FFFF,
        "w_max": rule.w_max & 0xFFFF_FFFF,
        "dense": int(dense),
    }
    return Step("stdp", params, (clock, *words, *traces, *synapses, weights, inbox))
