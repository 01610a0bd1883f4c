"""Isolated GPUs: the same bits, and whatever ends the helper process is an error of the parent's calls."""

from __future__ import annotations

import gc
import marshal
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import assert_parity
from test_devices import python

import scgpu
from scgpu import _abi, _isolated_link, _isolated_server, parity
from scgpu.backend import DTYPES, Backend, Step
from scgpu.devices import backend_of, restart_device
from scgpu.isolated import IsolatedBackend

PATIENCE = 2.0  # seconds within which the end of a process must be known
COUNT = {"stream_count": 2, "word_count": 3, "segment_words": 3, "segment_count": 1}

pytestmark = pytest.mark.skipif(not hasattr(socket, "send_fds"), reason="no isolated devices on this system")


# Helpers of this module deliver no results while this file is there.
HOLD = Path(os.environ["SCGPU_CACHE_DIR"]) / "hold"
HELD = f"""
import os, scgpu._isolated_server as server
deliver = server.Server._deliver
server.Server._deliver = lambda self: None if os.path.exists({str(HOLD)!r}) else deliver(self)
"""


@pytest.fixture(scope="module", autouse=True)
def holding() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_isolated_link, "_START", _isolated_link._START.replace("main(int", f"{HELD}main(int"))
        yield


@contextmanager
def held() -> Iterator[None]:
    """What is submitted starts, and no results come back."""
    HOLD.touch()
    try:
        yield
    finally:
        HOLD.unlink()


def alone(gpu: scgpu.Device) -> scgpu.Device:
    """The isolated device of an adapter, without failover."""
    return replace(scgpu.device(gpu.index, isolate=True), on_device_loss="raise")


@pytest.fixture
def first(gpu: scgpu.Device) -> scgpu.Device:
    """The first adapter, for what is the same with every one and takes long."""
    if gpu.index:
        pytest.skip("one adapter is enough")
    return gpu


@pytest.fixture
def isolated(gpu: scgpu.Device) -> scgpu.Device:
    """An adapter in a helper process, which other tests use too."""
    return restart_device(alone(gpu))


@pytest.fixture
def backend(gpu: scgpu.Device) -> Iterator[IsolatedBackend]:
    """A backend whose helper belongs to one test."""
    made = IsolatedBackend(alone(gpu))
    yield made
    made.link.close()


