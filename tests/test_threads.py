"""Threads of the CPU: results do not depend on them, and they may change at any time."""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np
import pytest
from test_devices import python

import scgpu
from scgpu._abi import OPS
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of
from scgpu.parity import Case, make_case


def unary_cases(rng: np.random.Generator) -> list[Case]:
    """The same of the operations of uGEMM."""
    params = {"stream_count": 1003, "word_count": 40, "tail_bits": 9, "word_begin": 1, "word_end": 40}
    params |= {"input_count": 3, "input_stride": 1100, "first_word": 70}
    params |= {"shift": 0, "offset": 1, "scale": 1, "limit": 40}
    inputs = rng.integers(0, 2**64, OPS["accumulate"].sizes(*params.values())[0], dtype=np.uint64)
    made = [make_case("accumulate", params, {"inputs": inputs, "numbers": rng.integers(-9, 9, 1003)})]
    for bipolar in (0, 1):
        params = {"stream_count": 1003, "word_count": 100, "tail_bits": 64, "word_begin": 0, "word_end": 100}
        params |= {"period": 200, "bipolar": bipolar, "first_input": 4, "first_weight": 9}
        weights = rng.integers(0, 2**64, (1012, 4), dtype=np.uint64)
        weights[:, -1] &= np.uint64(0xFF)
        arrays = {"inputs": rng.integers(0, 2**64, (1007, 100), dtype=np.uint64), "weights": weights}
        made.append(make_case("conditional", params, {**arrays, "places": rng.integers(0, 200, 2006)}))
    return made


