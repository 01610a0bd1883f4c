"""Mixed work from many threads on several devices, with faults injected, every result compared with the oracle's.

Cases of encode, dense layers of every kind, networks, streams of submissions, machines, correlation, arithmetic,
neurons, spiking networks and files are computed once by NumPy. Then threads compute them on all the devices in random
order, and compare with ==. Meanwhile faults of random kinds befall random devices. In the end the calls, faults,
failovers, wrong results and lost results (calls that raised) are printed; the last two must be 0, or the status is 1.

With --memory: cycles of making, using and dropping things, and what the process holds meanwhile; the status is 1
when the second half of the cycles grows it.

Usage: python tools/soak.py [--seconds S] [--threads N] [--device NAME ...] [--seed N] [--faults KIND,KIND|off]
                            [--every S] [--memory [--cycles N]] [--json FILE]
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import scgpu
from scgpu.devices import backend_of
from scgpu.errors import DeviceLossWarning

Arrays = list[Any]
Work = Callable[[scgpu.Device, Callable[[str, Callable[[], Any]], Any]], Arrays]

NO_MEMORY = 5  # allocations that fail in one fault
RSS_BOUND = 8 << 20
BOUNDS = {"rss": RSS_BOUND, "gpu_bytes": 4 << 20, "gpu_buffers": 8, "files": 2, "threads": 1, "objects": 2000}


# --- Cases ------------------------------------------------------------------------------------------------------------


def _encode(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    p = np.random.default_rng(seed).random((7, 9))
    streams = scgpu.encode(p, 100 + 64 * (seed % 5), seed, device=device)
    other = scgpu.encode(1 - p, streams.length, seed + 1, device=device)
    return [streams.words, streams.count(), (streams & ~other).count(), (streams ^ other).delayed(3).words]


def _sequence(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    p = np.random.default_rng(seed).random(40)
    return [scgpu.encode(p, 256, seed % 50, sng=name, device=device).count() for name in ("sobol", "lfsr", "halton")]


def _dense(options: Mapping[str, Any], seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    n_inputs, n_neurons, length = ((24, 9, 256), (65, 33, 100), (8, 4, 1024))[seed % 3]

    def make() -> Any:
        return scgpu.DenseLayer(n_inputs, n_neurons, length, seed, device=device, **options)

    layer = keep(f"dense {sorted(options.items())} {seed}", make)
    low = -1 if options.get("polarity") == "bipolar" else 0
    x = np.random.default_rng(seed).uniform(low, 1, ((1, 5, 40, 300)[seed % 4], n_inputs))
    return [layer.counts(x, seed), layer.forward(x[0], seed, 3)]


def _prepacked(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    layer = scgpu.DenseLayer(20, 6, 200, seed, device=device)
    inputs = scgpu.encode(np.random.default_rng(seed).random((5, 20)), 200, seed, device=device)
    return [layer.counts_prepacked(inputs), layer.packed_weights.count()]


def _network(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    def make() -> Any:
        layers = [
            scgpu.DenseLayer(n, m, 128, seed, polarity="bipolar", device=device) for n, m in ((12, 16), (16, 8), (8, 3))
        ]
        return scgpu.Network(layers, "relu")

    x = np.random.default_rng(seed).uniform(-1, 1, (1 + seed % 70, 12))
    return [keep(f"network {seed}", make).counts(x, seed)]


def _stream(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    layer = keep(f"stream {seed % 4}", lambda: scgpu.DenseLayer(16, 8, 192, seed % 4, device=device))
    rng = np.random.default_rng(seed)
    pending = [layer.submit(rng.random((1 + k, 16)), seed, 10 * k) for k in range(11)]
    if seed % 3 == 0:
        del pending[1:4]  # nobody asks for these
    order = rng.permutation(len(pending))
    counts = {k: pending[k].counts() for k in order}
    return [counts[k] for k in range(len(pending))]


def _machines(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    rng = np.random.default_rng(seed)
    x = scgpu.encode(rng.uniform(-1, 1, 9), 300, seed, polarity="bipolar", device=device)
    a, b = (scgpu.encode(rng.random(9), 300, seed + k, device=device) for k in (1, 2))
    first, second = scgpu.synchronise(a, b)
    return [scgpu.stanh(x, 6).words, first.words, second.words, scgpu.divide(a & b, b).count()]


def _measures(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    rng = np.random.default_rng(seed)
    a, b = (scgpu.encode(rng.random(12), 500, seed + k, device=device) for k in (1, 2))
    return [scgpu.scc_matrix(a, b), scgpu.multiply(a, b).count(), scgpu.maximum(a, b).count()]


def _bits(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    bits = np.random.default_rng(seed).integers(0, 2, (5, 333), dtype=np.uint8)
    words = scgpu.pack(bits, device=device)
    counters = np.arange(4 * 50, dtype=np.uint32).reshape(50, 4)
    return [
        words,
        scgpu.unpack(words, 333, device=device),
        scgpu.popcount(words, device=device),
        scgpu.philox4x32(counters, [seed, 7], device=device),
        scgpu.flip_bits(scgpu.encode([0.3] * 8, 256, seed, device=device), 0.1, seed=seed).words,
    ]


def _neurons(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    currents = np.random.default_rng(seed).integers(0, 200, 30)
    spikes = scgpu.batch_lif_run_multi(30, 400, 20, 256, currents, record="spikes", device=device)
    return [spikes.words, spikes.count()]


def _spiking_network(seed: int, device: scgpu.Device, keep: Any) -> Arrays:
    cells = scgpu.Population(40, scgpu.LifParameters(20, 256), name="cells", device=device)
    weights = np.random.default_rng(seed).integers(-20, 30, (40, 40))
    synapses = scgpu.Projection(cells, cells, weights, delay=2)
    network = scgpu.SpikingNetwork([cells], [synapses], [scgpu.PoissonInput(cells, 2.0, 40, seed=seed)])
    spikes = [network.run(steps, record="spikes")["cells"].spikes().words for steps in (70, 33)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.npz"
        network.save(path)
        recording = scgpu.SpikingNetwork.load(path, device=device).run(40, record="spikes")
        recording.save(path)
        recording = scgpu.Recording.load(path)
    return [*spikes, recording["cells"].spikes().words]


CASES: dict[str, Work] = {
    name: work
    for seed in range(4)
    for name, work in {
        f"encode {seed}": partial(_encode, seed),
        f"sequence {seed}": partial(_sequence, seed),
        f"dense {seed}": partial(_dense, {}, seed),
        f"bipolar {seed}": partial(_dense, {"polarity": "bipolar", "max_batch": 17}, seed),
        f"shared {seed}": partial(_dense, {"weight_streams": "shared"}, seed),
        f"prepacked {seed}": partial(_prepacked, seed),
        f"network {seed}": partial(_network, seed),
        f"stream {seed}": partial(_stream, seed),
        f"machines {seed}": partial(_machines, seed),
        f"measures {seed}": partial(_measures, seed),
        f"bits {seed}": partial(_bits, seed),
        f"neurons {seed}": partial(_neurons, seed),
        f"spiking {seed}": partial(_spiking_network, seed),
    }.items()
}


def made_anew(name: str, make: Callable[[], Any]) -> Any:
    """For `Work` that shall keep nothing."""
    return make()


def oracle_results() -> dict[str, Arrays]:
    """What NumPy computes for each case."""
    numpy = scgpu.device("numpy")
    return {name: work(numpy, made_anew) for name, work in CASES.items()}


def same(found: Arrays, expected: Arrays) -> bool:
    """Equal values, types and shapes."""
    return len(found) == len(expected) and all(
        a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(found, expected, strict=True)
    )


# --- Faults -----------------------------------------------------------------------------------------------------------


def destroy(device: scgpu.Device) -> None:
    """Destroy the wgpu device, under whoever uses it."""
    backend: Any = backend_of(device)
    backend.destroy()


def refuse_memory(device: scgpu.Device) -> None:
    """Let the next allocations find no memory left on the device."""
    import wgpu

    backend: Any = backend_of(device)
    left = [NO_MEMORY]

    def refused(**options: Any) -> Any:
        left[0] -= 1
        if left[0] <= 0:
            vars(backend._gpu).pop("create_buffer", None)
        raise wgpu.GPUValidationError("Not enough memory left.")

    backend._gpu.create_buffer = refused
    with backend._lock:  # else the idle buffers would do
        backend._storage._release_idle()


def kill(device: scgpu.Device) -> None:
    """Kill the helper process of an isolated device."""
    backend: Any = backend_of(device)
    os.kill(backend.pid, signal.SIGKILL)


def interrupt(device: scgpu.Device) -> None:
    """Raise KeyboardInterrupt in the main thread, wherever it computes or waits."""
    os.kill(os.getpid(), signal.SIGUSR1)


FAULTS: dict[str, Callable[[scgpu.Device], None]] = {
    "destroy": destroy,
    "memory": refuse_memory,
    "kill": kill,
    "interrupt": interrupt,
}


ISOLATED = "isolated:"


def possible(kind: str, device: scgpu.Device) -> bool:
    """Whether a fault can happen to a device: a helper process has no insides here, and others have none."""
    return kind == "interrupt" or (kind == "kill") == device.isolated


# --- Load -------------------------------------------------------------------------------------------------------------


@dataclass
class Totals:
    """What happened."""

    seconds: float = 0.0
    calls: int = 0
    wrong: int = 0
    lost: int = 0
    interrupted: int = 0
    failovers: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    by_device: Counter[str] = field(default_factory=Counter)
    # Bytes and threads of the process, every few seconds, where the system tells.
    rss: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Note what the process holds now."""
        if sys.platform != "linux":
            return
        found = _of_the_system()
        self.rss.append(found["rss"])
        self.threads.append(found["threads"])

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"
        holds = f"; {self.rss[-1] >> 20:,} MiB, {self.threads[-1]} threads" if self.rss else ""
        return (
            f"{self.seconds:.0f} s: {self.calls:,} calls ({self.calls / max(self.seconds, 1e-9):.1f}/s), "
            f"faults: {faults}; {self.failovers} failovers, {self.interrupted} calls interrupted and repeated, "
            f"{self.wrong} wrong, {self.lost} lost{holds}"
        )