def gone(pid: int) -> bool:
    """Wait for the end of a process, whether or not somebody has asked for its status: an orphan's init may not."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


def running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


@contextmanager
def stopped(backend: IsolatedBackend) -> Iterator[None]:
    """The helper does nothing meanwhile."""
    os.kill(backend.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        if running(backend.pid):
            os.kill(backend.pid, signal.SIGCONT)


def words(backend: Any, n: int = 6) -> Any:
    return backend.upload(np.full(n, 2**64 - 1, np.uint64))


def test_layer_network_and_encode_are_the_oracles(isolated: scgpu.Device) -> None:
    x = np.random.default_rng(0).random((70, 64))

    def results(device: Any) -> list[Any]:
        layers = [scgpu.DenseLayer(64, 32, 1000, device=device), scgpu.DenseLayer(32, 10, 500, device=device)]
        net = scgpu.Network(layers, "relu")
        streams = scgpu.encode(x, 777, 3, device=device)
        return [
            layers[0].counts(x),
            layers[0].counts(x[:1]),  # a plan
            layers[0].counts(x[:1], 9),
            layers[0].packed_weights.words,
            net.counts(x, 5),
            streams.words,
            streams.count(),
            (streams & ~streams.delayed(3)).count(),
            scgpu.batch_lif_run_multi(64, 300, 20, 256, np.arange(64) * 4, record="spikes").words,
        ]

    for got, wanted in zip(results(isolated), results("numpy"), strict=True):
        assert got.dtype == wanted.dtype and np.array_equal(got, wanted)


@pytest.mark.parametrize("op", _abi.OPS)
def test_every_operation_is_the_oracles(op: str, isolated: scgpu.Device, oracle: Backend) -> None:
    assert_parity(op, isolated, oracle, number=8)


def test_spiking_network_is_the_cpus(isolated: scgpu.Device) -> None:
    params = scgpu.LifParameters(leak_k=20, gain_k=256, v_threshold=200)
    weights = np.random.default_rng(1).integers(-9, 30, (60, 60))

    def run(device: Any) -> tuple[scgpu.PopulationRecord, Any]:
        neurons = scgpu.Population(60, params, name="neurons", device=device)
        synapses = scgpu.Projection(neurons, neurons, weights, delay=3, plasticity=scgpu.PairStdp(w_min=-9, w_max=40))
        noise = scgpu.PoissonInput(neurons, mean=1.2, weight=25, seed=7)
        recording = scgpu.SpikingNetwork([neurons], [synapses], [noise]).run(700, record="both")
        return recording["neurons"], synapses.weights

    (mine, learnt), (plain, expected) = run(isolated), run("cpu")
    assert plain.counts.sum() > 100 and not np.array_equal(expected, weights)
    assert mine.words is not None and mine.voltages is not None
    assert np.array_equal(mine.words, plain.words) and np.array_equal(mine.voltages, plain.voltages)
    assert np.array_equal(mine.counts, plain.counts) and np.array_equal(learnt, expected)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("nbytes", [0, 8, 1000, 1 << 14, (1 << 14) + 8, 3_000_008])
def test_contents_cross_unchanged(name: str, nbytes: int, isolated: scgpu.Device) -> None:
    backend = backend_of(isolated)
    array = np.random.default_rng(nbytes).integers(0, 256, nbytes, np.uint8).view(DTYPES[name])
    buffer, other = backend.upload(array), backend.upload(array[::-1].copy())
    got, first, again = backend.execute([], [buffer, other, buffer])
    assert np.array_equal(got, array) and np.array_equal(again, array) and np.array_equal(first, array[::-1])
    assert got.flags.writeable and got.dtype == array.dtype
    backend.write(buffer, array[::-1])
    assert np.array_equal(backend.execute([], [buffer])[0], array[::-1])


def refusals(backend: Any) -> list[tuple[type[Exception], str]]:
    """What a backend says to calls that do not fit."""
    streams, counts = words(backend), backend.empty("u32", 2)
    huge = {**COUNT, "stream_count": 0xFFFF_FFFF, "word_count": 0, "segment_words": 1, "segment_count": 0}
    attempts: list[Callable[[], Any]] = [
        lambda: backend.execute([Step("count", {**COUNT, "stream_count": 3}, (streams, counts))]),
        lambda: backend.execute([Step("count", {**COUNT, "stream_count": -1}, (streams, counts))]),
        lambda: backend.execute([Step("count", {"stream_count": 2}, (streams, counts))]),
        lambda: backend.program([Step("count", COUNT, (streams,))], []),
        lambda: backend.program([Step("count", COUNT, (counts, streams))], [counts]),
        lambda: backend.execute([Step("nothing", COUNT, (counts, streams))]),
        lambda: backend.execute([Step("count", huge, (streams, counts))]),
        lambda: backend.empty("u64", 1 << 40),
        lambda: backend.require(1 << 50),
        lambda: backend.write(counts, np.zeros(3, np.uint32)),
        lambda: backend.write(counts, np.zeros(2, np.uint64)),
    ]
    found = []
    for attempt in attempts:
        try:
            attempt()
        except Exception as error:
            found.append((type(error), str(error)))
        else:
            found.append((type(None), ""))  # type: ignore[arg-type]
    return found


def test_errors_cross_as_themselves(gpu: scgpu.Device, isolated: scgpu.Device) -> None:
    expected = refusals(backend_of(replace(gpu, on_device_loss="raise")))
    told = [(kind, text.replace(" isolated]", "]")) for kind, text in refusals(backend_of(isolated))]
    assert told == expected
    assert {kind for kind, _ in expected} >= {ValueError, TypeError, KeyError, scgpu.TooLargeError}


def test_what_belongs_elsewhere_or_is_no_data_is_refused(isolated: scgpu.Device, backend: IsolatedBackend) -> None:
    mine, other = words(backend), words(backend_of(isolated))
    for bad, whose in ((other, str(isolated)), (np.zeros(6, np.uint64), "ndarray")):
        with pytest.raises(ValueError, match="was given to") as caught:
            backend.execute([], [bad])
        assert whose in str(caught.value)
        with pytest.raises(ValueError, match="was given to"):
            backend.execute([Step("count", COUNT, (bad, backend.empty("u32", 2)))])
    with pytest.raises(TypeError):
        backend.execute([Step("count", {**COUNT, "stream_count": 2.0}, (mine, backend.empty("u32", 2)))])  # type: ignore[dict-item]
    step = Step("count", {name: np.int64(value) for name, value in COUNT.items()}, (mine, backend.empty("u32", 2)))
    assert backend.execute([step], [step.buffers[1]])[0].tolist() == [192, 192]


def test_errors_of_every_class_cross() -> None:
    class Ours(scgpu.GpuError):
        pass

    for error in (
        scgpu.TooLargeError("7 bytes"),
        scgpu.DeviceLostError("gone"),
        KeyError("name"),
        MemoryError(),
        ValueError("a", 3),
        OSError(2, "no file"),
    ):
        crossed = _isolated_link.error_of(_isolated_link.failure_of(error))
        assert type(crossed) is type(error) and str(crossed) == str(error)
    assert type(_isolated_link.error_of(_isolated_link.failure_of(Ours("x")))) is scgpu.GpuError


def test_submissions_are_on_their_way_together_and_results_stay(backend: IsolatedBackend) -> None:
    streams, counts = words(backend), backend.empty("u32", 2)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    with held():
        first = program.submit()
        second = program.submit(streams, np.zeros(6, np.uint64))
        third = backend.submit([], [counts])
        assert words(backend).size == 6  # and other calls do not wait for them
        assert not first.done() and not third.done()
    assert second.result()[0].tolist() == [0, 0] and third.result()[0].tolist() == [0, 0]
    assert first.done() and first.result()[0].tolist() == [192, 192]
    assert first.result() is first.result()


def test_submissions_are_bounded(backend: IsolatedBackend) -> None:
    streams, counts = words(backend), backend.empty("u32", 2)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    with ThreadPoolExecutor(1) as pool:
        with held():
            many = [program.submit() for _ in range(8)]
            ninth = pool.submit(program.submit)
            time.sleep(0.3)
            assert not ninth.done()
        assert ninth.result(60).result()[0].tolist() == [192, 192]
    assert all(one.result()[0].tolist() == [192, 192] for one in many)


def test_dropped_submissions_hold_nothing(backend: IsolatedBackend) -> None:
    streams = words(backend, 60_000)
    with held():
        for _ in range(30):  # more than may be on their way together
            backend.submit([], [streams])
            backend.empty("u32", 1)
    backend.execute([])
    assert not backend.link._pending and segments_of(backend.pid) <= 3


def test_parameters_can_change(isolated: scgpu.Device) -> None:
    layer, plain = (scgpu.DenseLayer(16, 8, 256, device=device) for device in (isolated, "numpy"))
    x = np.random.default_rng(0).random((3, 16))
    for seed in (1, 2**40 + 5, 1):
        assert np.array_equal(
            layer.counts(x, seed, first_sample=seed % 9), plain.counts(x, seed, first_sample=seed % 9)
        )


def test_what_does_not_start_is_told_at_once(backend: IsolatedBackend) -> None:
    # Later steps would run over contents that were never made.
    streams, counts = words(backend), backend.empty("u32", 2)
    bad = Step("count", {**COUNT, "stream_count": 3}, (streams, counts))
    for read in ([], [counts], [words(backend, 60_000)]):
        with pytest.raises(ValueError, match="words has 6 elements; 9 are needed"):
            backend.submit([bad], read)
        with pytest.raises(ValueError, match="words has 6 elements; 9 are needed"):
            backend.execute([bad], read)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    assert program.submit().result()[0].tolist() == [192, 192]
    assert not backend.link._pending


def test_many_threads(isolated: scgpu.Device) -> None:
    layers = [scgpu.DenseLayer(8, 4, 100, seed, device=isolated) for seed in range(4)]
    x = np.random.default_rng(0).random((300, 8))
    expected = [scgpu.DenseLayer(8, 4, 100, seed, device="numpy").counts(x, 5) for seed in range(4)]

    def work(index: int) -> bool:
        return all(np.array_equal(layers[index % 4].counts(x, 5), expected[index % 4]) for _ in range(15))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def before_upload(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    kill()
    words(backend)


def after_upload(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    streams = words(backend, 60_000)
    kill()
    backend.execute([], [streams])


def after_program(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    streams, counts = words(backend), backend.empty("u32", 2)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    kill()
    program.submit().result()


def submitted(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    streams = words(backend, 60_000)
    with held():
        waiting = backend.submit([], [streams])
        kill()
        waiting.result()


def waited_for_elsewhere(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    streams = words(backend, 60_000)
    os.kill(backend.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as pool:
        waiting = [
            pool.submit(lambda: backend.execute([], [streams])),
            pool.submit(lambda: words(backend, 60_000)),
            pool.submit(lambda: words(backend)),
        ]
        time.sleep(0.1)
        kill()
        for one in waiting[1:]:
            with pytest.raises(scgpu.DeviceLostError):
                one.result(PATIENCE)
        waiting[0].result(PATIENCE)


def between_submissions(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    streams, counts = words(backend), backend.empty("u32", 2)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    first = program.submit()
    assert first.result()[0].tolist() == [192, 192]
    kept = program.submit()
    while not kept.done():
        time.sleep(0.001)
    kill()
    assert kept.result()[0].tolist() == [192, 192]  # what was answered is not lost
    program.submit(streams, np.zeros(6, np.uint64)).result()


def idle(backend: IsolatedBackend, kill: Callable[[], None]) -> None:
    kill()
    until = time.monotonic() + PATIENCE
    while backend.lost is None and time.monotonic() < until:
        time.sleep(0.01)
    begin = time.perf_counter()
    try:
        backend.empty("u32", 1)
    finally:
        assert time.perf_counter() - begin < PATIENCE / 2  # who waited for the helper would wait for longer


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT], ids=["SIGKILL", "SIGABRT"])
@pytest.mark.parametrize(
    "stage",
    [before_upload, after_upload, after_program, submitted, waited_for_elsewhere, between_submissions, idle],
    ids=lambda stage: stage.__name__,
)
def test_the_death_of_the_helper_is_a_loss(
    stage: Callable[[IsolatedBackend, Callable[[], None]], None], number: signal.Signals, gpu: scgpu.Device
) -> None:
    if gpu.index and number is signal.SIGABRT:
        pytest.skip("one adapter is enough for both signals")
    device = restart_device(alone(gpu))
    backend: Any = backend_of(device)
    layer = scgpu.DenseLayer(4, 2, 64, device=device)
    killed: list[float] = []

    def kill() -> None:
        killed.append(time.monotonic())
        os.kill(backend.pid, number)
        os.kill(backend.pid, signal.SIGCONT)  # where the stage had stopped it

    with pytest.raises(scgpu.DeviceLostError, match=rf"helper process {backend.pid} was killed by {number.name}"):
        stage(backend, kill)
    assert time.monotonic() - killed[0] < PATIENCE
    assert gone(backend.pid) and not running(backend.pid)  # no zombie either
    for later in (lambda: layer.forward(np.ones(4)), lambda: backend.empty("u32", 1), lambda: backend.execute([])):
        with pytest.raises(scgpu.DeviceLostError, match=number.name):
            later()
    # This process is none the worse for it, and a new helper starts.
    assert scgpu.encode([1.0], 64, device=gpu).count() == 64
    assert restart_device(device) is device
    assert scgpu.encode([1.0], 64, device=device).count() == 64
    assert backend_of(device).pid != backend.pid  # type: ignore[attr-defined]


def test_what_a_killed_helper_left_is_finished_elsewhere(gpu: scgpu.Device) -> None:
    device = restart_device(scgpu.device(gpu.index, isolate=True))
    assert device.on_device_loss == "failover"
    x = np.random.default_rng(3).random((40, 64))
    layer, plain = (scgpu.DenseLayer(64, 32, 1000, device=one) for one in (device, "numpy"))
    streams = scgpu.encode(x, 700, 2, device=device)
    assert np.array_equal(layer.counts(x), plain.counts(x))
    helper: Any = backend_of(device)
    pending = [layer.submit(x[:1], first_sample=k) for k in range(3)]
    os.kill(helper.pid, signal.SIGABRT)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for k, one in enumerate(pending):
            assert np.array_equal(one.counts(), plain.counts(x[:1], first_sample=k))
        assert np.array_equal(layer.counts(x, 5), plain.counts(x, 5))
        assert np.array_equal(streams.words, scgpu.encode(x, 700, 2, device="numpy").words)
        assert np.array_equal((~streams).count(), 700 - streams.count())
    (one_warning,) = told
    assert one_warning.category is scgpu.DeviceLossWarning and "was killed by SIGABRT" in str(one_warning.message)
    restart_device(device)
    assert backend_of(device).pid != helper.pid  # type: ignore[attr-defined]


def test_what_the_helper_said_last_is_told(backend: IsolatedBackend) -> None:
    with Path(f"/proc/{backend.pid}/fd/2").open("w") as stderr:
        stderr.write("thread '<unnamed>' panicked at device.rs:\nno way out\n")
    os.kill(backend.pid, signal.SIGABRT)
    with pytest.raises(
        scgpu.DeviceLostError, match=r"SIGABRT \(thread '<unnamed>' panicked at device.rs: / no way out\)"
    ):
        backend.execute([], [words(backend, 60_000)])


def test_a_helper_that_hangs_is_lost(first: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCGPU_DEVICE_TIMEOUT", "0.5x")
    with pytest.raises(ValueError, match="SCGPU_DEVICE_TIMEOUT must be a number of seconds"):
        IsolatedBackend(alone(first))
    monkeypatch.setenv("SCGPU_DEVICE_TIMEOUT", "20")
    backend = IsolatedBackend(alone(first))
    backend.link._timeout = 0.5
    with stopped(backend):
        begin = time.perf_counter()
        with pytest.raises(scgpu.DeviceLostError, match=r"gave no answer for .* seconds \(SCGPU_DEVICE_TIMEOUT sets"):
            words(backend, 60_000)
        assert 0.4 < time.perf_counter() - begin < PATIENCE
    assert gone(backend.pid)


def test_start_that_fails_is_an_error(first: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(scgpu.DeviceError, match=r"^other .* is not a device of this machine; usable are"):
        IsolatedBackend(replace(alone(first), name="other"))
    monkeypatch.setattr(_isolated_link, "_START", "import os; os.abort()")
    with pytest.raises(scgpu.DeviceLostError, match="was killed by SIGABRT"):
        IsolatedBackend(alone(first))
    monkeypatch.setattr(_isolated_link, "_START", "1 / 0")
    with pytest.raises(scgpu.DeviceLostError, match=r"exited with status 1 \(.*ZeroDivisionError"):
        IsolatedBackend(alone(first))
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(scgpu.GpuError, match="does not start"):
        IsolatedBackend(alone(first))
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(scgpu.GpuError, match="needs a Python interpreter"):
        IsolatedBackend(alone(first))
    monkeypatch.undo()
    monkeypatch.delattr(socket, "send_fds")
    with pytest.raises(scgpu.GpuError, match="which this system has not; use isolate=False"):
        IsolatedBackend(alone(first))


def test_tuned_variants_reach_the_helper(first: scgpu.Device, oracle: Backend) -> None:
    op = _abi.OPS["philox"]
    case = next(iter(parity.cases("philox", 1, 1)))
    key = (op.name, op.shape_class(case.params))
    backend = IsolatedBackend(alone(first), {key: 0})
    assert dict(backend.tuned) == {key: 0}
    backend.tuned = {**backend.tuned, ("dense", "none"): 1}
    assert np.array_equal(case.run(backend)[-1], case.run(oracle)[-1])

    ours, theirs = socket.socketpair()
    with ours, theirs:
        server = _isolated_server.Server(theirs)
        server._gpu = SimpleNamespace()
        server._answer(1, "tuned", (), (), marshal.dumps(((("dense", "none", 1),),)))
        answer = ours.recv(100)
    assert server._gpu.tuned == {("dense", "none"): 1} and list(_isolated_link.Inbox().feed(answer)) == [
        (1, None, None)
    ]


def test_without_memfd_a_nameless_file_is_shared(first: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    backend = IsolatedBackend(alone(first))
    array = np.arange(100_000, dtype=np.uint32)
    assert np.array_equal(backend.execute([], [backend.upload(array)])[0], array)
    shared = [line for line in Path(f"/proc/{backend.pid}/maps").read_text().splitlines() if "deleted" in line]
    assert shared and not any("memfd:scgpu" in line for line in shared)


def segments_of(pid: int) -> int:
    return Path(f"/proc/{pid}/maps").read_text().count("memfd:scgpu")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc")
def test_shared_memory_is_used_again_and_dropped_objects_are_released(
    backend: IsolatedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    array = np.arange(4 << 20, dtype=np.uint32)  # 16 MiB
    for _ in range(4):
        assert np.array_equal(backend.execute([], [backend.upload(array)])[0], array)
    before, mine, own = resident(backend.pid), resident(os.getpid()), segments_of(os.getpid())
    for _ in range(100):
        backend.submit([], [backend.upload(array)]).result()
    assert segments_of(backend.pid) <= 2 and segments_of(os.getpid()) <= own + 1
    assert resident(backend.pid) < before + (200 << 20) and resident(os.getpid()) < mine + (200 << 20)
    # Above the bound nothing idle is kept, on either side.
    monkeypatch.setattr(_isolated_link, "IDLE_BYTES", 0)
    for _ in range(2):
        words(backend, 100_000)
    words(backend)
    assert segments_of(backend.pid) <= 2 and segments_of(os.getpid()) <= own
    # Programs and submissions that were dropped.
    streams, counts = words(backend), backend.empty("u32", 2)
    for _ in range(50):
        backend.program([Step("count", COUNT, (streams, counts))], [counts]).submit()
    assert backend.execute([], [counts])[0].tolist() == [192, 192] and not backend.link._pending


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_ten_starts_leave_nothing(first: scgpu.Device) -> None:
    def state() -> tuple[int, set[str], int]:
        gc.collect()
        children = {
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/stat")
            if path.exists() and path.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
        }
        return len(list(Path("/proc/self/fd").iterdir())), children, threading.active_count()

    IsolatedBackend(alone(first)).link.close()
    before = state()
    for turn in range(10):
        backend = IsolatedBackend(alone(first))
        streams = words(backend, 100_000)
        # What is shared has no name that could be left, as files in /dev/shm have.
        maps = Path(f"/proc/{backend.pid}/maps").read_text()
        assert "memfd:scgpu (deleted)" in maps and "/dev/shm" not in maps
        if turn % 2:
            waiting = backend.submit([], [streams])
            os.kill(backend.pid, signal.SIGKILL)
            try:
                waiting.result()
            except scgpu.DeviceLostError:
                pass
            del waiting
        pid = backend.pid
        del streams, backend
        assert not running(pid)
    assert state() == before


START = """
import os, signal, sys, time, numpy as np, scgpu
from dataclasses import replace
from scgpu.devices import backend_of
device = replace(scgpu.device({index}, isolate=True), on_device_loss="raise")
backend = backend_of(device)
streams = scgpu.encode(np.ones(9), 64 << 12, device=device)
"""


@pytest.mark.parametrize("forked", [False, True], ids=["alone", "with a forked child"])
def test_the_helper_ends_with_its_parent(forked: bool, first: scgpu.Device) -> None:
    code = START.format(index=first.index) + (
        f"child = os.fork() if {forked} else 1\nif child: print(backend.pid, child, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper, child = map(int, parent.stdout.readline().split())
        assert running(helper)
        parent.kill()
        try:
            assert gone(helper)
        finally:
            if forked:
                os.kill(child, signal.SIGKILL)


def test_the_helper_ends_with_its_parent_while_it_is_busy(first: scgpu.Device) -> None:
    # It looks at no socket meanwhile: the thread that watches the parent ends it.
    busy = "import time, scgpu._isolated_server as server; server.Server._write = lambda *_: time.sleep(60)"
    code = f"""
