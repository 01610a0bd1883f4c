"""trace: known answers, parity, intervals that follow each other, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import assert_parity

import scgpu
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of
from scgpu.stdp import PairStdp
from scgpu.trace import trace_step


def traces_of(
    chosen: scgpu.Device, words: Any, state: Any, rule: PairStdp, amplitude: int, steps: int, first_bit: int = 0
) -> tuple[list[list[int]], list[int]]:
    """Traces (step, neuron) of neurons with one word each, and the state after them."""
    backend = backend_of(chosen)
    buffers = backend.upload(np.array(state, np.int32)), backend.empty("i32", steps * len(words))
    step = trace_step(
        rule,
        backend.upload(np.array(words, np.uint64)),
        *buffers,
        amplitude=amplitude,
        neuron_count=len(words),
        step_count=steps,
        first_bit=first_bit,
        word_begin=0,
        word_stride=1,
    )
    after, traces = backend.execute([step], buffers)
    return traces.reshape(steps, -1).tolist(), after.tolist()


def test_trace_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("trace", chosen, oracle, number=60)


def test_trace_known_answers(chosen: scgpu.Device) -> None:
    # 16 after the spike, then floor(x * 250 / 256); a spike of the last bit is one too
    assert traces_of(chosen, [1], [0], PairStdp(), 16, 4) == ([[16], [15], [14], [13]], [13])
    assert traces_of(chosen, [1 << 63, 1 << 62], [0, 1], PairStdp(), 16, 2, 62) == ([[0, 16], [16, 15]], [16, 15])
    # a decay that rounds down ends at -1, not 0; sums of 4 bits wrap
    assert traces_of(chosen, [0], [-3], PairStdp(decay=128), 16, 3) == ([[-2], [-1], [-1]], [-1])
    assert traces_of(chosen, [3], [0], PairStdp(decay=256, data_width=4), 5, 2) == ([[5], [-6]], [-6])


@pytest.mark.parametrize("amplitude", [16, -(2**15), 2**15])
def test_trace_in_intervals_is_the_trace_of_the_run(amplitude: int, chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(3)
    words = rng.integers(0, 2**64, 40, dtype=np.uint64) & rng.integers(0, 2**64, 40, dtype=np.uint64)
    rule = PairStdp(decay=-200, data_width=13, fraction=7)
    whole, last = traces_of(chosen, words, np.zeros(40), rule, amplitude, 64)
    pieces: list[list[int]] = []
    state: Any = np.zeros(40)
    for begin, end in ((0, 1), (1, 30), (30, 34), (34, 64)):
        piece, state = traces_of(chosen, words, state, rule, amplitude, end - begin, begin)
        pieces += piece
    assert pieces == whole and state == last


def test_trace_rejects_short_buffers(chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    words, state, traces = backend.empty("u64", 9), backend.empty("i32", 5), backend.empty("i32", 10)
    where = {"neuron_count": 5, "step_count": 2, "first_bit": 0, "word_begin": 0, "word_stride": 2}
    step = trace_step(PairStdp(), words, state, traces, amplitude=16, **where)
    backend.execute([step])
    for index, name in enumerate(("words", "state", "traces")):
        buffers = list(step.buffers)
        buffers[index] = backend.empty("u64" if name == "words" else "i32", buffers[index].size - 1)
        with pytest.raises(ValueError, match=f"trace: {name} has {buffers[index].size} elements"):
            backend.execute([Step("trace", step.params, tuple(buffers))])
    with pytest.raises(TypeError, match="trace: state must be i32; got uint64"):
        backend.execute([Step("trace", step.params, (words, words, traces))])
