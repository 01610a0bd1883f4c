"""profile: every kernel has its times, traces are consistent, and no bit changes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import make_vectors
import numpy as np
import pytest

import scgpu
from scgpu import _abi, _gpu, _gpu_raw, _trace, ceiling
from scgpu.backend import Step
from scgpu.devices import backend_of

STAGES = {"gpu": {"check", "upload", "record", "submit", "wait", "read"}, "cpu": {"check"}, "numpy": {"check"}}
CHAIN = ["encode", "dense", "activation", "encode", "dense"]
RNG = np.random.default_rng(8)


def network(device: scgpu.Device) -> scgpu.Network:
    sizes = ((6, 5), (5, 3))
    return scgpu.Network([scgpu.DenseLayer(n, m, 100, polarity="bipolar", device=device) for n, m in sizes])


def kernels(prof: scgpu.Profile) -> list[_trace.Event]:
    return sorted((event for event in prof.events if event.kind == "kernel"), key=lambda event: event.begin)


@pytest.fixture
def oracle_device() -> scgpu.Device:
    return scgpu.device("numpy")


def test_every_kernel_has_an_event_and_no_bit_changes(chosen: scgpu.Device) -> None:
    net = network(chosen)
    x = make_vectors.inputs((7, 6), "bipolar")
    before = net.counts(x, 3)
    with scgpu.profile() as prof:
        inside = net.counts(x, 3)
        again = net.submit(x, 3).counts()
    assert np.array_equal(inside, before) and np.array_equal(again, before)
    assert np.array_equal(network(scgpu.device("numpy")).counts(x, 3), before)
    found = kernels(prof)
    assert [event.name for event in found] == 2 * CHAIN
    for event in prof.events:
        assert event.duration > 0 and prof.begin <= event.begin and event.begin + event.duration <= prof.end
        assert event.device == chosen and event.gpu == (event.kind == "kernel" and chosen.kind == "gpu")
    for first, second in zip(found, found[1:], strict=False):
        assert first.begin + first.duration <= second.begin
    assert {event.name for event in prof.events if event.kind == "stage"} == STAGES[chosen.kind]
    assert not prof.untimed


def test_kernels_lie_between_submission_and_readback(gpu: scgpu.Device) -> None:
    net = network(gpu)
    x = make_vectors.inputs((7, 6), "bipolar")
    with scgpu.profile() as prof:
        for _ in range(5):
            net.counts(x)
    submits = [event for event in prof.events if event.name == "submit"]
    waits = [event for event in prof.events if event.name == "wait"]
    found = kernels(prof)
    assert len(submits) == len(waits) == 5 and len(found) == 25
    for k, (submit, wait) in enumerate(zip(submits, waits, strict=True)):
        for event in found[5 * k : 5 * k + 5]:
            assert submit.begin <= event.begin
            assert event.begin + event.duration <= wait.begin + wait.duration


def test_bytes_bits_and_parameters(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    with scgpu.profile() as prof:
        layer.counts(RNG.random((4, 6)))
    encode, dense = kernels(prof)
    assert (encode.nbytes, encode.bits) == (4 * 6 * (4 + 2 * 8), 4 * 6 * 128)
    assert (dense.nbytes, dense.bits) == (8 * 5 * 12 + 8 * 4 * 12 + 4 * 4 * 5, 4 * 5 * 12 * 64)
    assert tuple(dense.params) == _abi.OPS["dense"].params and dense.params["sample_count"] == 4
    moved = {event.name: event.nbytes for event in prof.events if event.nbytes and event.kind == "stage"}
    if chosen.kind == "gpu":
        assert moved == {"upload": 4 * 6 * 4, "read": 4 * 4 * 5 + 2 * 16}  # two timestamps of each kernel


def test_trace_is_valid_and_consistent(chosen: scgpu.Device, tmp_path: Path) -> None:
    net = network(chosen)
    with scgpu.profile() as prof:
        net.counts(make_vectors.inputs((7, 6), "bipolar"))
    path = tmp_path / "trace.json"
    prof.export(path)
    events = json.loads(path.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    named = {
        (event["name"], event["pid"], event["tid"]): event["args"]["name"] for event in events if event["ph"] == "M"
    }
    assert len(spans) == len(prof.events) and len(spans) + len(named) == len(events)
    window = (prof.end - prof.begin) / 1000
    for span in spans:
        assert span["dur"] > 0 and span["ts"] >= 0 and span["ts"] + span["dur"] <= window
        assert isinstance(span["args"]["bytes"], int) and isinstance(span["args"]["device"], str)
        on_gpu = named["process_name", span["pid"], 0] == f"GPU: {chosen}"
        assert on_gpu == (span["cat"] == "kernel" and chosen.kind == "gpu")
        lane = named["thread_name", span["pid"], span["tid"]]
        assert lane == ("kernels" if on_gpu else threading.current_thread().name)
    assert Counter(span["name"] for span in spans if span["cat"] == "kernel") == Counter(CHAIN)
    dense = next(span for span in spans if span["name"] == "dense")
    assert all(isinstance(dense["args"][name], int) for name in _abi.OPS["dense"].params)


def test_an_empty_profile(tmp_path: Path) -> None:
    with scgpu.profile() as prof:
        pass
    assert prof.events == [] and prof.totals() == [] and prof.table().startswith("kernel")
    prof.export(tmp_path / "trace.json")
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []
    with pytest.raises(RuntimeError, match="used once"), prof:
        pass


def test_nested_profiles_each_get_what_began_while_open(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    x = RNG.random((4, 6))
    with scgpu.profile() as outer:
        layer.counts(x)
        with scgpu.profile() as inner:
            layer.counts(x)
        layer.counts(x)
    assert [event.name for event in kernels(inner)] == ["encode", "dense"]
    assert [event.name for event in kernels(outer)] == 3 * ["encode", "dense"]
    assert set(map(id, inner.events)) <= set(map(id, outer.events))


def test_all_threads_are_collected(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    x = RNG.random((4, 6))
    expected = layer.counts(x)
    with scgpu.profile() as prof, ThreadPoolExecutor(3, "worker") as pool:
        assert all(np.array_equal(counts, expected) for counts in pool.map(lambda _: layer.counts(x), range(12)))
    assert Counter(event.name for event in kernels(prof)) == {"encode": 12, "dense": 12}
    assert all(event.thread.startswith("worker") for event in prof.events if not event.gpu)


def test_profiles_in_several_threads(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    x = RNG.random((4, 6))

    def work(_: int) -> int:
        with scgpu.profile() as prof:
            layer.counts(x)
            layer.submit(x)
        return len(kernels(prof))

    with ThreadPoolExecutor(4) as pool:
        assert min(pool.map(work, range(12))) >= 4  # its own two calls, and what others did meanwhile
    assert not _trace.active


def test_without_a_profile_nothing_is_recorded(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    monkeypatch.setattr(_trace, "recorder", None)  # a call would raise
    assert layer.forward(RNG.random((4, 6))).shape == (4, 5)
    monkeypatch.undo()


def test_a_profile_of_a_failure_is_closed(chosen: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    prof = scgpu.profile()

    def fails() -> None:
        with prof:
            layer.forward(RNG.random((4, 6)))
            layer.forward([2.0] * 6)

    with pytest.raises(ValueError, match="must lie in"):
        fails()
    assert not _trace.active and len(kernels(prof)) == 2 and prof.end > prof.begin
    layer.forward(RNG.random((4, 6)))
    assert len(kernels(prof)) == 2


def test_work_that_nobody_waits_for_is_timed(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    backend: Any = backend_of(gpu)
    with scgpu.profile() as prof:
        scgpu.encode(RNG.random((4, 6)), 100, device=gpu)  # reads nothing back
        layer.submit(RNG.random((4, 6)))  # dropped
    assert [event.name for event in kernels(prof)] == ["encode", "encode", "dense"]
    assert not backend._in_flight and len(backend._timers) >= 1


def test_more_kernels_than_one_query_set_times(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, max_batch=1, device=gpu)
    x = RNG.random((11, 6))
    expected = layer.counts(x)
    backend: Any = backend_of(gpu)
    for module in (_gpu, _gpu_raw):
        monkeypatch.setattr(module, "CALLS_PER_TIMER", 4)
    monkeypatch.setattr(backend, "_timers", [])
    with scgpu.profile() as prof:
        assert np.array_equal(layer.counts(x), expected)
    assert [event.name for event in kernels(prof)] == 11 * ["encode", "dense"]
    assert len(backend._timers) == 6


def test_an_adapter_without_timestamps_is_named(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=gpu)
    x = RNG.random((4, 6))
    expected = layer.counts(x)
    monkeypatch.setattr(backend_of(gpu), "_period", 0.0)
    with scgpu.profile() as prof:
        assert np.array_equal(layer.counts(x), expected)
    assert prof.untimed == [gpu] and not kernels(prof)
    assert f"{gpu} has no timestamps" in prof.table()
    assert {event.name for event in prof.events} == STAGES["gpu"]


def test_clock_keeps_kernels_inside_their_submission() -> None:
    clock = _gpu._Clock()
    assert clock.offset(100, 200, 1000, 1300) == 1000  # anything from 900 to 1100
    assert clock.offset(500, 600, 1480, 1700) == 1040  # 980 to 1100
    assert clock.offset(900, 950, 1900, 2500) == 1050  # 1000 to 1100
    assert clock.offset(0, 10, 5000, 5020) == 5005  # another clock: it starts afresh
    assert clock.offset(0, 100, 6000, 6050) == 6000  # longer than its window


def test_totals_and_table(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = scgpu.DenseLayer(6, 5, 100, device=chosen)
    with scgpu.profile() as prof:
        for _ in range(3):
            layer.counts(RNG.random((4, 6)))
    totals = {total.name: total for total in prof.totals()}
    dense = totals["dense"]
    assert dense.calls == 3 and dense.bits == 3 * 4 * 5 * 12 * 64 and dense.device == chosen
    assert dense.seconds == sum(e.duration for e in kernels(prof) if e.name == "dense") / 1e9
    assert [total.kind for total in prof.totals()[:2]] == ["kernel", "kernel"]
    assert totals["check"].ceiling() is None

    rates = {"read": 1e9, "products": 1e6}
    monkeypatch.setattr(ceiling, "read_rate", lambda device, nbytes: rates["read"])
    monkeypatch.setattr(ceiling, "product_rate", lambda device: rates["products"])
    assert dense.ceiling() == ("products", dense.bits / 64 / 1e6 / dense.seconds)
    rates["products"] = 1e15
    assert dense.ceiling() == ("read", dense.nbytes / 1e9 / dense.seconds)
    rates["read"] = dense.nbytes / dense.seconds / 0.42  # a ceiling of which 42 % are reached
    row = next(line for line in prof.table().splitlines() if line.startswith("dense"))
    assert str(chosen) in row and row.endswith("42 % read")
    assert "%" not in prof.table(ceilings=False)


def test_ceilings_are_measured_and_stay_out_of_profiles(chosen: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceiling, "SECONDS", 0.01)
    ceiling._read_rate.cache_clear()
    ceiling.product_rate.cache_clear()
    with scgpu.profile() as prof:
        small, large = ceiling.read_rate(chosen, 1), ceiling.read_rate(chosen, (1 << 20) + 4)
        products = ceiling.product_rate(chosen)
    assert prof.events == []
    assert small and large and products and min(small, large) > 1e6 and products > 1e5
    assert ceiling.read_rate(chosen, 7) == small  # measured once for a power of two
    ceiling._read_rate.cache_clear()
    ceiling.product_rate.cache_clear()


def test_oracle_and_single_steps_are_profiled(oracle_device: scgpu.Device) -> None:
    backend = backend_of(oracle_device)
    words, counts = backend.upload(np.full(6, 7, np.uint64)), backend.empty("u32", 2)
    params = {"stream_count": 2, "word_count": 3, "segment_words": 3, "segment_count": 1}
    with scgpu.profile() as prof:
        (out,) = backend.execute([Step("count", params, (words, counts))], [counts])
    assert out.tolist() == [9, 9]
    (event,) = kernels(prof)
    assert (event.name, event.nbytes, event.bits, event.gpu) == ("count", 56, 6 * 64, False)
    assert event.params == params
