"""submit and Pending: the values of forward, in any order, from any thread, bounded in memory."""

from __future__ import annotations

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import make_vectors
import numpy as np
import pytest
from test_devices import python

import scgpu
from scgpu import _cpu, _gpu, _gpu_raw, pipeline
from scgpu.backend import Step
from scgpu.devices import backend_of

RNG = np.random.default_rng(3)
OTHER_WEIGHTS = np.linspace(-1, 1, 15).reshape(3, 5)


def network(device: scgpu.Device) -> scgpu.Network:
    sizes = ((6, 5), (5, 3))
    return scgpu.Network([scgpu.DenseLayer(n, m, 100, polarity="bipolar", device=device) for n, m in sizes], "relu")


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
def test_submit_gives_what_forward_gives(polarity: Any, chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, polarity=polarity, max_batch=3, device=chosen)
    for shape in ((6,), (1, 6), (8, 6), (0, 6)):
        x = make_vectors.inputs(shape, polarity)
        pending = layer.submit(x, 9, first_sample=4)
        values = pending.result()
        assert pending.done()
        assert np.array_equal(values, layer.forward(x, 9, 4)) and values.dtype == np.float64
        assert values.shape == (*shape[:-1], 5) == pending.counts().shape
        assert np.array_equal(pending.counts(), layer.counts(x, 9, 4)) and pending.counts().dtype == np.uint64
        assert pending.result() is values and pending.counts() is pending.counts()


def test_submit_of_a_network(chosen: scgpu.Device) -> None:
    net = network(chosen)
    batches = [make_vectors.inputs((n, 6), "bipolar") for n in (3, 1, 7)]
    pending = [net.submit(x, 2, first_sample=5) for x in batches]
    for outputs, x in reversed(list(zip(pending, batches, strict=True))):
        assert np.array_equal(outputs.counts(), net.counts(x, 2, 5))
        assert np.array_equal(outputs.result(), net.forward(x, 2, 5))


def test_submit_copies_its_input(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    x = RNG.random((4, 6))
    expected = layer.counts(x)
    pending = layer.submit(x)
    x[:] = 0.5
    assert np.array_equal(pending.counts(), expected)


def test_submit_rejects_at_once(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    for x, options, error, message in (
        ([2.0] * 6, {}, ValueError, "unipolar x must lie in"),
        ([0.5] * 5, {}, ValueError, "x must have shape"),
        ([0.5] * 6, {"seed": -1}, ValueError, "seed must be"),
        ("abc", {}, TypeError, "x must hold real numbers"),
    ):
        with pytest.raises(error, match=message):
            layer.submit(x, **options)  # type: ignore[arg-type]
    assert layer.submit([0.5] * 6).result().shape == (5,)


def test_outputs_come_in_any_order_from_any_thread(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    batches = [RNG.random((n, 6)) for n in range(1, 30)]
    expected = [layer.counts(x) for x in batches]
    pending = [layer.submit(x) for x in batches]
    order = RNG.permutation(len(batches))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda k: pending[k].counts(), order))
        again = list(pool.map(lambda k: pending[k].counts(), order))
    for k, counts, same in zip(order, found, again, strict=True):
        assert np.array_equal(counts, expected[k]) and same is counts


def test_threads_submit_and_fetch_together(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    x = RNG.random((64, 6))
    expected = layer.counts(x)

    def stream(start: int) -> bool:
        rows = [(start + 7 * k) % 64 for k in range(20)]
        pending = [layer.submit(x[row], first_sample=row) for row in rows]
        return all(np.array_equal(p.counts(), expected[row]) for p, row in zip(pending, rows, strict=True))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(stream, range(6)))


def test_one_pending_for_several_threads(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    for _ in range(5):
        pending = layer.submit(RNG.random((4, 6)))
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _, pending=pending: pending.result(), range(4)))
        assert all(values is found[0] for values in found)