from scgpu import _isolated_link
_isolated_link._START = _isolated_link._START.replace("main(int", {busy!r} + "\\nmain(int")
{START.format(index=first.index)}
import threading
buffer = backend.empty("u32", 1)
thread = threading.Thread(target=backend.write, args=(buffer, np.zeros(1, np.uint32)), daemon=True)
thread.start()
time.sleep(0.3)
assert thread.is_alive()
print(backend.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        helper = int(parent.stdout.readline())
        assert running(helper)
        parent.kill()
        assert gone(helper)


def test_it_starts_from_any_folder_thread_and_number_of_files(first: scgpu.Device, tmp_path: Path) -> None:
    root = Path(scgpu.__file__).resolve().parent.parent
    code = f"""
import os, resource, sys, threading
os.chdir({str(root)!r})
sys.path[:] = ["", *[path for path in sys.path if os.path.realpath(path or ".") != {str(root)!r}]]
import numpy as np, scgpu
from scgpu.isolated import IsolatedBackend
os.chdir({str(tmp_path)!r})
device = scgpu.device({first.index}, isolate=True)
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most if most < 0 else min(most, 4096), most))
files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100 if most < 0 or most > 1200 else 100)]
made = []
starter = threading.Thread(target=lambda: made.append(IsolatedBackend(device)))
starter.start()
starter.join()
array = np.arange(99999, dtype=np.uint32)
for _ in range(2):
    buffer = made[0].upload(array)
    assert np.array_equal(made[0].execute([], [buffer])[0], array)
print("fine")
"""
    done = python(code, PYTHONPATH="")
    assert done.stdout == "fine\n" and done.stderr == "", done.stderr


@pytest.mark.parametrize("ending", ["", "raise SystemExit(0)", "os.kill(backend.pid, signal.SIGKILL)", "del backend"])
def test_python_ends_silently(ending: str, first: scgpu.Device, tmp_path: Path) -> None:
    code = START.format(index=first.index) + (
        "from scgpu.backend import Step\n"
        "pending = backend.submit([], [streams._parts[0].buffer])\n"
        f"print(backend.pid, flush=True)\n{ending}\n"
    )
    done = subprocess.run(
        # -X dev tells of what was not closed or waited for
        [sys.executable, "-X", "dev", "-c", f"import sys; sys.path[:] = {sys.path!r}\n{code}"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert gone(int(done.stdout))


def test_a_forked_child_gets_an_error_and_can_start_its_own(gpu: scgpu.Device) -> None:
    code = (
        START.format(index=gpu.index)
        + """
pending = backend.submit([], [streams._parts[0].buffer])
while not pending.done():
    time.sleep(0.001)
child = os.fork()
if child == 0:
    for attempt in (streams.count, pending.result, pending.done, lambda: backend.upload(np.zeros(9, np.uint32))):
        try:
            attempt()
        except scgpu.GpuError as error:
            if "forked process; make layers and bitstreams anew" not in str(error):
                os._exit(1)
        else:
            os._exit(2)
    if scgpu.encode([1.0], 64, device=device).count() != 64 or backend_of(device).pid == backend.pid:
        os._exit(3)
    del streams, pending
    sys.exit(0)  # with all that runs at exit
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
assert len(pending.result()[0]) == 9 * 64 << 6 and (streams.count() == 64 << 12).all()
print("fine")
"""
    )
    done = python(code)
    assert done.stdout == "fine\n" and done.stderr == "", done.stderr


def test_ctrl_c_interrupts_a_wait_and_nothing_else(backend: IsolatedBackend) -> None:
    streams, array = words(backend), np.arange(50_000, dtype=np.uint32)
    assert os.getpgid(backend.pid) != os.getpgid(0)  # the terminal's Ctrl-C does not reach it
    os.kill(backend.pid, signal.SIGINT)
    main = threading.main_thread().ident
    assert main is not None
    for wait in (lambda: words(backend), lambda: backend.upload(array), lambda: backend.execute([], [streams])):
        with stopped(backend):
            timer = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT))
            timer.start()
            begin = time.perf_counter()
            with pytest.raises(KeyboardInterrupt):
                wait()
            assert time.perf_counter() - begin < 1
            timer.join()
    waiting = backend.submit([], [streams])
    assert waiting.result()[0].tolist() == [2**64 - 1] * 6
    assert np.array_equal(backend.execute([], [backend.upload(array)])[0], array)


def test_a_storm_of_interrupts_loses_no_message(backend: IsolatedBackend) -> None:
    array = np.arange(20_000, dtype=np.uint64)
    streams, counts = words(backend), backend.empty("u32", 2)
    program = backend.program([Step("count", COUNT, (streams, counts))], [counts])
    rng = np.random.default_rng(0)
    interrupted = 0

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for turn in range(600):
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + rng.random() * 1e-3)
                if turn % 3 == 0:
                    assert np.array_equal(backend.execute([], [backend.upload(array)])[0], array)
                elif turn % 3 == 1:
                    assert program.submit().result()[0].tolist() == [192, 192]
                else:
                    backend.write(streams, np.full(6, 2**64 - 1, np.uint64))
                signal.setitimer(signal.ITIMER_REAL, 0)
            except KeyboardInterrupt:
                interrupted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted > 50
    assert np.array_equal(backend.execute([], [backend.upload(array)])[0], array)
    gc.collect()
    # What was interrupted is in the pool again, or was given up on both sides.
    lease = backend.link.segments.lease(array.nbytes)
    backend.execute([])
    idle = sum(map(len, backend.link.segments._idle.values()))
    assert not backend.link._pending and backend.lost is None
    assert segments_of(backend.pid) <= idle + 1
    del lease