def large_cases() -> list[Case]:
    """Calls of every operation that are worth more than one thread, with odd sizes."""
    rng = np.random.default_rng(0)

    def words(*shape: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
        return rng.integers(0, 2**64, shape, dtype=np.uint64)

    def u32(size: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return rng.integers(0, 2**32, size, dtype=np.uint32)

    encode = {
        "word_count": 17,
        "tail_bits": 5,
        "first_sample": 2**32 - 50,
        "first_stream": 2**32 - 2000,
        "first_word": 2**28 - 17,
        "threshold_offset": 3,
        "domain": 7,
        "key_lo": 1,
        "key_hi": 2,
    }
    dense = {"word_begin": 3, "word_end": 200, "count_offset": 5, "initial": 2**32 - 1, "accumulate": 0, "bipolar": 1}
    made = []
    for samples, streams in ((1, 1001), (37, 29), (2, 501)):
        params = {"sample_count": samples, "stream_count": streams, **encode}
        made.append(make_case("encode", params, {"thresholds": u32(3 + samples * streams)}))
    for samples, neurons in ((1, 3001), (101, 67), (13, 333)):
        params = {"sample_count": samples, "neuron_count": neurons, "row_words": 201, **dense, "count_stride": neurons}
        params = {name: params[name] for name in OPS["dense"].params}
        inputs: dict[str, Any] = {
            "weights": words(neurons * 201),
            "inputs": words(samples * 201),
            "counts": u32(5 + samples * neurons),
        }
        made.append(make_case("dense", params, inputs))
    params = {"block_count": 30_001, "rounds": 10}
    made.append(make_case("philox", params, {"counters": u32(4 * 30_001), "keys": u32(2 * 30_001)}))
    for streams, word_count, segment_words in ((1003, 301, 100), (1, 300_001, 1000)):
        params = {"stream_count": streams, "word_count": word_count, "segment_words": segment_words}
        params["segment_count"] = -(-word_count // segment_words)
        made.append(make_case("count", params, {"words": words(streams, word_count)}))
    # the small ones are shared only with threads that are awake
    for streams, word_count in ((1, 70_001), (1003, 70), (1, 9_001)):
        params = {"stream_count": streams, "word_count": word_count, "tail_bits": 9, "first_word": 3}
        bits = rng.integers(0, 2, OPS["pack"].sizes(*params.values())[0], dtype=np.uint8)
        made.append(make_case("pack", params, {"bits": bits, "refused": np.zeros(1, np.uint32)}))
        made.append(make_case("unpack", params, {"words": words(3 + streams * word_count)}))
    for operation in range(4):
        params = {"operation": operation, "stream_count": 1003, "word_count": 201, "tail_bits": 9}
        params |= {"source_word": 5, "first_word": 7}
        sides = {name: words(5 + 1003 * 201) for name in ("left", "right")}
        made.append(make_case("bitwise", params, sides))
    made += unary_cases(rng)
    late = {"stream_count": 1003, "word_count": 201, "tail_bits": 9, "word_shift": 2, "bit_shift": 7}
    made.append(make_case("delay", late, {"words": words(1003, 201)}))
    lif = {
        "neuron_count": 333,
        "step_begin": 2,
        "step_count": 2301,
        "data_width": 16,
        "fraction": 8,
        "parameter_stride": 333,
        "record_words": 1,
        "word_begin": 1,
        "first_bit": 0,
        "row_words": 38,
        "record_begin": 2,
        "record_spikes": 1,
        "spike_stride": 2305,
        "record_voltages": 1,
        "voltage_stride": 2304,
    }
    table = rng.integers([[10], [200], [-9], [-40], [200], [0]], [[40], [300], [9], [0], [300], [9]], (6, 333))
    for strides in ((1, 0), (2303, 1), (1, 333)):
        params = {**lif, "current_neuron_stride": strides[0], "current_step_stride": strides[1]}
        params |= {"noise_neuron_stride": 0, "noise_step_stride": strides[1]}
        params = {name: params[name] for name in OPS["lif"].params}
        inputs = {
            "parameters": table,
            "state": rng.integers(0, 9, 666),
            "currents": rng.integers(0, 300, 333 * 2303),
            "noises": rng.integers(-9, 9, 333 * 2303),
            "counts": u32(333),
            "words": words(333, 39),
        }
        made.append(make_case("lif", params, inputs))
    made += network_cases(rng)
    poisson = {"domain": 3 << 24, "key_lo": 5, "key_hi": 6, "weight": 2**32 - 7, "entry_count": 21}
    for neurons, steps, slots in ((10_001, 15, 16), (3_003, 9, 4), (40_007, 1, 1)):
        params = {"neuron_count": neurons, "block_begin": 2, "block_end": -(-neurons // 4), "step_offset": 3}
        params |= {"step_count": steps, "slot_count": slots, **poisson}
        inputs = {"clock": u32(1), "thresholds": np.sort(u32(21)), "inbox": rng.integers(0, 9, slots * neurons)}
        made.append(make_case("poisson", params, inputs))
    made += plastic_cases(rng)
    for inputs_of_machine, outputs in ((1, 2), (3, 1)):
        params = {"stream_count": 2003, "word_count": 5, "tail_bits": 9, "word_begin": 0, "word_end": 5}
        params |= {"input_count": inputs_of_machine, "output_count": outputs, "state_count": 19}
        inputs = {name: words(2003, 5) for name in ("first", "second", "third")}
        inputs |= {"states": rng.integers(0, 19, 2003)}
        inputs["table"] = rng.integers(0, 19, 19 << inputs_of_machine) | (u32(19 << inputs_of_machine) & 0x0101_0000)
        made.append(make_case("fsm", params, inputs))
    params = {"element_count": 70_001, "offset": 5, "full_scale": 2**31, "floor": 0}
    made.append(make_case("activation", params, {"counts": u32(70_001)}))
    return made


def network_cases(rng: np.random.Generator) -> list[Case]:
    """Calls of lif, drive and propagate as networks make them; propagate is divided by step, or by target."""
    n_neurons = 7003
    lif = dict.fromkeys(OPS["lif"].params, 0) | {"neuron_count": n_neurons, "step_count": 33, "data_width": 16}
    lif |= {"fraction": 8, "parameter_stride": 1, "current_neuron_stride": 1, "current_step_stride": n_neurons}
    lif |= {"record_words": 1, "row_words": 1, "word_begin": 9, "first_bit": 21}
    inputs: dict[str, Any] = {
        "parameters": np.array([20, 256, 3, -9, 256, 4]),
        "state": rng.integers(-5, 9, 2 * n_neurons),
        "currents": rng.integers(0, 300, 33 * n_neurons),
        "noises": np.zeros(1),
        "words": rng.integers(0, 2**64, n_neurons + 9, dtype=np.uint64),
        "counts": np.zeros(n_neurons),
    }
    made = [make_case("lif", lif, inputs)]
    for steps, slots in ((20, 21), (20, 7)):
        params = {"neuron_count": n_neurons, "step_offset": 5, "step_count": steps, "slot_count": slots}
        params |= {"constant_stride": 1, "current_neuron_stride": 30, "current_step_count": 30, "row_stride": 7004}
        inputs = {"clock": np.array([7]), "inbox": rng.integers(-(2**16), 2**16, slots * n_neurons)}
        inputs |= {
            name: rng.integers(-999, 999, n_neurons * size) for name, size in (("constants", 1), ("currents", 30))
        }
        made.append(make_case("drive", params, inputs))
    sources, targets, row = 3001, 2003, 400
    for steps, slots, dense in ((20, 21, 0), (20, 7, 0), (3, 21, 0), (20, 20, 1), (3, 21, 1)):
        columns = np.sort(np.minimum(rng.integers(0, targets, (sources, row)), rng.integers(1, targets, (sources, 1))))
        params = {"source_count": sources, "target_count": targets, "target_begin": 0, "target_end": targets}
        params |= {"synapse_count": sources * (targets if dense else row), "longest_row": targets if dense else row}
        params |= {"dense": dense, "step_offset": 5, "step_count": steps, "first_bit": 30, "word_begin": 1}
        params |= {"word_stride": 1, "delay": 3, "slot_count": slots}
        inputs = {
            "clock": np.array([77]),
            "words": rng.integers(0, 2**64, sources + 1, dtype=np.uint64) & rng.integers(0, 2**63, dtype=np.uint64),
            "rows": np.arange(0 if dense else sources + 1) * row,
            "targets": columns.reshape(-1)[: 0 if dense else None],
            "weights": rng.integers(-99, 99, params["synapse_count"]),
            "inbox": rng.integers(-99, 99, slots * targets),
        }
        made.append(make_case("propagate", params, inputs))
    return made


def plastic_cases(rng: np.random.Generator) -> list[Case]:
    """Calls of trace and stdp, synapses of the same targets in all parts."""

    def spikes(count: int) -> np.ndarray[Any, Any]:
        return np.where(rng.random(count) < 0.3, rng.integers(0, 2**64, count, dtype=np.uint64), np.uint64(0))

    rule = {"data_width": 14, "fraction": 8}
    trace = {"step_count": 20, "first_bit": 9, "word_begin": 5, "word_stride": 2, **rule, "amplitude": 70, "decay": 250}
    params = {"neuron_count": 20_001, **trace, "trace_stride": 20_001}
    made = [make_case("trace", params, {"words": spikes(40_006), "state": np.zeros(20_001)})]
    for dense in (0, 1):
        synapses = 301 * 333 if dense else 100_001
        params = {"source_count": 301, "target_count": 333, "synapse_count": synapses, "step_offset": 3}
        params |= {"step_count": 9, "first_bit": 40, "source_word_begin": 2, "source_word_stride": 3}
        params |= {"target_word_begin": 1, "delay": 4, "slot_count": 12, **rule, "a_plus": 90, "a_minus": 70}
        params |= {"w_min": 0, "w_max": 900, "dense": dense}
        inputs: dict[str, Any] = {
            "clock": np.array([77]),
            "source_words": spikes(2 + 300 * 3 + 1),
            "target_words": spikes(334),
            "source_traces": rng.integers(0, 500, 9 * 301),
            "target_traces": rng.integers(0, 500, 9 * 333),
            "sources": np.sort(rng.integers(0, 301, 0 if dense else synapses)),
            "targets": rng.integers(0, 333, 0 if dense else synapses),
            "weights": rng.integers(0, 900, synapses),
            "inbox": rng.integers(0, 900, 12 * 333),
        }
        made.append(make_case("stdp", params, inputs))
    return made


@pytest.fixture
def threads() -> Any:
    """Restores the number of threads."""
    before = scgpu.num_threads()
    yield
    scgpu.set_num_threads(before)


@pytest.fixture(scope="module")
def large_results(oracle: Backend) -> list[tuple[Case, list[np.ndarray[Any, Any]]]]:
    """Large cases, and what the oracle makes of them."""
    return [(case, case.run(oracle)) for case in large_cases()]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_threads_change_no_bit(count: int, large_results: list[tuple[Case, list[np.ndarray[Any, Any]]]]) -> None:
    scgpu.set_num_threads(count)
    assert scgpu.num_threads() == count and scgpu.device("cpu").threads == count
    for tier in scgpu.simd_tiers():
        backend = backend_of(scgpu.device(f"cpu:{tier}"))
        for case, expected in large_results:
            for _ in range(3):
                found = case.run(backend)
                assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), case


@pytest.mark.usefixtures("threads")
def test_threads_change_while_others_compute(oracle: Backend) -> None:
    backend = backend_of(scgpu.device("cpu"))
    cases = large_cases()
    expected = [case.run(oracle) for case in cases]
    wrong: list[Case] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            for case, right in zip(cases, expected, strict=True):
                if any((a != b).any() for a, b in zip(case.run(backend), right, strict=True)):
                    wrong.append(case)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for caller in callers:
        caller.start()
    for count in (2, 1, 5, 3, 1, 2, 8, 2) * 6:
        scgpu.set_num_threads(count)
        threading.Event().wait(0.02)
    stop.set()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.usefixtures("threads")
def test_threads_run_every_part_once() -> None:
    # accumulating calls show a part that ran twice or not at all; jobs of changing size follow at once
    scgpu.set_num_threads(4)
    backend = backend_of(scgpu.device("cpu"))
    rng = np.random.default_rng(3)
    jobs = []
    for samples in (13, 25, 61, 200):
        weights = rng.integers(0, 2**64, (16, 500), dtype=np.uint64)
        inputs = rng.integers(0, 2**64, (samples, 500), dtype=np.uint64)
        params = dict.fromkeys(OPS["dense"].params, 0)
        params |= {"sample_count": samples, "neuron_count": 16, "count_stride": 16}
        params |= {"row_words": 500, "word_end": 500, "accumulate": 1}
        ones = np.bitwise_count(weights & inputs[:, None]).sum(axis=-1).ravel()
        jobs.append((params, backend.upload(weights), backend.upload(inputs), ones))
    wrong: list[int] = []

    def work(first: int) -> None:
        for i in range(first, first + 400):
            params, weights, inputs, ones = jobs[i % 4]
            counts = backend.upload(np.zeros(ones.size, np.uint32))
            backend.execute([Step("dense", params, (weights, inputs, counts))] * 3)
            if not np.array_equal(counts, 3 * ones):
                wrong.append(i)

    callers = [threading.Thread(target=work, args=(first,)) for first in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@pytest.mark.usefixtures("threads")
def test_threads_report_a_wrong_bit_from_any_part() -> None:
    scgpu.set_num_threads(3)
    bits = np.zeros(64 * 70_000, np.uint8)
    for t in (0, bits.size // 3, bits.size - 1):
        bits[t] = 2
        with pytest.raises(ValueError, match=rf"got 2 at index \({t},\)"):
            scgpu.pack(bits)
        bits[t] = 0
    assert not scgpu.pack(bits).any()


@pytest.mark.usefixtures("threads")
def test_threads_take_up_small_work_while_they_are_awake() -> None:
    # calls that do not pay for waking a thread, one after the other: soon the threads stay awake for them
    code = """
import numpy as np, scgpu, time
scgpu.set_num_threads(2)
bits = np.zeros(1_000_000, np.uint8)
scgpu.pack(bits)
deadline, shared = time.monotonic() + 60, False
while not shared and time.monotonic() < deadline:
    time.sleep(0.01)  # now the thread sleeps
    begin = time.thread_time(), time.process_time()
    for _ in range(3000):
        scgpu.pack(bits)
    own, all_threads = time.thread_time() - begin[0], time.process_time() - begin[1]
    shared = all_threads > 1.3 * own
print(shared)
"""
    assert python(code, SCGPU_NUM_THREADS="").stdout == "True\n"


@pytest.mark.usefixtures("threads")
def test_threads_leave_when_there_are_too_many() -> None:
    scgpu.set_num_threads(6)
    assert len([t for t in threading.enumerate() if t.name.startswith("scgpu-")]) == 5
    scgpu.set_num_threads(2)
    assert [t.name for t in threading.enumerate() if t.name.startswith("scgpu-")] == ["scgpu-1"]


def test_threads_really_share_the_work() -> None:
    # processor time of other threads shows that they computed; on a busy machine that may take a while
    code = """
import numpy as np, resource, scgpu, threading, time
scgpu.set_num_threads(2)
layer = scgpu.DenseLayer(256, 256, 1024, device="cpu")
x = np.full((256, 256), 0.5)
deadline, shared = time.monotonic() + 60, False
while not shared and time.monotonic() < deadline:
    begin = time.thread_time(), time.process_time()
    for _ in range(20):
        layer.counts(x)
    own, all_threads = time.thread_time() - begin[0], time.process_time() - begin[1]
    shared = all_threads > 1.3 * own
print(shared)
"""
    assert python(code, SCGPU_NUM_THREADS="").stdout == "True\n"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="NOT RUN: only Linux has the pool")
def test_threads_keep_off_the_processor_of_the_caller() -> None:
    code = """
import numpy as np, os, scgpu, threading, time
allowed = os.sched_getaffinity(0)
processors = sorted(allowed)[:2]
scgpu.set_num_threads(2)
layer = scgpu.DenseLayer(256, 256, 1024, device="cpu")
(worker,) = [t.native_id for t in threading.enumerate() if t.name == "scgpu-1"]

def worker_on(caller, expected):
    os.sched_setaffinity(0, {caller})
    deadline = time.monotonic() + 60
    while os.sched_getaffinity(worker) != expected and time.monotonic() < deadline:
        layer.counts(np.full((64, 256), 0.5))
    assert os.sched_getaffinity(worker) == expected, (os.sched_getaffinity(worker), expected)

if len(processors) == 1:
    worker_on(processors[0], allowed)
else:
    for caller in (*processors, processors[0]):
        worker_on(caller, allowed - {caller})
    os.sched_setaffinity(worker, {processors[0]})  # what others decide is the limit from then on
    worker_on(processors[1], {processors[0]})
    worker_on(processors[0], {processors[0]})
print("kept off")
"""
    done = python(code, SCGPU_NUM_THREADS="")
    assert done.stdout == "kept off\n", done.stderr


def test_threads_variable() -> None:
    code = "import scgpu; print(scgpu.num_threads(), scgpu.device('cpu').threads)"
    assert python(code, SCGPU_NUM_THREADS="3").stdout == "3 3\n"
    for bad in ("0", "-1", "many", "1025"):
        done = python(code, SCGPU_NUM_THREADS=bad)
        assert f"SCGPU_NUM_THREADS must be a number from 1 to 1024; got '{bad}'" in done.stderr


def test_threads_after_a_fork_and_at_exit() -> None:
    code = """
import os, numpy as np, scgpu
scgpu.set_num_threads(4)
layer = scgpu.DenseLayer(128, 128, 1024, device="cpu")
x = np.full((64, 128), 0.5)
expected = layer.counts(x)
child = os.fork()
same = all(np.array_equal(layer.counts(x), expected) for _ in range(10))
scgpu.set_num_threads(3)
same = same and np.array_equal(layer.counts(x), expected)
if child == 0:
    os._exit(0 if same else 1)
_, status = os.waitpid(child, 0)
print(same, status)
"""
    done = python(code)
    assert done.stdout == "True 0\n" and done.stderr == "" and done.returncode == 0


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1025, ValueError), (1.5, TypeError)])
def test_threads_rejects(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="n must be"):
        scgpu.set_num_threads(n)