def _one(rng: np.random.Generator, of: Sequence[Any]) -> Any:
    return of[int(rng.integers(len(of)))]


class Soak:
    """Threads that compute cases on devices, and one that injects faults."""

    def __init__(self, devices: Sequence[scgpu.Device], faults: Sequence[str], every: float, seed: int) -> None:
        self.devices = devices
        self.faults = faults
        self.every = every
        self.seed = seed
        self.expected = oracle_results()
        self.totals = Totals()
        self._kept: dict[scgpu.Device, dict[str, Any]] = {device: {} for device in devices}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._computing = False  # the main thread, in a call that may be interrupted

    def _keep(self, device: scgpu.Device, name: str, make: Callable[[], Any]) -> Any:
        """A layer that all threads share, until its device restarts."""
        kept = self._kept[device]
        if name not in kept:
            made = make()
            return kept.setdefault(name, made)
        return kept[name]

    def _call(self, rng: np.random.Generator) -> None:
        name, device = _one(rng, list(CASES)), _one(rng, self.devices)
        keep = partial(self._keep, device) if rng.random() < 0.7 else made_anew
        main = threading.current_thread() is threading.main_thread()
        while True:
            try:
                self._computing = self._computing or main
                found = CASES[name](device, keep)
                break
            except KeyboardInterrupt:
                if not main or self._stop.is_set():
                    raise
                self.totals.interrupted += 1
            except Exception:
                with self._lock:
                    self.totals.calls += 1
                    self.totals.lost += 1
                print(f"LOST: {name} on {device}\n{traceback.format_exc()}", file=sys.stderr, flush=True)
                return
            finally:
                if main:
                    self._computing = False
        right = same(found, self.expected[name])
        with self._lock:
            self.totals.calls += 1
            self.totals.by_device[str(device)] += 1
            self.totals.wrong += not right
        if not right:
            print(f"WRONG: {name} on {device}", file=sys.stderr, flush=True)

    def _work(self, number: int) -> None:
        rng = np.random.default_rng([self.seed, number])
        while not self._stop.is_set():
            self._call(rng)

    def _inject(self) -> None:
        try:
            self._inject_until_stopped()
        except Exception:
            self.totals.lost += 1
            print(f"LOST: faults are injected no more\n{traceback.format_exc()}", file=sys.stderr, flush=True)

    def _inject_until_stopped(self) -> None:
        rng = np.random.default_rng([self.seed, 0xFA])
        gpus = [device for device in self.devices if device.kind == "gpu"]
        while gpus and not self._stop.wait(self.every * rng.uniform(0.5, 1.5)):
            device, kind = _one(rng, gpus), _one(rng, self.faults)
            if not possible(kind, device):
                continue
            try:
                FAULTS[kind](device)
            except (scgpu.GpuError, ProcessLookupError):  # an earlier fault has not been noticed by any call yet
                continue
            self.totals.faults[kind] += 1
            # For a while the device stays away; then new layers use it again.
            self._stop.wait(self.every * rng.uniform(0, 0.5))
            scgpu.restart_device(device)
            self._kept[device] = {}

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        def interrupted(number: int, frame: Any) -> None:
            if self._computing:
                self._computing = False
                raise KeyboardInterrupt

        before = signal.signal(signal.SIGUSR1, interrupted)
        try:
            yield
        finally:
            signal.signal(signal.SIGUSR1, before)

    def run(self, seconds: float, threads: int) -> Totals:
        """Work for so long, with the main thread as one of the threads."""
        workers = [threading.Thread(target=self._work, args=(k,)) for k in range(1, threads)]
        if self.faults:
            workers.append(threading.Thread(target=self._inject))
        begin = shown = time.monotonic()
        rng = np.random.default_rng([self.seed, 0])
        with warnings.catch_warnings(), self._interruptible():
            warnings.simplefilter("always", DeviceLossWarning)
            warnings.showwarning = self._warned
            for worker in workers:
                worker.start()
            try:
                while (now := time.monotonic()) - begin < seconds:
                    self.totals.seconds = now - begin
                    if now - shown > 5:
                        self.totals.look()
                        print(self.totals, flush=True)
                        shown = now
                    self._call(rng)
            finally:
                self._stop.set()
                for worker in workers:
                    worker.join()
        self.totals.seconds = time.monotonic() - begin
        self.totals.look()
        return self.totals

    def _warned(self, message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, DeviceLossWarning):
            self.totals.failovers += 1
        else:
            print(f"{category.__name__}: {message}", file=sys.stderr)


