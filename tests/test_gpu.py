"""The GPU backend: persistence, errors that must not abort, forks, small limits."""

from __future__ import annotations

import gc
import importlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from test_devices import python

import scgpu
from scgpu import _abi, _gpu, _gpu_raw, parity
from scgpu.backend import Backend, Step
from scgpu.devices import backend_of


def parameters(op: str, **params: int) -> dict[str, int]:
    return {name: params[name] for name in _abi.OPS[op].params}


def test_buffers_pipelines_and_bind_groups_persist(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(8, 4, 100, device=gpu)
    backend: Any = backend_of(gpu)
    x = np.zeros((4, 8))
    for _ in range(3):
        layer.counts(x)
    gc.collect()
    created: list[int] = []
    make_buffer, make_group = backend._gpu.create_buffer, backend._gpu.create_bind_group
    backend._gpu.create_buffer = lambda **options: created.append(1) or make_buffer(**options)
    backend._gpu.create_bind_group = lambda **options: created.append(2) or make_group(**options)
    try:
        for _ in range(10):
            layer.counts(x)
    finally:
        del backend._gpu.create_buffer, backend._gpu.create_bind_group
    # buffers come back from the pool in changing order, so a few combinations may be new
    assert created.count(1) == 0 and created.count(2) <= 12


def test_pool_is_bounded(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scgpu._gpu.POOL_BYTES", 3 << 20)
    backend: Any = backend_of(gpu)
    pool = _gpu._Pool(backend._gpu, _gpu._STORAGE, 2_500_000)
    assert [pool.capacity(size) for size in (1, 256, 257, 1 << 20, (1 << 20) + 1)] == [256, 256, 512, 1 << 20, 2 << 20]
    assert pool.capacity(2_400_000) == 2_500_000  # never above what can be bound
    taken = [pool.take(1 << 20) for _ in range(5)]
    assert len(set(taken)) == 5 and [pool.give(raw) for raw in taken] == [True] * 3 + [False] * 2
    assert pool._idle_bytes == 3 << 20 and pool._owned == set(taken[:3])
    assert pool.take(1 << 20) is taken[2] and pool._idle_bytes == 2 << 20


def test_dropped_bitstreams_give_their_memory_back(gpu: scgpu.Device) -> None:
    backend: Any = backend_of(gpu)
    for _ in range(3):
        scgpu.encode([0.0], 64 << 14, device=gpu)
    gc.collect()
    owned = len(backend._storage._owned)
    for _ in range(50):
        scgpu.encode([0.0], 64 << 14, device=gpu)
    assert len(backend._storage._owned) == owned


def test_out_of_memory_is_an_error_and_the_layer_lives(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(4, 2, 64, weights=np.ones((2, 4)), device=gpu)
    with pytest.raises(scgpu.TooLargeError, match="bytes are needed in one buffer"):
        backend_of(gpu).empty("u64", 1 << 40)
    with pytest.raises(scgpu.TooLargeError):
        scgpu.DenseLayer(2**12, 2**14, 2**18, weights=None, device=gpu)
    assert layer.forward(np.ones(4)).tolist() == [4.0, 4.0]


def test_small_limits_split_the_batch(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(8, 4, 128, device=gpu)
    x = np.random.default_rng(0).random((50, 8))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", 4096)  # 32 samples' input streams
    monkeypatch.setattr(backend, "_workgroups_per_dimension", 3)
    assert np.array_equal(layer.counts(x), expected)
    monkeypatch.setattr(backend, "largest_buffer", 100)
    with pytest.raises(scgpu.TooLargeError, match=r"n_inputs=8, length=128.*holds 100"):
        layer.counts(x)


@pytest.mark.parametrize("polarity", ["unipolar", "bipolar"])
@pytest.mark.parametrize("largest", [512, 600, 1000, 4096])
def test_small_limits_split_weights_inputs_and_outputs(
    largest: int, polarity: Any, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def network(device: scgpu.Device | str) -> scgpu.Network:
        layers = [
            scgpu.DenseLayer(8, 13, 500, polarity=polarity, device=device),
            scgpu.DenseLayer(13, 5, 200, polarity=polarity, device=device),
        ]
        return scgpu.Network(layers, "relu")

    oracle = network("numpy")
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "largest_buffer", largest)  # a row of the first layer has 512 bytes
    monkeypatch.setattr(backend, "_workgroups_per_dimension", 5)
    net = network(gpu)
    assert len(net.layers[0].streams.parts) == -(-13 // (largest // 512))
    x = 2 * np.random.default_rng(1).random((150, 8)) - 1 if polarity == "bipolar" else np.full((150, 8), 0.3)
    assert np.array_equal(net.counts(x, 5, 9), oracle.counts(x, 5, 9))
    for layer, plain in zip(net.layers, oracle.layers, strict=True):
        assert layer.packed_weights == plain.packed_weights
    first = scgpu.encode(x[0], 500, 3, polarity=polarity, device=gpu)
    assert np.array_equal(net.layers[0].counts_prepacked(first), oracle.layers[0].counts_prepacked(first))


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 65_535])
@pytest.mark.parametrize("workgroups", [1, 2, 3, 4, 9, 10, 27, 49, 343])
def test_grid_covers_and_stays_within_the_limit(
    limit: int, workgroups: int, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "_workgroups_per_dimension", limit)
    if workgroups > limit**3:
        with pytest.raises(scgpu.TooLargeError, match="workgroups"):
            backend._grid(workgroups)
    else:
        grid = backend._grid(workgroups)
        assert workgroups <= np.prod(grid) and max(grid) <= limit


def test_steps_that_do_not_fit_are_refused(chosen: scgpu.Device) -> None:
    backend = backend_of(chosen)
    words, counts = backend.upload(np.zeros(6, np.uint64)), backend.empty("u32", 2)
    good = {"stream_count": 2, "word_count": 3, "segment_words": 3, "segment_count": 1}
    for params, buffers, error, message in [
        ({**good, "stream_count": 3}, (words, counts), ValueError, "words has 6 elements; 9 are needed"),
        ({**good, "segment_count": 2}, (words, counts), ValueError, "counts has 2 elements; 4 are needed"),
        ({**good, "stream_count": -1}, (words, counts), ValueError, r"'stream_count': -1.* does not fit 32 bits"),
        ({**good, "stream_count": 2**32}, (words, counts), ValueError, "does not fit 32 bits"),
        ({"stream_count": 2}, (words, counts), TypeError, "count takes the parameters"),
        (good, (words,), TypeError, "count takes 2 buffers; got 1"),
        (good, (counts, words), TypeError, "words must be u64; got uint32"),
    ]:
        bad: Any = params
        with pytest.raises(error, match=message):
            backend.execute([Step("count", bad, buffers)])
    (out,) = backend.execute([Step("count", good, (words, counts))], [counts])
    assert out.tolist() == [0, 0]


def test_buffers_of_another_backend_are_refused(gpu: scgpu.Device) -> None:
    others = [device for device in scgpu.devices() if device.kind == "gpu" and device != gpu]
    if not others:
        pytest.skip("only one adapter here")
    with pytest.raises(ValueError, match=r"a buffer of .* was given to"):
        backend_of(gpu).execute([], [backend_of(others[0]).empty("u32", 1)])


def interrupting(call: Any) -> Any:
    """The call, interrupted by Ctrl-C right after it, once."""
    pending = [True]

    def interrupted(*arguments: Any) -> Any:
        result = call(*arguments)
        if pending and pending.pop():
            raise KeyboardInterrupt
        return result

    return interrupted


@pytest.mark.parametrize("call", ["write", "record", "submit", "map", "poll", "wait", "read", "unmap"])
def test_interrupted_call_does_not_poison_the_next_one(
    call: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a staging buffer that is pending or mapped must not be used again: wgpu-native would abort
    backend: Any = backend_of(gpu)
    for _ in range(3):
        monkeypatch.setattr(backend._queue, call, interrupting(getattr(backend._queue, call)))
        with pytest.raises(KeyboardInterrupt):
            scgpu.encode([1.0], 64, device=gpu).count()
        monkeypatch.undo()
        for _ in range(3):
            assert scgpu.encode([1.0], 64, device=gpu).count() == 64
    assert not backend._in_flight


def test_interrupt_within_the_callback_is_raised_by_the_wait(
    gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = scgpu.encode([1.0], 64, device=gpu)
    settle = _gpu_raw._settle
    pending = [True]

    def interrupted(*arguments: Any) -> None:
        if pending and pending.pop():
            raise KeyboardInterrupt
        settle(*arguments)

    monkeypatch.setattr(_gpu_raw, "_settle", interrupted)
    with pytest.raises(KeyboardInterrupt):
        streams.count()
    assert streams.count() == 64
    assert not _gpu_raw._mappings and not _gpu_raw._interrupts


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers on this system")
def test_waiting_obeys_signals_and_leaves_the_processor_alone(
    gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend: Any = backend_of(gpu)
    never = _gpu_raw.Readback(backend._queue, 0, None, 4)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    sleep, asleep = time.sleep, [0.0]

    def counted(seconds: float) -> None:
        begin = time.perf_counter()
        try:
            sleep(seconds)
        finally:
            asleep[0] += time.perf_counter() - begin

    monkeypatch.setattr(time, "sleep", counted)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            backend._queue.wait(never)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert asleep[0] > 0.3


def test_a_waiting_thread_does_not_hold_up_the_others(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(8, 4, 100, device=gpu)
    x = np.random.default_rng(0).random((4, 8))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    wait = backend._queue.wait
    waits, goes_on = threading.Event(), threading.Event()
    main = threading.get_ident()

    def slow(mapping: Any) -> None:
        if threading.get_ident() != main:
            waits.set()
            assert goes_on.wait(60)
        wait(mapping)

    monkeypatch.setattr(backend._queue, "wait", slow)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(layer.counts, x)
        assert waits.wait(60)
        for _ in range(3):
            assert np.array_equal(layer.counts(x), expected)
        assert not other.done()
        goes_on.set()
        assert np.array_equal(other.result(60), expected)


def test_many_threads_on_one_adapter(gpu: scgpu.Device) -> None:
    layers = [scgpu.DenseLayer(8, 4, 100, seed, device=gpu) for seed in range(4)]
    x = np.random.default_rng(0).random((30, 8))
    expected = [layer.counts(x, 5) for layer in layers]

    def work(index: int) -> bool:
        return all(np.array_equal(layers[index % 4].counts(x, 5), expected[index % 4]) for _ in range(20))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_refused_recording_and_failed_mapping_are_errors(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = scgpu.encode([1.0], 64, device=gpu)
    backend: Any = backend_of(gpu)
    monkeypatch.setattr(backend, "_grid", lambda workgroups: (1 << 20, 1, 1))
    with pytest.raises(scgpu.GpuError, match=r"run on .*: (.|\n)*1048576"):
        streams.count()
    monkeypatch.undo()
    make_mapping = backend._queue.map

    def failed(*arguments: Any) -> Any:
        mapping = make_mapping(*arguments)
        backend._queue.wait(mapping)
        mapping.status, mapping.message = 3, "Buffer is invalid"
        return mapping

    monkeypatch.setattr(backend._queue, "map", failed)
    with pytest.raises(scgpu.GpuError, match=r"run on .*: Could not map buffer \(Buffer is invalid\)"):
        streams.count()
    monkeypatch.undo()
    for _ in range(3):
        assert streams.count() == 64


def test_another_wgpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wgpu = importlib.import_module("wgpu")
    _gpu_raw._Library()
    monkeypatch.setattr(wgpu, "version_info", (0, 33, 0))
    with pytest.raises(scgpu.GpuError, match=r"not the version .* run: pip install 'wgpu==0\.32\.\*'"):
        _gpu_raw._Library()
    monkeypatch.undo()
    monkeypatch.delattr("wgpu.backends.wgpu_native._api.error_handler")
    with pytest.raises(scgpu.GpuError, match=r"lacks a name .*error_handler.* run: pip install"):
        _gpu_raw._Library()


def test_bitstreams_in_garbage_cycles_do_not_poison_the_pool(gpu: scgpu.Device) -> None:
    # the collector finalises a cycle's objects together; a failure here is an abort of the process
    code = f"""
import gc, numpy as np, scgpu
device = scgpu.device({gpu.index})
for length in range(64, 640, 64):
    cycle = [scgpu.Bitstream.from_words(np.zeros((9, -(-length // 64)), np.uint64), length, device=device)]
    cycle.append(cycle)
    del cycle
    gc.collect()
    assert scgpu.encode([1.0] * 9, length, device=device).count().tolist() == [length] * 9
print("fine")
"""
    done = python(code)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_fork_gives_an_error_for_old_objects_and_works_for_new_ones(gpu: scgpu.Device) -> None:
    code = f"""
import os, scgpu
device = scgpu.device({gpu.index})
streams = scgpu.encode([1.0], 64, device=device)
child = os.fork()
if child == 0:
    try:
        streams.count()
        os._exit(1)
    except scgpu.GpuError as error:
        if "forked process" not in str(error):
            os._exit(2)
    if scgpu.encode([1.0], 64, device="cpu").count() != 64:
        os._exit(3)
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert streams.count() == 64
print("fine")
"""
    done = python(code)
    assert done.stdout == "fine\n", done.stderr


@pytest.mark.parametrize("op", ["philox", "encode", "prefix", "lookup", "poisson"])
def test_every_variant_gives_the_same_bits(op: str, gpu: scgpu.Device, oracle: Backend) -> None:
    # those of dense have tests of their own
    backend: Any = backend_of(gpu)
    for variant in range(len(_abi.OPS[op].variants)):
        for case in parity.cases(op, 20, 3):
            features = {_abi.FEATURES.get(file) for _, file in _abi.OPS[op].files(variant)} - {None}
            admissible = variant in _abi.OPS[op].admissible(case.params, backend.adapter)
            assert admissible == (features <= backend.adapter.features)
            if not admissible:
                continue
            with backend.forced(op, variant):
                assert parity.wrong_words(case, case.run(backend), oracle) == 0, (variant, case)


def test_an_interrupted_start_of_a_device_is_an_interrupt(gpu: scgpu.Device) -> None:
    class Interrupted:
        features = frozenset({_gpu.REQUIRED_FEATURE})

        def request_device_sync(self, **options: Any) -> Any:
            raise AssertionError  # what wgpu-py raises when Ctrl-C met its callback

    with pytest.raises(KeyboardInterrupt):
        _gpu.GpuBackend(gpu, Interrupted())
    assert scgpu.encode([1.0], 64, device=gpu).count() == 64