@pytest.mark.parametrize("bound", ["number", "bytes"])
def test_submissions_in_flight_are_bounded(bound: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    backend: Any = backend_of(gpu)
    x = RNG.random((60, 10, 6))
    expected = [layer.counts(batch) for batch in x]
    if bound == "number":
        monkeypatch.setattr(_gpu, "IN_FLIGHT", 3)
    else:
        monkeypatch.setattr(_gpu, "IN_FLIGHT_BYTES", 3 * 10 * 4 * (6 + 5))
    layer.submit(x[0]).result()
    gc.collect()
    owned = len(backend._staging._owned)
    pending, most = [], 0
    for batch in x:
        pending.append(layer.submit(batch))
        most = max(most, len(backend._in_flight))
    assert most == 3 and len(backend._staging._owned) <= owned + 3
    for outputs, counts in zip(pending, expected, strict=True):
        assert np.array_equal(outputs.counts(), counts)
    assert not backend._in_flight


def test_a_submission_above_the_bound_goes_alone(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    monkeypatch.setattr(_gpu, "IN_FLIGHT_BYTES", 10)
    x = RNG.random((3, 4, 6))
    pending = [layer.submit(batch) for batch in x]
    assert [np.array_equal(p.counts(), layer.counts(b)) for p, b in zip(pending, x, strict=True)] == [True] * 3


def test_submit_in_pieces(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(8, 4, 128, device=gpu)
    x = RNG.random((200, 8))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 512)  # 16 samples' thresholds, 4 samples' streams
    monkeypatch.setattr(_gpu, "IN_FLIGHT", 2)
    pending = layer.submit(x)
    assert np.array_equal(pending.counts(), expected)


def test_dropped_outputs_neither_leak_nor_poison(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    backend: Any = backend_of(gpu)
    x = RNG.random((40, 6))
    expected = layer.counts(x)
    for _ in range(20):
        layer.submit(x)
    owned = len(backend._staging._owned), len(backend._storage._owned)
    for _ in range(100):
        layer.submit(x)
        kept = layer.submit(x)
        del kept
    assert np.array_equal(layer.counts(x), expected)
    # How many are on their way together is the machine's to say, up to the bound.
    assert len(backend._staging._owned) <= owned[0] + _gpu.IN_FLIGHT and len(backend._storage._owned) == owned[1]
    assert len(backend._in_flight) <= _gpu.IN_FLIGHT


def test_done_becomes_true_without_a_wait(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(64, 32, 1024, device=gpu)
    pending = layer.submit(RNG.random((10, 64)))
    ends = threading.Event()
    watch = threading.Timer(60, ends.set)
    watch.start()
    while not pending.done() and not ends.is_set():
        pass
    watch.cancel()
    assert pending.done() and pending.result().shape == (10, 32)


@pytest.mark.parametrize("call", ["poll", "wait", "read", "unmap"])
def test_result_after_an_interrupted_wait(call: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    x = RNG.random((4, 6))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    real = getattr(backend._queue, call)

    def interrupted(*arguments: Any) -> Any:
        real(*arguments)
        raise KeyboardInterrupt

    pending = [layer.submit(x) for _ in range(3)]
    monkeypatch.setattr(backend._queue, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        pending[1].result()
    monkeypatch.undo()
    for outputs in (*pending, layer.submit(x)):
        assert np.array_equal(outputs.counts(), expected)
    assert not backend._in_flight


def test_an_interrupt_met_by_a_callback_holds_nothing(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    x = RNG.random((4, 6))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    gc.disable()
    try:
        pending = layer.submit(x)
        monkeypatch.setitem(_gpu_raw._interrupts, threading.get_ident(), KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as caught:
            pending.result()
        flight = backend._in_flight[-1]
        assert flight.wanted
        del caught, pending
        assert not flight.wanted  # a collection of cycles is not needed to give it up
    finally:
        gc.enable()
    assert np.array_equal(layer.counts(x), expected)


def test_a_failure_is_raised_by_result_every_time(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    x = RNG.random((4, 6))
    backend: Any = backend_of(gpu)

    def lost(mapping: Any) -> Any:
        raise RuntimeError("Buffer is invalid")

    pending = layer.submit(x)
    monkeypatch.setattr(backend._queue, "read", lost)
    for _ in range(2):
        with pytest.raises(scgpu.GpuError, match="Buffer is invalid"):
            pending.result()
    monkeypatch.undo()
    assert np.array_equal(layer.submit(x).counts(), layer.counts(x))


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_ctrl_c_anywhere_neither_aborts_nor_hangs_nor_changes_a_bit(gpu: scgpu.Device) -> None:
    code = f"""
import random, signal, sys, threading, time
import numpy as np, scgpu
from scgpu.devices import backend_of
device = scgpu.device({gpu.index})
layers = [scgpu.DenseLayer(8, 4, 100, device=device), scgpu.DenseLayer(64, 32, 1024, device=device)]
batches = [np.random.default_rng(0).random((7, layer.n_inputs)) for layer in layers]
expected = [layer.counts(x) for layer, x in zip(layers, batches)]
end, interrupts, wrong = time.time() + 3, 0, []

def check(k, counts):
    if not np.array_equal(counts, expected[k]):
        wrong.append(k)

def stream():
    while time.time() < end:
        k = random.randrange(2)
        for outputs in [layers[k].submit(batches[k]) for _ in range(10)][::random.choice((-1, 2))]:
            check(k, outputs.counts())

def interrupt(*_):
    raise KeyboardInterrupt

threads = [threading.Thread(target=stream) for _ in range(2)]
signal.signal(signal.SIGALRM, interrupt)
sys.unraisablehook = lambda found: None  # Ctrl-C may meet a finaliser, too
for thread in threads:
    thread.start()
kept = []
while time.time() < end:
    k = random.randrange(2)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-6 + 0.004 * random.random())
        for _ in range(5):
            check(k, layers[k].counts(batches[k]))
            kept.append((k, layers[k].submit(batches[k])))
        signal.setitimer(signal.ITIMER_REAL, 0)
    except KeyboardInterrupt:
        interrupts += 1
    for k, outputs in kept[-5:]:
        check(k, outputs.counts())
    del kept[:-2]
for thread in threads:
    thread.join()
kept.clear()
in_flight, end = backend_of(device)._in_flight, time.time() + 10
while True:  # what was dropped lands with a later call, once the adapter is done with it
    check(0, layers[0].counts(batches[0]))
    if not in_flight or time.time() > end:
        break
assert not wrong and interrupts > 5 and not in_flight, (wrong, interrupts, len(in_flight))
print("fine")
"""
    done = python(code)
    assert done.stdout == "fine\n", done.stderr


def equal_to_oracle(layer: Any, plain: Any, x: Any, seed: int, first_sample: int) -> bool:
    return bool(np.array_equal(layer.counts(x, seed, first_sample), plain.counts(x, seed, first_sample)))


def test_kept_plans_follow_everything_they_depend_on(chosen: scgpu.Device) -> None:
    net, plain = (scgpu.Network(network(device).layers, "clip") for device in (chosen, scgpu.device("numpy")))
    x = make_vectors.inputs((5, 6), "bipolar")
    for seed, first_sample in ((1, 0), (1, 7), (2**64 - 1, 2**32 - 5), (2**33, 0)):
        assert equal_to_oracle(net, plain, x, seed, first_sample)
        assert equal_to_oracle(net, plain, x[:2], seed, first_sample)
    for each in (net, plain):  # new weights in the second layer, whose plans the first one keeps
        each.layers[1].weights = OTHER_WEIGHTS
    assert equal_to_oracle(net, plain, x, 1, 0)
    for each in (net, plain):
        each.activations[0] = scgpu.Activation("relu", 2.0)
    assert equal_to_oracle(net, plain, x, 1, 0)
    for each in (net, plain):
        each.layers[0].max_batch = 2
    assert equal_to_oracle(net, plain, x, 1, 0)
    assert equal_to_oracle(net.layers[0], plain.layers[0], x, 1, 0)  # the first layer alone
    assert equal_to_oracle(net, plain, x[:2], 3, 4)


def test_plans_are_few_and_small(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, plain = (scgpu.DenseLayer(6, 5, 100, device=device) for device in (chosen, scgpu.device("numpy")))
    x = RNG.random((40, 6))
    for batch in (*range(1, 30), 40):
        assert equal_to_oracle(layer, plain, x[:batch], batch, batch)
        assert len(layer.plans) <= pipeline.PLANS
    (plan,) = layer.plans._idle["forward", 40]
    layer.counts(x, 9)
    assert layer.plans._idle["forward", 40] == [plan]
    layer.weights = plain.weights = 1 - layer.weights
    assert not layer.plans
    monkeypatch.setattr(pipeline, "PLAN_BYTES", 1000)
    assert equal_to_oracle(layer, plain, x, 9, 1) and not layer.plans
    monkeypatch.undo()
    layer.max_batch = 39
    assert equal_to_oracle(layer, plain, x, 9, 1) and not layer.plans


@pytest.mark.parametrize("kind", ["independent", "shared"])
def test_plans_of_prepacked_inputs(chosen: scgpu.Device, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, plain = (scgpu.DenseLayer(6, 5, 100, weight_streams=kind, device=d) for d in (chosen, "numpy"))

    def same(x: Any) -> bool:
        streams = scgpu.encode(x, 100, seed=7, device=chosen)
        found = layer.counts_prepacked(streams)
        found[...] = 0  # what a caller does to them stays with the caller
        return bool(np.array_equal(layer.counts_prepacked(streams), plain.counts(x, seed=7)))

    for x in (RNG.random(6), RNG.random((1, 6)), RNG.random((9, 6)), RNG.random(6)):
        assert same(x)
    assert len(layer.plans) == (2 if chosen.kind == "cpu" else 0)
    layer.weights = plain.weights = 1 - layer.weights
    assert len(layer.plans) == 0 and same(RNG.random(6))
    layer = layer.__copy__()
    monkeypatch.setattr("scgpu.dense.PLAN_BYTES", 6 * 16 - 1)
    assert same(RNG.random(6)) and len(layer.plans) == 0


def test_kernels_read_the_array_itself_where_nobody_misses_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cpu, "COPIED_BYTES", 12 * 8 - 1)
    backend = backend_of(scgpu.device("cpu"))
    words, other = RNG.integers(0, 2**64, (2, 6, 2), dtype=np.uint64)
    params = {"stream_count": 6, "word_count": 2, "segment_words": 2, "segment_count": 1}
    ones = [np.bitwise_count(one).sum(axis=1).tolist() for one in (words, other)]

    def counted(array: Any, *, read: bool = False, scratch: bool = True) -> tuple[list[int], bool]:
        source, counts = backend.upload(np.zeros(12, np.uint64)), backend.empty("u32", 6)
        step = Step("count", params, (source, counts))
        program = backend.program([step], [counts, source] if read else [counts], [source, counts] if scratch else [])
        program.submit(source, array)
        found = program.submit(source, array).result()[0]
        assert program.submit(source, other.reshape(-1)).result()[0].tolist() == ones[1]
        return found.tolist(), bool(source.any())

    flat = words.reshape(-1)
    assert counted(flat) == (ones[0], False)
    monkeypatch.setattr(_cpu, "COPIED_BYTES", 12 * 8)
    assert counted(flat) == (ones[0], True)
    monkeypatch.setattr(_cpu, "COPIED_BYTES", 0)
    # as copies: contents that are read or kept, another shape, type or place in memory
    assert counted(flat, read=True) == counted(flat, scratch=False) == (ones[0], True)
    apart = np.zeros(24, np.uint64)
    apart[::2] = flat
    shifted = np.zeros(97, np.uint8)[1:].view(np.uint64)
    shifted[:] = flat
    for copied in (apart[::2], shifted, flat.astype(">u8")):
        assert counted(copied)[0] == ones[0]
    source, counts = backend.upload(np.zeros(12, np.uint64)), [backend.empty("u32", 6), backend.empty("u32", 6)]
    steps = [Step("count", params, (one, out)) for one, out in zip((source, source[:]), counts, strict=True)]
    program = backend.program(steps, counts, [source, *counts])
    assert [out.tolist() for out in program.submit(source, flat).result()] == [ones[0], ones[0]]
    source, out, third = backend.upload(np.zeros(12, np.uint64)), backend.empty("u32", 6), backend.upload(other)
    late = {"stream_count": 6, "word_count": 2, "tail_bits": 64, "word_shift": 0, "bit_shift": 0}
    steps = [Step("count", params, (source, out)), Step("delay", late, (third, source))]
    program = backend.program(steps, [out], [source, out])
    assert program.submit(source, flat).result()[0].tolist() == ones[0]
    assert source.tolist() == third.tolist() and flat.tolist() == words.reshape(-1).tolist()


@pytest.mark.parametrize("packed", [0, 1])
@pytest.mark.parametrize("then", [((2, 5), (1, 0)), ((1, 0), (2, 5))], ids=["the same", "the ones before"])
def test_ctrl_c_while_parameters_change_leaves_no_half(
    packed: int, then: tuple[tuple[int, int], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, plain = (scgpu.Network(network(device).layers, "clip") for device in ("cpu", "numpy"))
    x = make_vectors.inputs((3, 6), "bipolar")
    assert equal_to_oracle(hidden, plain, x, 1, 0)
    backend: Any = backend_of(scgpu.device("cpu"))
    pack, calls = backend._packed, []

    def interrupted(step: Any) -> Any:
        calls.append(step)
        if len(calls) > packed:
            raise KeyboardInterrupt
        return pack(step)

    monkeypatch.setattr(backend, "_packed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hidden.counts(x, 2, 5)
    monkeypatch.undo()
    assert len(calls) == packed + 1
    assert all(equal_to_oracle(hidden, plain, x, seed, first) for seed, first in then)


def test_threads_share_a_layer_and_no_plan(chosen: scgpu.Device) -> None:
    layer, plain = (scgpu.DenseLayer(40, 30, 700, device=device) for device in (chosen, "numpy"))
    given = [RNG.random((1 + k % 2, 40)) for k in range(16)]
    streams = [scgpu.encode(x, 700, seed=42, device=chosen) for x in given]
    expected = [plain.counts(x) for x in given]

    def calls(k: int) -> bool:
        works = (lambda: layer.counts(given[k]), lambda: layer.counts_prepacked(streams[k]))
        return all(np.array_equal(work(), expected[k]) for _ in range(10) for work in works)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(calls, range(16)))
    kept = [plan for plans in layer.plans._idle.values() for plan in plans]
    assert 1 <= len({id(plan.source) for plan in kept}) == len(kept) <= 8 * 4


def test_layers_of_a_plan_are_released_with_it(gpu: scgpu.Device) -> None:
    backend: Any = backend_of(gpu)
    for _ in range(4):
        scgpu.DenseLayer(6, 5, 100, device=gpu).counts(RNG.random(6))
    owned = len(backend._storage._owned)
    for _ in range(20):
        scgpu.DenseLayer(6, 5, 100, device=gpu).counts(RNG.random(6))
    assert len(backend._storage._owned) == owned


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_gives_a_clear_error(gpu: scgpu.Device) -> None:
    code = f"""
import os, numpy as np, scgpu
layer = scgpu.DenseLayer(4, 3, 64, device={gpu.index})
x = np.full((2, 4), 0.5)
fetched, pending = layer.submit(x), layer.submit(x)
values = fetched.result()
child = os.fork()
if child == 0:
    assert fetched.result() is values
    for call in (pending.result, pending.done, lambda: layer.submit(x)):
        try:
            call()
            os._exit(1)
        except scgpu.GpuError as error:
            if "forked process" not in str(error):
                os._exit(2)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert np.array_equal(pending.result(), values)
print("fine")
"""
    done = python(code)
    assert done.stdout == "fine\n", done.stderr