# --- Memory -----------------------------------------------------------------------------------------------------------


def _dropped(device: scgpu.Device) -> None:
    """Submissions that nobody reads, things in cycles, and calls that fail."""
    layer = scgpu.DenseLayer(16, 8, 128, device=device)
    for _ in range(3):
        layer.submit(np.full((2, 16), 0.5))
    cycle = [scgpu.encode([0.5] * 9, 640, device=device)]
    cycle.append(cycle)  # type: ignore[arg-type]
    for call in (
        lambda: layer.counts([2.0] * 16),
        lambda: scgpu.encode([0.5], 0, device=device),
        lambda: scgpu.DenseLayer(2**12, 2**14, 2**18, device=device),
        lambda: scgpu.SpikingNetwork.load("/nowhere", device=device),
    ):
        try:
            call()
        except (ValueError, OSError):
            continue
        raise AssertionError("a wrong call was not refused")


def cycle(device: scgpu.Device, number: int) -> None:
    """Make, use and drop things of a kind and of sizes that the number chooses."""
    works = [work for name, work in CASES.items() if name.endswith(str(number % 4))]
    works[number % len(works)](device, made_anew)
    if number % 8 == 0:
        _dropped(device)


def _of_the_system() -> dict[str, int]:
    this = Path("/proc/self")
    return {
        "rss": int((this / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        "files": len(list((this / "fd").iterdir())),
        "threads": len(list((this / "task").iterdir())),
    }


def held(devices: Sequence[scgpu.Device]) -> dict[str, int]:
    """What this process holds: bytes, GPU buffers and bytes, open files, threads, Python objects."""
    gc.collect()
    pools: list[Any] = []
    for device in devices:
        if device.kind == "gpu":
            backend: Any = backend_of(device)
            with backend._lock:
                backend._collect()
                pools += [pool._owned.copy() for pool in (backend._storage, backend._staging)]
    return {
        **_of_the_system(),
        "gpu_bytes": sum(raw.size for pool in pools for raw in pool),
        "gpu_buffers": sum(map(len, pools)),
        "objects": len(gc.get_objects()),
    }


def memory(devices: Sequence[scgpu.Device], cycles: int, show: Callable[[str], object] = print) -> dict[str, Any]:
    """Figures after each tenth of the cycles, and by how much the second half grew what the first half had."""
    for device in devices:  # what is compiled and kept once
        for number in range(2 * len(CASES)):
            cycle(device, number)
    figures = [held(devices)]
    show(_line(0, figures[0]))
    for tenth in range(1, 11):
        for number in range((tenth - 1) * cycles // 10, tenth * cycles // 10):
            for device in devices:
                cycle(device, number)
        figures.append(held(devices))
        show(_line(tenth * cycles // 10, figures[-1]))
    # The largest of each half: a pool or a collector may breathe.
    growth = {
        name: max(one[name] for one in figures[6:]) - max(one[name] for one in figures[:6]) for name in figures[0]
    }
    return {"cycles": cycles, "figures": figures, "growth": growth}


def _line(cycles: int, figures: Mapping[str, int]) -> str:
    return f"{cycles:>7} cycles: " + ", ".join(f"{name} {value:,}" for name, value in figures.items())


def grows(growth: Mapping[str, int]) -> list[str]:
    """What grew by more than noise."""
    return [f"{name} grew by {growth[name]:,}" for name, bound in BOUNDS.items() if growth[name] > bound]


# --- Command line -----------------------------------------------------------------------------------------------------


def arguments_of(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument(
        "--device", nargs="+", help="default: every GPU adapter, isolated:0 (the first in a helper process), and cpu"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", default=",".join(FAULTS), help=f"of {', '.join(FAULTS)}; or off")
    parser.add_argument("--every", type=float, default=1.0, metavar="S", help="seconds between faults, about")
    parser.add_argument("--memory", action="store_true", help="cycles of making and dropping instead")
    parser.add_argument("--cycles", type=int, default=10_000)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args(given)
    options.faults = [] if options.faults == "off" else options.faults.split(",")
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"--faults: there is no {', '.join(sorted(unknown))}")
    return options


def main(given: Sequence[str] | None = None) -> int:
    """Run, print, and return the status."""
    options = arguments_of(given)
    names = options.device or [str(one.index) for one in scgpu.devices() if one.kind != "numpy"]
    if not options.device and not options.memory and scgpu.device(0).kind == "gpu":
        names.append(ISOLATED + "0")
    devices = [scgpu.device(name.removeprefix(ISOLATED), isolate=name.startswith(ISOLATED)) for name in names]
    print(", ".join(map(str, devices)), flush=True)
    if options.memory:
        figures = memory(devices, options.cycles, partial(print, flush=True))
        wrong = grows(figures["growth"])
        print("second half against first half:", ", ".join(f"{k} {v:+,}" for k, v in figures["growth"].items()))
    else:
        totals = Soak(devices, options.faults, options.every, options.seed).run(options.seconds, options.threads)
        print(totals)
        figures = vars(totals)
        wrong = [f"{kind} results" for kind in ("wrong", "lost") if figures[kind]]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    for text in wrong:
        print("FAILED:", text, file=sys.stderr)
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
