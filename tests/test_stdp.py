"""stdp: a run equals StdpSynapse step by step; parity, cuts into intervals, refusals."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import assert_parity
from hypothesis import given
from hypothesis import strategies as st

import scgpu
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of
from scgpu.parity import make_case, wrong_words
from scgpu.stdp import PairStdp, stdp_step
from scgpu.trace import trace_step

Array = np.ndarray[Any, Any]


class Synapses(NamedTuple):
    """Synapses of one projection: source, target and weight of each, all pairs where dense."""

    sources: Array
    targets: Array
    weights: Array
    dense: bool

    @classmethod
    def made(cls, rng: np.random.Generator, n_sources: int, n_targets: int, dense: bool) -> Synapses:
        """Random ones: all pairs, or about half of them."""
        pairs = np.arange(n_sources * n_targets)
        if not dense:
            pairs = pairs[rng.random(pairs.size) < 0.5]
        sources, targets = np.divmod(pairs, n_targets)
        return cls(sources, targets, rng.integers(-300, 300, pairs.size).astype(np.int16), dense)


def pack(spikes: Array) -> Array:
    """Words (block, neuron) of spikes (step, neuron)."""
    padded = np.pad(spikes, ((0, -len(spikes) % 64), (0, 0)))
    octets = np.packbits(padded.reshape(-1, 64, spikes.shape[1]).transpose(0, 2, 1), axis=2, bitorder="little")
    return np.ascontiguousarray(octets).view("<u8")[..., 0]


def run(
    chosen: scgpu.Device, rule: PairStdp, synapses: Synapses, spikes: tuple[Array, Array], delay: int, cuts: list[int]
) -> tuple[Array, Array]:
    """Weights, and what arrives at each target in each of the steps and ``delay`` more."""
    backend = backend_of(chosen)
    counts = [side.shape[1] for side in spikes]
    words = [backend.upload(pack(side).reshape(-1)) for side in spikes]
    states = [backend.upload(np.zeros(count, np.int32)) for count in counts]
    joined: Any = tuple(
        backend.upload(np.zeros(0, np.uint32) if synapses.dense else ends.astype(np.uint32)) for ends in synapses[:2]
    )
    slots = len(spikes[0]) + delay
    weights = backend.upload(synapses.weights.copy())
    inbox = backend.upload(np.zeros(slots * counts[1], np.int32))
    steps = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        traces = tuple(backend.empty("i32", (end - begin) * count) for count in counts)
        interval = {"step_count": end - begin, "first_bit": begin % 64}
        begins = [begin // 64 * count for count in counts]
        for side, amplitude in enumerate((rule.a_plus, abs(rule.a_minus))):
            steps.append(
                trace_step(
                    rule,
                    words[side],
                    states[side],
                    traces[side],
                    amplitude=amplitude,
                    neuron_count=counts[side],
                    word_begin=begins[side],
                    word_stride=1,
                    **interval,
                )
            )
        steps.append(
            stdp_step(
                rule,
                backend.upload(np.array([begin - begin % 3], np.uint32)),
                (words[0], words[1]),
                traces,  # type: ignore[arg-type]
                joined,
                weights,
                inbox,
                source_count=counts[0],
                target_count=counts[1],
                synapse_count=synapses.weights.size,
                step_offset=begin % 3,
                source_word_begin=begins[0],
                source_word_stride=1,
                target_word_begin=begins[1],
                delay=delay,
                slot_count=slots,
                dense=synapses.dense,
                **interval,
            )
        )
    learnt, arrived = backend.execute(steps, [weights, inbox])
    return learnt, arrived.reshape(slots, counts[1])


def expected(rule: PairStdp, synapses: Synapses, spikes: tuple[Array, Array], delay: int) -> tuple[Array, Array]:
    """The same from arrays of `StdpSynapse`."""
    learning = scgpu.StdpSynapse(synapses.weights, rule.data_width, rule.fraction)
    arrived = np.zeros((len(spikes[0]) + delay, spikes[1].shape[1]), np.int32)
    for t, (before, behind) in enumerate(zip(*spikes, strict=True)):
        pre, post = before[synapses.sources], behind[synapses.targets]
        learning.step(pre, post, rule.a_plus, rule.a_minus, rule.decay, rule.w_min, rule.w_max)
        np.add.at(arrived[t + delay], synapses.targets[pre], np.asarray(learning.weight)[pre])
    return np.asarray(learning.weight), arrived


def test_stdp_parity(chosen: scgpu.Device, oracle: Backend) -> None:
    assert_parity("stdp", chosen, oracle, number=80)


RULES = [
    PairStdp(),
    PairStdp(a_plus=100, a_minus=-80, w_min=-50, w_max=250),
    PairStdp(a_plus=-90, a_minus=120, decay=-230, w_min=-300, w_max=300),
    PairStdp(a_plus=-(2**15), a_minus=-(2**15), decay=2**15 - 1, w_min=-(2**15), fraction=15),
    PairStdp(a_plus=2**15 - 1, a_minus=2**15 - 1, decay=-3, w_min=-(2**15), fraction=0),
    PairStdp(a_plus=3, a_minus=2, decay=60, w_min=-9, w_max=5, data_width=4, fraction=6),
    PairStdp(a_plus=0, a_minus=0, w_min=-200, w_max=-100, data_width=5),
    PairStdp(a_plus=2**15 - 1, a_minus=1, decay=2**15 - 1, fraction=31),
]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=range(len(RULES)))
def test_stdp_run_matches_stdp_synapse(rule: PairStdp, dense: bool, chosen: scgpu.Device) -> None:
    rng = np.random.default_rng(5)
    synapses = Synapses.made(rng, 9, 70, dense)
    spikes = rng.random((130, 9)) < 0.05, rng.random((130, 70)) < 0.05
    spikes[0][:, 3:7] = False  # sources without a trace
    learnt, arrived = run(chosen, rule, synapses, spikes, 15, [0, 15, 20, 64, 128, 130])
    right, right_arrived = expected(rule, synapses, spikes, 15)
    assert np.array_equal(learnt, right) and np.array_equal(arrived, right_arrived)
    assert not np.array_equal(learnt, synapses.weights)


@given(
    sizes=st.tuples(st.integers(1, 8), st.integers(1, 70)),
    steps=st.integers(1, 100),
    rates=st.tuples(st.sampled_from((0.01, 0.1, 0.7)), st.sampled_from((0.01, 0.1, 0.7))),
    dense=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_stdp_does_not_depend_on_the_cuts(
    chosen: scgpu.Device,
    sizes: tuple[int, int],
    steps: int,
    rates: tuple[float, float],
    dense: bool,
    seed: int,
    data: st.DataObject,
) -> None:
    rng = np.random.default_rng(seed)
    a_plus, a_minus, decay = (int(number) for number in rng.integers(-400, 400, 3))
    rule = PairStdp(a_plus, a_minus, decay, w_min=-400, w_max=250, data_width=int(rng.integers(6, 17)))
    synapses = Synapses.made(rng, *sizes, dense)
    spikes = rng.random((steps, sizes[0])) < rates[0], rng.random((steps, sizes[1])) < rates[1]
    cuts = sorted({0, steps, *range(64, steps, 64), *data.draw(st.lists(st.integers(0, steps), max_size=5))})
    learnt, arrived = run(chosen, rule, synapses, spikes, 64, cuts)
    right, right_arrived = expected(rule, synapses, spikes, 64)
    assert np.array_equal(learnt, right) and np.array_equal(arrived, right_arrived)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize(
    ("weight", "learnt", "rule"),
    [
        (300, 200, PairStdp(w_max=200)),
        (200, 200, PairStdp(w_max=200)),
        (-300, -300, PairStdp(w_max=200)),
        (20, 4, PairStdp(w_max=200, data_width=4)),
        (-20, -4, PairStdp(w_max=200, data_width=4)),
        (-100, -4, PairStdp(w_min=-200, w_max=-100, data_width=5)),
    ],
)
def test_stdp_cuts_weights_of_sources_without_a_trace(
    weight: int, learnt: int, rule: PairStdp, dense: bool, chosen: scgpu.Device
) -> None:
    for count in (1, 128):  # one weight among others, and all of them
        weights = np.ones(128, np.int16) if rule.w_max > 0 else np.full(128, -5, np.int16)
        weights[-count:] = weight
        synapses = Synapses(np.zeros(128, np.int64), np.arange(128), weights, dense)
        spikes = np.zeros((2, 1), np.bool_), np.zeros((2, 128), np.bool_)
        spikes[1][1, 127] = True
        found, arrived = run(chosen, rule, synapses, spikes, 1, [0, 2])
        assert found[127] == learnt and np.array_equal(found[:127], weights[:127]) and not arrived.any()


@pytest.mark.parametrize("dense", [False, True])
def test_stdp_of_more_targets_than_a_filter_has_bits(dense: bool, chosen: scgpu.Device, oracle: Backend) -> None:
    # the Zig kernel marks 2**18 targets that fired; those beyond share their marks
    targets = 2**18 + 777
    rng = np.random.default_rng(6)
    step = stdp_step(
        PairStdp(w_max=300),
        *[None, (None, None), (None, None), (None, None), None, None],
        source_count=2,
        target_count=targets,
        synapse_count=2 * targets if dense else 30_001,
        step_offset=0,
        step_count=3,
        first_bit=31,
        source_word_begin=0,
        source_word_stride=1,
        target_word_begin=0,
        delay=1,
        slot_count=2,
        dense=dense,
    )
    ends = 0 if dense else 30_001
    inputs: dict[str, Any] = {
        "clock": np.array([7]),
        "source_words": np.array([0, 1 << 32], np.uint64),
        "target_words": np.where(rng.random(targets) < 0.01, np.uint64(1 << 33), np.uint64(0)),
        "source_traces": np.full(6, 1000),
        "target_traces": np.full(3 * targets, 500),
        "sources": np.arange(ends) // 15_000,
        "targets": rng.integers(0, targets, ends),
        "weights": rng.integers(0, 400, step.params["synapse_count"]),
        "inbox": np.zeros(2 * targets),
    }
    inputs["sources"][-1:] = 1
    case = make_case("stdp", dict(step.params), inputs)
    assert wrong_words(case, case.run(backend_of(chosen)), oracle) == 0


def test_stdp_of_no_synapses(chosen: scgpu.Device) -> None:
    none = np.zeros(0, np.int64)
    spikes = np.ones((3, 2), np.bool_), np.ones((3, 5), np.bool_)
    learnt, arrived = run(chosen, PairStdp(), Synapses(none, none, none.astype(np.int16), False), spikes, 1, [0, 3])
    assert learnt.size == 0 and not arrived.any()


def test_pair_stdp_holds_python_integers() -> None:
    rule = PairStdp(a_plus=np.int16(3), w_max=np.int64(9))  # type: ignore[arg-type]
    assert rule == PairStdp(3, w_max=9) and type(rule.a_plus) is int and hash(rule) == hash(PairStdp(3, w_max=9))
    assert PairStdp() == PairStdp(16, 16, 250, 0, 32767, 16, 8)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"a_plus": 2**15}, ValueError, "a_plus must be from -32768 to 32767; got 32768"),
        ({"a_minus": 1.5}, TypeError, "a_minus must be an integer from -32768 to 32767; got 1.5"),
        ({"decay": -(2**15) - 1}, ValueError, "decay must be from -32768 to 32767; got -32769"),
        ({"w_min": True}, TypeError, "w_min must be an integer"),
        ({"w_min": 5, "w_max": 4}, ValueError, "w_max must be from 5 to 32767; got 4"),
        ({"data_width": 17}, ValueError, "data_width must be from 1 to 16; got 17"),
        ({"fraction": -1}, ValueError, "fraction must be from 0 to 31; got -1"),
    ],
)
def test_pair_stdp_rejects(given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PairStdp(**given)


def test_stdp_rejects_short_buffers(chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    words, traces = backend.upload(np.zeros(4, np.uint64)), backend.upload(np.zeros(8, np.int32))
    ends, weights = backend.upload(np.zeros(6, np.uint32)), backend.upload(np.zeros(6, np.int16))
    step = stdp_step(
        PairStdp(),
        backend.upload(np.zeros(1, np.uint32)),
        (words, words),
        (traces, traces),
        (ends, ends),
        weights,
        backend.upload(np.zeros(8, np.int32)),
        source_count=2,
        target_count=4,
        synapse_count=6,
        step_offset=0,
        step_count=2,
        first_bit=0,
        source_word_begin=1,
        source_word_stride=2,
        target_word_begin=0,
        delay=1,
        slot_count=2,
        dense=False,
    )
    backend.execute([step])
    for index, (name, least) in enumerate(
        {
            "clock": 1,
            "source_words": 4,
            "target_words": 4,
            "source_traces": 4,
            "target_traces": 8,
            "sources": 6,
            "targets": 6,
            "weights": 6,
            "inbox": 8,
        }.items()
    ):
        buffers = list(step.buffers)
        buffers[index] = backend.upload(np.zeros(least - 1, buffers[index].dtype))
        with pytest.raises(ValueError, match=f"stdp: {name} has {least - 1} elements; {least} are needed"):
            backend.execute([Step("stdp", step.params, tuple(buffers))])
