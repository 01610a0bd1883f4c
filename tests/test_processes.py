"""Threads, forks, other processes, and the end of the interpreter: no hang, no crash, no message, the same bits.

What could hang or abort runs in an interpreter of its own, with a timeout.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scgpu
from scgpu import _gpu_raw
from scgpu.forks import ForkLock

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
SECONDS = 240  # far more than needed: only a hang takes so long

PREPARED = """
import atexit, gc, os, signal, sys, threading, time
import numpy as np, scgpu
device = scgpu.device(SELECTOR)
layer = scgpu.DenseLayer(32, 16, 256, device=device)
x = np.random.default_rng(0).random((8, 32))
expected = layer.counts(x)

def child_of_a_fork(work, seconds=60):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        work()
        return None
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.002)
"""


def run(code: str, chosen: scgpu.Device, tmp_path: Path) -> str:
    """What a program prints that must end well and leave stderr empty."""
    program = tmp_path / "program.py"
    selector: Any = chosen.index if chosen.kind == "gpu" else f"cpu:{chosen.tier}"
    program.write_text(PREPARED.replace("SELECTOR", repr(selector)) + textwrap.dedent(code))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0 and done.stderr == "", (done.returncode, done.stdout, done.stderr)
    return done.stdout


CHILDREN = """
def work(k):
    while not stopped.is_set():
        scgpu.DenseLayer(8 + k, 4, 64 * (1 + k), device=device).counts(np.full((4, 8 + k), 0.5))
        shared[0] = pending = layer.submit(x)
        pending.counts()
        with scgpu.profile():
            scgpu.encode(x[0], 256, k, device=device).count()

def refused(call):
    try:
        call()
    except scgpu.GpuError as error:
        assert "fork" in str(error) and "'spawn'" in str(error), error
    else:
        raise AssertionError("a GPU of the parent was used")

def in_child(kind):
    global layer, device, shared, threads
    fresh = scgpu.DenseLayer(32, 16, 256, device="cpu")
    assert np.array_equal(fresh.counts(x), expected)
    assert np.array_equal(scgpu.DenseLayer(32, 16, 256, device="auto").counts(x), expected)
    if device.kind == "cpu":
        assert np.array_equal(layer.counts(x), expected) and np.array_equal(shared[0].counts(), expected)
        scgpu.set_num_threads(3)
    else:
        assert np.array_equal(fetched.counts(), expected)
        refused(lambda: layer.counts(x))
        refused(lambda: layer.submit(x))
        refused(waiting.counts)
        refused(lambda: scgpu.encode([0.5], 64, device=device))
        refused(lambda: scgpu.DenseLayer(32, 16, 256, device=device.index))
        assert scgpu.devices()[device.index] == device and any("forked" in text for text in scgpu.problems())
    with scgpu.profile() as profile:
        fresh.counts(x)
    assert profile.events
    if kind == "collects":
        del layer, device, shared, threads
        gc.collect()
    if kind == "quits":
        os._exit(0)
    sys.exit(0)

def a_child(kind):
    def work():
        try:
            in_child(kind)
        except Exception:
            import traceback
            traceback.print_exc()
            os._exit(1)
    return work

fetched, waiting = layer.submit(x), layer.submit(x)
fetched.counts()
shared, stopped = [layer.submit(x)], threading.Event()
threads = [threading.Thread(target=work, args=(k,)) for k in range(THREADS)]
for thread in threads:
    thread.start()
ends = []
for k, kind in enumerate(("ends", "collects", "quits") * 2):
    time.sleep(0.007 * k)
    ends.append(child_of_a_fork(a_child(kind)))
stopped.set()
for thread in threads:
    thread.join()
assert np.array_equal(waiting.counts(), expected) and np.array_equal(layer.counts(x), expected)
print(ends)
"""


@forks
@pytest.mark.parametrize("threads", [0, 4])
def test_forked_children_work_on_the_cpu_and_are_told_about_gpus(
    threads: int, everywhere: scgpu.Device, tmp_path: Path
) -> None:
    # with other threads of the parent inside native calls, and holding locks, at the time of the fork
    assert run(CHILDREN.replace("THREADS", str(threads)), everywhere, tmp_path) == f"{[0] * 6}\n"


POOL = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def counts(selector):
    try:
        return scgpu.DenseLayer(32, 16, 256, device=selector).counts(x)
    except scgpu.GpuError as error:
        return str(error)

if __name__ == "__main__":
    method = METHOD
    selector = device.index if device.kind == "gpu" else "cpu"
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        found = list(pool.map(counts, ["cpu", selector, selector]))
    lost = method == "fork" and device.kind == "gpu"
    assert np.array_equal(found[0], expected)
    for other in found[1:]:
        assert "'spawn' or 'forkserver'" in other if lost else np.array_equal(other, expected)
    print("fine")
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_worker_processes(method: str, everywhere: scgpu.Device, tmp_path: Path) -> None:
    if method != "spawn" and sys.platform != "linux":
        pytest.skip(f"{method} is for Linux")
    assert run(POOL.replace("METHOD", repr(method)), everywhere, tmp_path) == "fine\n"


@forks
def test_a_fork_before_the_first_use_of_a_gpu_starts_afresh(everywhere: scgpu.Device, tmp_path: Path) -> None:
    program = tmp_path / "early.py"
    program.write_text(
        f"""
