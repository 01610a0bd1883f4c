"""What this machine can do at best, measured: the ceilings that speeds are compared with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache

import numpy as np

from scgpu import _trace
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.devices import backend_of
from scgpu.weights import dense_step

SECONDS = 0.05  # that one ceiling is measured for
_SMALLEST, _LARGEST = 1 << 16, 1 << 26


def read_work(device: Device, nbytes: int) -> Callable[[], object]:
    """Work that reads so many bytes once: counting the ones of 32 streams."""
    words = np.random.default_rng(0).integers(0, 2**64, (32, max(nbytes // 256, 1)), dtype=np.uint64)
    return Bitstream.from_words(words, 64 * words.shape[1], device=device).count


def _product_sizes(device: Device) -> tuple[int, int, int]:
    """Samples, neurons and words of a row: in the CPU's second-level cache; on a GPU a large layer."""
    return (256, 256, 1024) if device.kind == "gpu" else (120, 64, 512)


def product_work(device: Device) -> tuple[Callable[[], object], int]:
    """Work that multiplies streams which stay in cache, and its number of products of 64 bits."""
    backend = backend_of(device)
    samples, neurons, row_words = _product_sizes(device)
    rng = np.random.default_rng(0)
    buffers = (
        backend.upload(rng.integers(0, 2**64, neurons * row_words, dtype=np.uint64)),
        backend.upload(rng.integers(0, 2**64, samples * row_words, dtype=np.uint64)),
        backend.empty("u32", samples * neurons),
    )
    step = dense_step(*buffers, sample_count=samples, neuron_count=neurons, row_words=row_words)
    return lambda: backend.execute([step], [buffers[2]]), math.prod(_product_sizes(device))


def _kernel_seconds(prepare: Callable[[], Callable[[], object]]) -> float | None:
    """Least time of the kernel of prepared work; None where kernels are not timed."""
    with _trace.private() as sink:
        work = prepare()
        work()
        begin = time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            work()
    times = [event.duration for event in sink.events if event.kind == "kernel"]
    return min(times) / 1e9 if times else None


@cache
def _read_rate(device: Device, nbytes: int) -> float | None:
    seconds = _kernel_seconds(lambda: read_work(device, nbytes))
    return nbytes / seconds if seconds else None


def read_rate(device: Device, nbytes: int) -> float | None:
    """Bytes a second that the device reads, about ``nbytes`` at a time: caches are faster than memory.

    Measured at the first call for each power of two, for a twentieth of a second; None where the
    device does not time its kernels.
    """
    most = min(_LARGEST, backend_of(device).largest_buffer)
    return _read_rate(device, min(max(1 << max(nbytes - 1, 0).bit_length(), _SMALLEST), most & ~0xFF))


@cache
def product_rate(device: Device) -> float | None:
    """Products of 64 bits by 64 bits a second; measured once, for a twentieth of a second."""
    seconds = _kernel_seconds(lambda: product_work(device)[0])
    return math.prod(_product_sizes(device)) / seconds if seconds else None
