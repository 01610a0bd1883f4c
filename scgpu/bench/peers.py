"""Peers: other software that does the same work, measured beside ours where it is installed.

* sc-neurocore-engine (PyPI, Rust): layers, encoding, packing. Its encoders use 8-bit thresholds.
* NumPy, CuPy and PyTorch: AND and population count of whole arrays.
* UnarySim (github.com/diwu1990/UnarySim, needs PyTorch): layers of uGEMM, a checkout of which is named.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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


UNARYSIM = "UnarySim"
UNARYSIM_VARIABLE = "SCGPU_UNARYSIM"
WIDTH = 8  # bits of its generators: a period is 2**8 bits


@dataclass(frozen=True)
class UnarySim:
    """UnarySim's layers, and the torch that they run on."""

    torch: Any
    kernel: Any

    @property
    def name(self) -> str:
        """With the version of torch."""
        return f"{UNARYSIM} (torch {self.torch.__version__})"

    def layer(
        self, weights: NDArray[np.float64], bits: NDArray[np.uint8], mode: str, depth: int
    ) -> Callable[[], NDArray[np.uint8]]:
        """Work of a non-scaled layer that returns its output bits (time, neuron).

        ``weights`` (neuron, input) are multiples of 2 / 2**WIDTH, ``bits`` (time, input) the input streams.
        """
        torch = self.torch
        hwcfg = {"width": WIDTH, "mode": mode, "scale": 1, "depth": depth, "rng": "Sobol", "dimr": 1}
        given = torch.from_numpy(bits.astype(np.float32))
        n_neurons, n_inputs = weights.shape

        def run() -> NDArray[np.uint8]:
            # a layer keeps its places and its sum: a run begins with a new one
            layer = self.kernel.FSULinear(
                n_inputs,
                n_neurons,
                bias=False,
                weight_ext=torch.from_numpy(weights.astype(np.float32)),
                hwcfg=dict(hwcfg),
                swcfg=dict.fromkeys(("btype", "rtype", "stype"), torch.float),
            )
            with torch.no_grad():
                made = [layer(bit[None])[0] for bit in given]
            found: NDArray[np.uint8] = torch.stack(made).numpy().astype(np.uint8)
            return found

        return run


def unarysim(path: Path | None, threads: int) -> UnarySim | str:
    """UnarySim from a checkout with so many threads, or why there is none.

    Parameters
    ----------
    path : Path, optional
        The checkout, a folder of the name UnarySim, or the folder that has it; default: what the environment
        variable SCGPU_UNARYSIM names.
    threads : int
        Threads of torch.
    """
    path = path or (Path(found) if (found := os.environ.get(UNARYSIM_VARIABLE)) else None)
    if path is None:
        return f"not installed: give --unarysim, or set {UNARYSIM_VARIABLE}, to a checkout of diwu1990/UnarySim"
    folder = path.resolve()
    sys.path.insert(0, str(folder.parent if folder.name == UNARYSIM else folder))
    try:
        torch = importlib.import_module("torch")
        kernel = importlib.import_module("UnarySim.kernel")
    except ImportError as error:
        return f"not installed: {error}"
    finally:
        del sys.path[0]
    torch.set_num_threads(threads)
    return UnarySim(torch, kernel)