import os, sys
import scgpu
child = os.fork()
counts = scgpu.encode([1.0], 64, device={everywhere.index}).count()
assert counts == 64
if child:
    print(os.waitpid(child, 0)[1])
"""
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("0\n", "", 0)


DAEMONS = """
def work(k):
    while True:
        layer.counts(x)
        scgpu.encode(x[:4], 256, k, device=device).count()
        scgpu.DenseLayer(8 + k, 4, 64, device=device).submit(np.full((4, 8 + k), 0.5))

for k in range(6):
    threading.Thread(target=work, args=(k,), daemon=True).start()
time.sleep(DELAY)
print("the end")
"""


@pytest.mark.parametrize("delay", [0.0, 0.02, 0.05, 0.2])
def test_the_end_with_daemon_threads_inside(delay: float, everywhere: scgpu.Device, tmp_path: Path) -> None:
    assert run(DAEMONS.replace("DELAY", str(delay)), everywhere, tmp_path) == "the end\n"


ENDINGS = {
    "submissions that nobody reads": "kept = [layer.submit(x) for _ in range(20)]",
    "sys.exit in a thread": """
        def leave():
            layer.counts(x)
            sys.exit(3)
        thread = threading.Thread(target=leave)
        thread.start()
        thread.join()
        """,
    "work in atexit": "atexit.register(lambda: (layer.counts(x), scgpu.encode(x, 64, device=device).count()))",
    "threads joined in atexit": """
        def work():
            while not done.is_set():
                layer.counts(x)
        done = threading.Event()
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        atexit.register(lambda: (done.set(), thread.join()))
        """,
    "a thread that outlives main": """
        def work():
            threading.main_thread().join()
            for _ in range(20):
                assert np.array_equal(layer.counts(x), expected)
        threading.Thread(target=work).start()
        """,
    "an executor that is not shut down": """
        from concurrent.futures import ThreadPoolExecutor
        pool = ThreadPoolExecutor(4)
        futures = [pool.submit(layer.counts, x) for _ in range(40)]
        """,
    "objects in cycles and finalisers": """
        class Held:
            def __init__(self):
                self.held = [self, layer, layer.submit(x), scgpu.encode(x, 64, device=device)]
            def __del__(self):
                self.held.clear()
        held = Held()
        sys.modules["held"] = held
        """,
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_end_with(ending: str, everywhere: scgpu.Device, tmp_path: Path) -> None:
    assert run(textwrap.dedent(ENDINGS[ending]) + "\nprint('the end')\n", everywhere, tmp_path) == "the end\n"


def test_threads_layers_and_devices_at_once(oracle: Any) -> None:
    chosen = [one for one in scgpu.devices() if one.kind != "numpy"]
    shapes = [(8, 5, 100), (33, 7, 256), (64, 16, 65)]
    x = {n: np.random.default_rng(n).random((6, n)) for n, _, _ in shapes}
    expected = {shape: scgpu.DenseLayer(*shape, device="numpy").counts(x[shape[0]], 3) for shape in shapes}
    shared = [(shape, scgpu.DenseLayer(*shape, device=one)) for shape in shapes for one in chosen]

    def work(thread: int) -> int:
        right = 0
        for k in range(30):
            shape, layer = shared[(thread + k) % len(shared)]
            if k % 3 == 2:  # one of its own
                layer = scgpu.DenseLayer(*shape, device=chosen[(thread + k) % len(chosen)])
            counts = layer.submit(x[shape[0]], 3).counts() if k % 2 else layer.counts(x[shape[0]], 3)
            right += np.array_equal(counts, expected[shape])
        return right

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [30] * 8


@forks
@pytest.mark.parametrize("held_by", ["another thread", "the thread that forks"])
def test_fork_lock_is_free_in_the_child(held_by: str) -> None:
    lock, holds, goes_on = ForkLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            holds.set()
            goes_on.wait()

    def child() -> None:
        with lock, lock:
            pass

    other = threading.Thread(target=hold)
    if held_by == "another thread":
        other.start()
        holds.wait()
        pid = os.fork()
    else:
        with lock:
            pid = os.fork()
            if pid == 0:
                child()
    if pid == 0:
        try:
            child()
            os._exit(0)
        finally:
            os._exit(1)
    status = _end_of(pid)
    goes_on.set()
    if other.ident is not None:
        other.join()
    assert status == 0
    with lock:
        pass


def _end_of(pid: int) -> int:
    import signal
    import time

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]


def test_gate_waits_for_those_inside_and_ends_those_who_come() -> None:
    gate = _gpu_raw.Gate()
    inside, leaves = threading.Event(), threading.Event()
    entered: list[str] = []

    def stay() -> None:
        with gate, gate:  # a signal handler may enter a second time
            inside.set()
            leaves.wait()
            entered.append("first")

    def come() -> None:
        with gate:
            entered.append("late")

    first, late = threading.Thread(target=stay), threading.Thread(target=come)
    first.start()
    inside.wait()
    threading.Timer(0.2, leaves.set).start()
    gate.close()
    assert entered == ["first"]
    late.start()
    for thread in (first, late):
        thread.join()
    assert entered == ["first"]
    with gate:  # whoever closed it still may
        pass