def test_profile_has_stages_and_no_kernels(isolated: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(8, 4, 100, device=isolated)
    with scgpu.profile() as prof:
        layer.forward([0.5] * 8)
        scgpu.encode([0.5] * 8, 100, device=isolated).count()
    assert {event.kind for event in prof.events} == {"stage"} and prof.untimed == [isolated]
    assert {event.name for event in prof.events} == {"check", "upload", "submit", "wait", "read"}
    assert f"{isolated} is isolated: its kernels are not listed" in prof.table()


def test_nothing_is_drawn_by_an_isolated_device(isolated: scgpu.Device) -> None:
    with pytest.raises(scgpu.GpuError, match="is isolated, and nothing can be drawn by it; leave isolate out"):
        _ = backend_of(isolated).wgpu_device  # type: ignore[attr-defined]


def test_device_isolates_gpus_alone(gpu: scgpu.Device) -> None:
    device = scgpu.device(gpu.index, isolate=True)
    assert device.isolated and device != gpu and replace(device, isolated=False) == gpu
    assert scgpu.device(device) is device and scgpu.device(device, isolate=True) is device
    assert scgpu.device(gpu, isolate=True) == device and not scgpu.device(gpu).isolated
    with pytest.raises(TypeError, match="isolate must be True or False; got 'yes'"):
        scgpu.device(gpu, isolate="yes")  # type: ignore[arg-type]
    with pytest.raises(scgpu.DeviceError, match="is not a device of this machine"):
        backend_of(replace(device, name="other"))


@pytest.mark.parametrize("selector", ["cpu", "numpy"])
def test_the_host_is_not_isolated(selector: str) -> None:
    with pytest.raises(
        scgpu.DeviceError, match=f"isolate=True is for GPU adapters, and device '{selector}' is {selector}"
    ):
        scgpu.device(selector, isolate=True)


def test_layers_and_their_networks_are_isolated(gpu: scgpu.Device) -> None:
    layer = scgpu.DenseLayer(6, 4, 100, device=gpu, isolate=True, on_device_loss="raise")
    network = scgpu.Network([layer, scgpu.DenseLayer(4, 3, 100, device=gpu, isolate=True)])
    assert layer.device.isolated and network.device.isolated and layer.placement.device == layer.device
    oracle = scgpu.Network([scgpu.DenseLayer(6, 4, 100, device="numpy"), scgpu.DenseLayer(4, 3, 100, device="numpy")])
    x = np.linspace(0, 1, 12).reshape(2, 6)
    assert np.array_equal(network.counts(x), oracle.counts(x))
    with pytest.raises(scgpu.DeviceError, match="isolate=True is for GPU adapters"):
        scgpu.DenseLayer(6, 4, 100, device="cpu", isolate=True)
