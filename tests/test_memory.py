"""Memory: what is dropped is given back, and what cannot be had is refused before it is touched."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soak

import scgpu
from scgpu import _gpu, fsm
from scgpu.devices import backend_of

TOOL = Path(soak.__file__)
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="NOT RUN: what a process holds is read from /proc")


@ON_LINUX
def test_cycles_of_making_and_dropping_hold_nothing(tmp_path: Path) -> None:
    # in a process of its own, on every GPU adapter and the CPU: everything that tools/soak.py computes with
    figures = tmp_path / "memory.json"
    done = subprocess.run(
        [sys.executable, str(TOOL), "--memory", "--cycles", "120", "--json", str(figures)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert len(found["figures"]) == 11 and found["figures"][-1]["gpu_buffers"] > 0
    assert found["growth"]["gpu_bytes"] == 0, done.stdout


@ON_LINUX
def test_leaks_would_be_seen(gpu: scgpu.Device, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: dict[str, list[Any]] = {name: [] for name in soak.BOUNDS}
    over = threading.Event()

    def thread() -> threading.Thread:
        started = threading.Thread(target=over.wait, daemon=True)
        started.start()
        return started

    # Each figure is one of its own.
    leaks: dict[str, Callable[[], list[Any]]] = {
        "rss": lambda: [np.ones(1 << 20)],
        "gpu_bytes": lambda: [scgpu.encode([0.5], 1 << 23, device=gpu)],
        "gpu_buffers": lambda: [scgpu.encode([0.5], 64, device=gpu) for _ in range(20)],
        "files": lambda: [os.open(os.devnull, os.O_RDONLY)],
        "threads": lambda: [thread()],
        "objects": lambda: [[k] for k in range(500)],
    }
    assert set(leaks) == set(kept)

    def cycle(device: scgpu.Device, number: int) -> None:
        for name, leak in leaks.items():
            kept[name] += leak()

    monkeypatch.setattr(soak, "CASES", {})
    monkeypatch.setattr(soak, "cycle", cycle)
    try:
        found = soak.memory([gpu], 30, lambda line: None)
    finally:
        over.set()
        for descriptor in kept["files"]:
            os.close(descriptor)
        for one in kept["threads"]:
            one.join()
    assert [text.split()[0] for text in soak.grows(found["growth"])] == list(soak.BOUNDS), found["growth"]
    monkeypatch.setattr(soak, "cycle", lambda device, number: None)
    assert soak.grows(soak.memory([gpu], 10, lambda line: None)["growth"]) == []


def wide(value: Any, *shape: int, dtype: Any = None) -> Any:
    """An array of any shape that takes the memory of one element."""
    return np.broadcast_to(np.asarray(value, dtype), shape)


def population(n: int, device: scgpu.Device) -> scgpu.Population:
    return scgpu.Population(n, scgpu.LifParameters(20, 256), device=device)


def network(device: scgpu.Device) -> scgpu.SpikingNetwork:
    return scgpu.SpikingNetwork([population(1000, device)])


def late_network(device: scgpu.Device) -> scgpu.SpikingNetwork:
    """Slots for the spikes on their way to 2**20 neurons in 2**15 steps."""
    cells = population(2**20, device)
    nothing = np.zeros(2**20 + 1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    return scgpu.SpikingNetwork([cells], [scgpu.Projection(cells, cells, nothing, delay=2**15)])


def many(device: scgpu.Device) -> scgpu.Bitstream:
    return scgpu.Bitstream.from_words(np.zeros((2**18, 1), np.uint64), 64, device=device)


HUGE: dict[str, Callable[[scgpu.Device], object]] = {
    "DenseLayer": lambda d: scgpu.DenseLayer(65535, 65536, 65536, device=d),
    "DenseLayer of short streams": lambda d: scgpu.DenseLayer(65535, 65536, 1, device=d),
    "DenseLayer of given weights": lambda d: scgpu.DenseLayer(
        65535, 65536, 1, weights=wide(0.5, 65536, 65535), device=d
    ),
    "DenseLayer of shared streams": lambda d: scgpu.DenseLayer(65535, 65536, 64, weight_streams="shared", device=d),
    "DenseLayer of Sobol' streams": lambda d: scgpu.DenseLayer(65535, 65536, 65536, sng="sobol", device=d),
    "counts of a huge batch": lambda d: scgpu.DenseLayer(4, 4, 64, device=d).counts(wide(0.5, 2**34, 4)),
    "counts of many neurons": lambda d: scgpu.DenseLayer(1, 2**16, 64, device=d).counts(wide(0.5, 2**20, 1)),
    "encode": lambda d: scgpu.encode(wide(0.5, 2**16, 2**10), 2**26, device=d),
    "encode many": lambda d: scgpu.encode(wide(0.5, 2**32 - 1), 64, device=d),
    "encode by an LFSR": lambda d: scgpu.encode(wide(0.5, 2**16, 2**10), 2**26, sng="lfsr", device=d),
    "Bitstream.from_words": lambda d: scgpu.Bitstream.from_words(wide(0, 2**32 - 1, 16, dtype="u8"), 1024, device=d),
    "Bitstream.from_bits": lambda d: scgpu.Bitstream.from_bits(wide(0, 2**30, 1024, dtype="u1"), device=d),
    "pack": lambda d: scgpu.pack(wide(0, 2**30, 1024, dtype="u1"), device=d),
    "unpack": lambda d: scgpu.unpack(wide(0, 2**22, 2**14, dtype="u8"), 2**20, device=d),
    "unpack to many bits": lambda d: scgpu.unpack(np.zeros((2**21, 16), "u8"), 1024, device=d),
    "popcount": lambda d: scgpu.popcount(wide(0, 2**22, 2**14, dtype="u8"), device=d),
    "philox4x32": lambda d: scgpu.philox4x32(wide(0, 2**30 - 1, 4, dtype="u4"), [1, 2], device=d),
    "scc_matrix": lambda d: scgpu.scc_matrix(many(d)),
    "pearson_matrix": lambda d: scgpu.pearson_matrix(many(d)),
    "thermometer": lambda d: scgpu.thermometer(wide(5, 2**24), 2**24, device=d),
    "flip_bits": lambda d: scgpu.flip_bits(scgpu.encode([0.5], 64, device=d), wide(0.5, 2**36)),
    "Population": lambda d: population(2**32 - 1, d),
    "Projection": lambda d: scgpu.Projection(
        population(2**17, d), population(2**17, d), wide(1, 2**17, 2**17, dtype="i2")
    ),
    "SpikingNetwork of late spikes": late_network,
    "Recording of spikes": lambda d: network(d).run(2**32 - 2**18, record="spikes"),
    "Recording of potentials": lambda d: network(d).run(2**30, record="voltages"),
    "batch_lif_run": lambda d: scgpu.batch_lif_run(2**32 - 1, 20, 256, 50, device=d),
    "batch_lif_run_multi": lambda d: scgpu.batch_lif_run_multi(2**20, 2**20, 20, 256, np.full(2**20, 50), device=d),
    "batch_lif_run_multi of spikes": lambda d: scgpu.batch_lif_run_multi(
        2**20, 2**20, 20, 256, np.full(2**20, 50), record="spikes", device=d
    ),
    "Lfsr16": lambda d: scgpu.Lfsr16(1).states(2**32),
}


def peak() -> int:
    """Most bytes that this process ever had in memory."""
    resource = pytest.importorskip("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


@ON_LINUX
@pytest.mark.parametrize("request_for", HUGE)
def test_what_cannot_be_had_is_refused_untouched(
    request_for: str, everywhere: scgpu.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1 << 30
    monkeypatch.setattr("scgpu.backend.free_memory", lambda: free)
    before, begin = peak(), time.monotonic()
    with pytest.raises(scgpu.TooLargeError, match=r"[\d,]{9,} bytes are needed"):
        HUGE[request_for](everywhere)
    assert time.monotonic() - begin < 20
    assert peak() - before < free / 4


@pytest.mark.filterwarnings("always::scgpu.errors.DeviceLossWarning")
def test_devices_that_were_lost_are_given_back(gpu: scgpu.Device) -> None:
    def alive() -> int:
        gc.collect()
        return sum(isinstance(one, _gpu.GpuBackend) for one in gc.get_objects())

    x = np.full(16, 0.5)
    found = []
    for _ in range(2 * fsm.DEVICES + 4):
        layer = scgpu.DenseLayer(16, 8, 128, device=gpu)
        streams = scgpu.encode(x, 128, polarity="bipolar", sng="sobol", device=gpu)
        ones = scgpu.stanh(streams, 4).count()
        backend: Any = backend_of(gpu)
        backend.destroy()
        layer.counts(x)
        assert np.array_equal(scgpu.stanh(streams, 4).count(), ones)
        del layer, streams, backend
        scgpu.restart_device(gpu)
        found.append(alive())
    assert max(found[-3:]) <= max(found[fsm.DEVICES + 2 : -3]), found
