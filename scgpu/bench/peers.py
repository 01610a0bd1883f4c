"""Peers: other software that does the same work, measured beside ours where it is installed.

* sc-neurocore-engine (PyPI, Rust): layers, encoding, packing. Its encoders use 8-bit thresholds.
* NumPy, CuPy and PyTorch: AND and population count of whole arrays.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Work = Callable[[], object]
Words = NDArray[np.uint64]

ENGINE = "sc_neurocore_engine"


def count_ones(words: Any) -> Any:
    """Ones of each 64-bit integer of an array of any library with the usual operators.

    Warren: Hacker's Delight, section 5-1. Signed integers will do: no step depends on the sign.
    """
    pairs = words - ((words >> 1) & 0x5555555555555555)
    fours = (pairs & 0x3333333333333333) + ((pairs >> 2) & 0x3333333333333333)
    bytes_ = (fours + (fours >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((bytes_ * 0x0101010101010101) >> 56) & 0x7F


@dataclass(frozen=True)
class ArrayPeer:
    """AND and population count with an array library: weights (neuron, word), inputs (sample, word).

    Attributes
    ----------
    name : str
        What the tables call it.
    put, ones, finish : callable
        Words to an array of the library, the ones of its elements, and wait for the device.
    """

    name: str
    put: Callable[[Words], Any]
    ones: Callable[[Any], Any]
    finish: Callable[[Any], object]

    def dense(self, weights: Words, inputs: Words) -> Work:
        """Counts of every sample and neuron."""
        w, samples = self.put(weights), [self.put(sample) for sample in inputs]

        def run() -> object:
            return [self.finish(self.ones(w & x).sum(1)) for x in samples]

        return run


def numpy_peer() -> ArrayPeer:
    """NumPy on one thread."""
    return ArrayPeer("numpy", np.asarray, np.bitwise_count, lambda counts: counts)


def cupy_peer() -> ArrayPeer | None:
    """CuPy, where it finds a GPU."""
    try:
        cupy = importlib.import_module("cupy")
        cupy.cuda.runtime.getDeviceCount()
    except Exception:  # a broken CUDA raises anything
        return None
    ones = cupy.ElementwiseKernel("uint64 x", "uint32 y", "y = __popcll(x)", "scgpu_count_ones")
    return ArrayPeer("cupy", cupy.asarray, ones, lambda counts: counts.get())


def torch_peer() -> ArrayPeer | None:
    """PyTorch, on its GPU where it has one."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    place = "cuda" if torch.cuda.is_available() else "cpu"
    return ArrayPeer(
        f"torch {place}",
        lambda words: torch.from_numpy(words.view(np.int64)).to(place),
        count_ones,
        lambda counts: counts.cpu(),
    )


@dataclass(frozen=True)
class Engine:
    """sc-neurocore-engine."""

    module: Any

    @property
    def name(self) -> str:
        """With its version and SIMD tier."""
        return f"{ENGINE} {self.module.__version__} ({self.module.simd_tier()})"

    def prepacked(self, n_inputs: int, n_neurons: int, length: int, words: Words) -> Work:
        """A layer of one sample's packed inputs (n_inputs, words)."""
        layer = self.module.DenseLayer(n_inputs, n_neurons, length)
        return lambda: layer.forward_prepacked_numpy(words)

    def batch(self, n_inputs: int, n_neurons: int, length: int, x: NDArray[np.float64]) -> Work:
        """A layer of a batch of numbers, encoding included."""
        layer = self.module.DenseLayer(n_inputs, n_neurons, length)
        return lambda: layer.forward_batch_numpy(x)


def engine(threads: int) -> Engine | None:
    """The engine with so many threads, where it is installed."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))
    try:
        return Engine(importlib.import_module(ENGINE))
    except ImportError:
        return None
