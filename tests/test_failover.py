"""A GPU that goes away at any moment: the call is finished elsewhere, with the same bits."""

from __future__ import annotations

import gc
import importlib
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scgpu
from scgpu import _gpu, failover
from scgpu.devices import backend_of, restart_device
from scgpu.failover import FailoverBackend

pytestmark = pytest.mark.filterwarnings("always::scgpu.errors.DeviceLossWarning")

RNG = np.random.default_rng(20)
X = RNG.random((7, 40))
Break = Callable[[Any, pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def restarted() -> Iterator[None]:
    """Devices that work, before and after."""
    yield
    for device in scgpu.devices():
        if device.kind == "gpu":
            with suppress(scgpu.DeviceLostError):  # nobody may have noticed yet
                backend_of(device).upload(np.zeros(1, np.uint32))
            restart_device(device)
    gc.collect()


def layer_on(device: Any, **options: Any) -> scgpu.DenseLayer:
    return scgpu.DenseLayer(40, 30, 500, device=device, **options)


EXPECTED = layer_on("numpy").counts(X)


def destroy_now(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend._gpu.destroy()


def destroy_around(name: str, after: bool) -> Break:
    """Destroy the device just before or after the next call of a method of its queue."""

    def arm(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        method = getattr(backend._queue, name)

        def broken(*arguments: Any) -> Any:
            if not after:
                backend._gpu.destroy()
            result = method(*arguments)
            if after:
                backend._gpu.destroy()
            return result

        monkeypatch.setattr(backend._queue, name, broken)

    return arm


def hang(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend._queue, "timeout", 0.2)
    monkeypatch.setattr(backend._queue, "poll", lambda: None)


def no_memory(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # As wgpu-native tells it on Vulkan; idle buffers of the pool would serve the call.
    error = _gpu._wgpu().GPUValidationError("Not enough memory left.")

    def refused(nbytes: int) -> Any:
        raise error

    monkeypatch.setattr(backend._storage, "take", refused)
    monkeypatch.setattr(backend._staging, "take", refused)


STAGES: dict[str, Break] = {
    "before the upload": destroy_now,
    "after the upload": destroy_around("write", after=True),
    "before recording": destroy_around("record", after=False),
    "after recording": destroy_around("record", after=True),
    "after submitting": destroy_around("submit", after=True),
    "after mapping": destroy_around("map", after=True),
    "before waiting": destroy_around("wait", after=False),
    "after waiting": destroy_around("wait", after=True),
    "before reading": destroy_around("read", after=False),
    "after reading": destroy_around("read", after=True),
    "hung": hang,
    "out of memory": no_memory,
}
LATE = ("after reading",)  # all is there already: this call needs no other device


def lost_once(found: list[warnings.WarningMessage], device: scgpu.Device) -> None:
    """Exactly one warning, at this file, that names the device."""
    (warning,) = (one for one in found if one.category is scgpu.DeviceLossWarning)
    assert str(device) in str(warning.message) and "with the same bits" in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize("stage", STAGES)
def test_a_call_is_finished_elsewhere(stage: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_on(gpu)
    bits = scgpu.encode(X, 100, device=gpu)
    assert layer.device == gpu and np.array_equal(layer.counts(X), EXPECTED)
    backend: Any = backend_of(gpu)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        STAGES[stage](backend, monkeypatch)
        first = layer.counts(X)
        monkeypatch.undo()
        assert np.array_equal(first, EXPECTED)
        if stage not in LATE:
            lost_once(found, gpu)
            assert layer.device != gpu
        for _ in range(3):
            assert np.array_equal(layer.counts(X), EXPECTED)
        assert bits == scgpu.encode(X, 100, device="numpy")
        lost_once(found, gpu)
    assert (backend.lost is None) == (stage == "out of memory")


@pytest.mark.parametrize("stage", ["before the upload", "before recording", "after recording", "after submitting"])
def test_a_lost_device_is_given_back(stage: str, gpu: scgpu.Device) -> None:
    # wgpu-native keeps the device of a command buffer that was made and not submitted
    def command_buffers() -> int:
        counts = importlib.import_module("wgpu").diagnostics.wgpu_native_counts.get_dict()
        return int(counts["CommandBuffer"]["count"])

    def lose_one() -> int:
        layer = layer_on(gpu)
        layer.counts(X)
        with pytest.MonkeyPatch.context() as patch:
            STAGES[stage](backend_of(gpu), patch)
            assert np.array_equal(layer.counts(X), EXPECTED)
        with suppress(scgpu.DeviceLostError):
            backend_of(gpu).upload(np.zeros(1, np.uint32))
        restart_device(gpu)
        del layer
        gc.collect()
        return len(list(Path("/proc/self/task").iterdir())) if sys.platform == "linux" else 0

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", scgpu.DeviceLossWarning)
        first, before = lose_one(), command_buffers()
        last = [lose_one() for _ in range(4)][-1]
    assert command_buffers() == before
    assert last <= first + 1  # Mesa's Vulkan devices have a thread each


@pytest.mark.parametrize("fault", ["lost", "out of memory"])
@pytest.mark.parametrize("method", ["create_shader_module", "create_compute_pipeline", "create_bind_group"])
def test_a_kernel_that_is_not_compiled_yet(
    method: str, fault: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits = scgpu.encode(X, 100, polarity="bipolar", device=gpu)
    backend: Any = backend_of(gpu)
    backend._pipelines.pop("fsm", None)
    make = getattr(backend._gpu, method)

    def broken(*arguments: Any, **options: Any) -> Any:
        if fault == "out of memory":
            raise _gpu._wgpu().GPUOutOfMemoryError("Not enough memory left.")
        backend._gpu.destroy()
        return make(*arguments, **options)

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        monkeypatch.setattr(backend._gpu, method, broken)
        state = scgpu.stanh(bits, 6)
        monkeypatch.undo()
        assert state == scgpu.stanh(scgpu.encode(X, 100, polarity="bipolar", device="numpy"), 6)
        lost_once(found, gpu)
    assert (backend.lost is None) == (fault == "out of memory")


@pytest.mark.parametrize("stage", STAGES)
def test_large_batches_and_prepacked_inputs(stage: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    # no plan is kept for these: buffers are made for each call
    monkeypatch.setattr("scgpu.pipeline.PLAN_BYTES", 0)
    layer, oracle = layer_on(gpu, max_batch=3), layer_on("numpy")
    streams = scgpu.encode(X, 500, seed=42, device=gpu)
    packed = oracle.counts_prepacked(scgpu.encode(X, 500, seed=42, device="numpy"))
    with monkeypatch.context() as patch:
        STAGES[stage](backend_of(gpu), patch)
        assert np.array_equal(layer.counts_prepacked(streams), packed)
        assert np.array_equal(layer.counts(X), EXPECTED)


def test_both_adapters_and_then_the_processor(gpu: scgpu.Device) -> None:
    layer = layer_on(gpu)
    seen = [layer.device]
    while layer.device.kind == "gpu":
        backend_of(layer.device).destroy()  # type: ignore[attr-defined]
        assert np.array_equal(layer.counts(X), EXPECTED)
        seen.append(layer.device)
    adapters = [device for device in scgpu.devices() if device.kind == "gpu"]
    assert seen[-1] == scgpu.device("cpu") and sorted(one.index for one in seen[:-1]) == [d.index for d in adapters]


def test_raise_is_an_error_and_stays_one(gpu: scgpu.Device) -> None:
    chosen = scgpu.device(gpu, on_device_loss="raise")
    layer, pending = layer_on(chosen), None
    pending = layer.submit(X)
    backend: Any = backend_of(gpu)
    backend._gpu.destroy()
    for attempt in (pending.counts, lambda: layer.counts(X), lambda: scgpu.encode([0.5], 64, device=chosen)) * 2:
        with pytest.raises(scgpu.DeviceLostError, match="lost"):
            attempt()
    assert pending.done() and layer.device == gpu
    # what is made after a restart runs on the device again
    assert restart_device(chosen) == gpu
    assert backend_of(gpu) is not backend and np.array_equal(layer_on(chosen).counts(X), EXPECTED)
    with pytest.raises(scgpu.DeviceLostError):
        layer.counts(X)


def test_a_stream_of_submissions(gpu: scgpu.Device) -> None:
    layer = layer_on(gpu)
    network = scgpu.Network([layer_on(gpu), scgpu.DenseLayer(30, 5, 500, device=gpu)])
    expected = scgpu.Network([layer_on("numpy"), scgpu.DenseLayer(30, 5, 500, device="numpy")]).counts(X)
    pending = [(layer.submit(X), EXPECTED) for _ in range(4)] + [(network.submit(X), expected) for _ in range(3)]
    backend_of(gpu)._gpu.destroy()  # type: ignore[attr-defined]
    pending += [(layer.submit(X), EXPECTED), (network.submit(X), expected)]
    for one, right in reversed(pending):
        assert np.array_equal(one.counts(), right) and one.done()


def test_every_kind_of_layer(gpu: scgpu.Device) -> None:
    options: list[dict[str, Any]] = [
        {"polarity": "bipolar"},
        {"weight_streams": "shared"},
        {"weight_streams": "shared", "sequence": "ramp"},
        {"sng": "sobol"},
    ]
    layers = [(layer_on(gpu, **one), layer_on("numpy", **one)) for one in options]
    for layer, _ in layers[::2]:
        layer.counts(X[0])
    backend_of(gpu)._gpu.destroy()  # type: ignore[attr-defined]
    for layer, oracle in layers:
        assert np.array_equal(layer.counts(X), oracle.counts(X))
        assert layer.packed_weights == oracle.packed_weights


def test_in_threads(gpu: scgpu.Device) -> None:
    layers = [layer_on(gpu, seed=seed) for seed in range(3)]
    right = [layer_on("numpy", seed=seed).counts(X) for seed in range(3)]
    wrong, calls = [], [0] * 6
    halfway, stop = threading.Event(), threading.Event()

    def work(place: int) -> None:
        while not stop.is_set():
            for layer, expected in zip(layers, right, strict=True):
                try:
                    if not np.array_equal(layer.counts(X), expected):
                        wrong.append(place)
                except BaseException as error:
                    wrong.append(error)
                    raise
            calls[place] += 1
            if min(calls) > 3:
                halfway.set()
            if min(calls) > 12 and layers[0].device != gpu:
                stop.set()

    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        threads = [threading.Thread(target=work, args=(place,)) for place in range(6)]
        for thread in threads:
            thread.start()
        assert halfway.wait(60)
        backend_of(gpu).destroy()  # type: ignore[attr-defined]
        for thread in threads:
            thread.join(120)
    assert not wrong and stop.is_set()
    assert sum(one.category is scgpu.DeviceLossWarning for one in found) == 1


def spiking(device: Any) -> scgpu.SpikingNetwork:
    rng = np.random.default_rng(5)
    excitatory = scgpu.Population(60, scgpu.LifParameters(leak_k=20, gain_k=200), name="e", device=device)
    inhibitory = scgpu.Population(20, scgpu.LifParameters(leak_k=30, gain_k=200), name="i", device=device)
    weights = [rng.integers(-40, 60, shape, dtype=np.int16) for shape in ((60, 20), (20, 60), (60, 60))]
    return scgpu.SpikingNetwork(
        [excitatory, inhibitory],
        [
            scgpu.Projection(excitatory, inhibitory, weights[0], delay=3),
            scgpu.Projection(inhibitory, excitatory, -abs(weights[1]), delay=5),
            scgpu.Projection(excitatory, excitatory, weights[2], delay=2, plasticity=scgpu.PairStdp()),
        ],
        [scgpu.PoissonInput(excitatory, 2.0, 90, seed=1), scgpu.ConstantCurrent(inhibitory, 30)],
    )


@pytest.mark.parametrize("history", [1, 3, 64])
def test_a_spiking_network_loses_no_step(history: int, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failover, "LONGEST_HISTORY", history)
    mine, oracle = spiking(gpu), spiking("numpy")
    for _ in range(3):
        assert mine.run(100, record="spikes") == oracle.run(100, record="spikes")
    backend: Any = backend_of(gpu)
    submit, left = backend._queue.submit, 5

    def broken(commands: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            backend._gpu.destroy()
        submit(commands)

    monkeypatch.setattr(backend._queue, "submit", broken)
    for _ in range(3):
        assert mine.run(700, record="both") == oracle.run(700, record="both")
    assert left <= 0 and mine.device != gpu
    assert np.array_equal(mine.projections[2].weights, oracle.projections[2].weights)


def test_histories_are_bounded(gpu: scgpu.Device) -> None:
    first = total = scgpu.encode(RNG.random(100), 300, device=gpu)
    expected = first.to("numpy")
    for seed in range(150):
        other = scgpu.encode(np.full(100, 0.5), 300, seed, device=gpu)
        total = (total ^ other) if seed % 2 else (total & other | first)
        oracle = other.to("numpy")
        expected = (expected ^ oracle) if seed % 2 else (expected & oracle | first.to("numpy"))
        for part in total._parts:
            contents = part.buffer.contents
            assert contents.depth <= failover.LONGEST_HISTORY and contents.nbytes <= failover.HISTORY_BYTES
    backend_of(gpu)._gpu.destroy()  # type: ignore[attr-defined]
    assert total == expected
    # a large upload is not kept for the sake of a small result
    bits = RNG.integers(0, 2, (64, 1 << 16), dtype=np.uint8)
    packed = scgpu.Bitstream.from_bits(bits, device=gpu)
    assert packed._parts[0].buffer.contents.array is not None
    bits[:] = 0
    assert packed.count().all()


def test_the_caller_may_write_to_what_was_uploaded(gpu: scgpu.Device) -> None:
    words = RNG.integers(0, 1 << 63, (5, 4), dtype=np.uint64)
    bits = RNG.integers(0, 2, (5, 100), dtype=np.uint8)
    streams, packed = scgpu.Bitstream.from_words(words, 256, device=gpu), scgpu.Bitstream.from_bits(bits, device=gpu)
    kept, kept_bits = words.copy(), bits.copy()
    words[:], bits[:] = 0, 0
    backend_of(gpu)._gpu.destroy()  # type: ignore[attr-defined]
    assert np.array_equal(streams.words, kept) and np.array_equal(packed.bits(), kept_bits)


def test_idle_memory_is_given_up_first(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    backend: Any = backend_of(gpu)
    layer = layer_on(gpu)
    make, refusals = backend._gpu.create_buffer, [1]

    def tight(**options: Any) -> Any:
        if refusals and backend._storage._idle_bytes:
            refusals.pop()
            raise _gpu._wgpu().GPUValidationError("Not enough memory left.")
        return make(**options)

    del layer
    gc.collect()
    layer = layer_on(gpu)
    monkeypatch.setattr(backend._gpu, "create_buffer", tight)
    large = scgpu.encode(np.full(100, 0.5), 70_000, device=gpu)
    assert not refusals and layer.device == gpu == large.device
    assert np.array_equal(layer.counts(X), EXPECTED)


def test_no_device_left_is_the_error_itself(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    surviving = FailoverBackend(gpu, backend_of, lambda lost: [])
    buffer = surviving.upload(np.arange(5, dtype=np.uint32))
    backend_of(gpu)._gpu.destroy()  # type: ignore[attr-defined]
    with pytest.raises(scgpu.DeviceLostError):
        surviving.execute([], [buffer])


def test_a_next_device_that_fails_too_is_passed_over(gpu: scgpu.Device) -> None:
    for device in scgpu.devices():
        if device.kind == "gpu":
            backend_of(device)
    layer = layer_on(gpu)
    for device in scgpu.devices():
        if device.kind == "gpu":
            backend_of(device).destroy()  # type: ignore[attr-defined]
    assert np.array_equal(layer.counts(X), EXPECTED) and layer.device == scgpu.device("cpu")


def test_an_adapter_of_smaller_buffers_is_passed_over(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    streams = scgpu.encode(X, 5000, device=gpu)
    for device in scgpu.devices():
        if device.kind == "gpu" and device != gpu:
            monkeypatch.setattr(backend_of(device), "largest_buffer", 64)
    backend_of(gpu).destroy()  # type: ignore[attr-defined]
    assert streams == scgpu.encode(X, 5000, device="numpy") and streams.device == scgpu.device("cpu")


def test_options_of_devices() -> None:
    assert scgpu.device("cpu", on_device_loss="raise").on_device_loss == "raise"
    assert scgpu.device("cpu").on_device_loss == "failover"
    with pytest.raises(ValueError, match=r"on_device_loss must be one of 'failover', 'raise'; got 'pray'"):
        scgpu.device("cpu", on_device_loss="pray")  # type: ignore[arg-type]
    chosen = scgpu.device("numpy", on_device_loss="raise")
    assert scgpu.device(chosen) is chosen and chosen == scgpu.device("numpy")


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_timeouts_are_numbers(text: str, gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    backend_of(gpu).destroy()  # type: ignore[attr-defined]
    restart_device(gpu)
    monkeypatch.setenv("SCGPU_DEVICE_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"SCGPU_DEVICE_TIMEOUT must be a number of seconds.*'{text}'"):
        backend_of(gpu)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.sampled_from([1, 2, 65]),
    length=st.sampled_from([1, 63, 64, 65, 1000]),
    when=st.integers(0, 10),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_chain_at_any_moment(count: int, length: int, when: int, seed: int, gpu: scgpu.Device) -> None:
    restart_device(gpu)
    scgpu.encode([0.5], 64, device=gpu)
    p = np.random.default_rng(seed).random((3, count))
    found = []
    for chosen in (gpu, scgpu.device("numpy")):
        made = partial(scgpu.encode, p, length, seed, polarity="bipolar", device=chosen)
        calls: list[Any] = [
            lambda a, b, c, made=made: (made(), b, c),
            lambda a, b, c, made=made: (a, made(tensor_id=1), c),
            lambda a, b, c: (a, b, a & ~b),
            lambda a, b, c: (a ^ c, b, c),
            lambda a, b, c: (a, scgpu.stanh(b, 8), c),
            lambda a, b, c: (a, b, c.delayed(length // 2) | b),
            lambda a, b, c: (scgpu.flip_bits(a, 0.1), b, scgpu.scaled_add([a, b, c])),
            lambda a, b, c: (a, scgpu.unary_add([a, b]), scgpu.conditional_product(b, c)),
            lambda a, b, c: (a, scgpu.regenerate(b, 5), scgpu.parallel_count([a, b, c])),
            lambda a, b, c: (a, b, c.by_time()),
            lambda a, b, c: (scgpu.scc(a, b), scgpu.progressive_value(a, [1, length]), c),
        ]
        state = (None, None, None)
        for step, call in enumerate(calls):
            if chosen is gpu and step == when:
                backend_of(gpu).destroy()  # type: ignore[attr-defined]
            state = call(*state)
        found.append(state)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_layers_that_moved_still_make_a_network(gpu: scgpu.Device) -> None:
    def layers() -> list[scgpu.DenseLayer]:
        return [scgpu.DenseLayer(n, m, 100, weights=np.full((m, n), 0.5), device=gpu) for n, m in ((40, 9), (9, 3))]

    expected = scgpu.Network(layers()).counts(X)
    moved = layers()
    backend: Any = backend_of(gpu)
    backend.destroy()
    moved[0].counts(X)
    assert moved[0].device != gpu
    assert np.array_equal(scgpu.Network(moved).counts(X), expected)
    restart_device(gpu)
    assert np.array_equal(scgpu.Network([moved[0], layers()[1]]).counts(X), expected)


def test_a_network_outlives_a_restart_between_its_layers(gpu: scgpu.Device) -> None:
    net = scgpu.Network([scgpu.DenseLayer(n, m, 100, device=gpu) for n, m in ((40, 9), (9, 5), (5, 3))])
    expected = net.counts(X)
    backend: Any = backend_of(gpu)
    backend.destroy()
    assert np.array_equal(net.counts(X), expected)
    restart_device(gpu)
    net.layers[1].weights = net.layers[1].weights
    assert np.array_equal(net.counts(X), expected)
    assert {layer.device for layer in net.layers} == {gpu}
