"""tuning: which variant of a shader is the fastest on an adapter, measured once and remembered.

`measure` times the admissible variants on synthetic streams, one class of shapes after the
other. What it finds is kept in one JSON file for each adapter, driver, backend and version
of scgpu, and taken up when the adapter's backend starts. Variants give the same bits:
tuning changes how long a call takes and nothing else.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu import _abi, cache
from scgpu.backend import Backend, Device, Step

KIND = "tuned"  # of measurement, in the cache

ROUNDS = 3  # every variant left is timed so often, in turns
HOPELESS = 1.5  # a variant so many times slower than the best at its first call is dropped
TARGET_SECONDS = 0.004  # a hardware adapter repeats a kernel until starting it does not count
CHECKED = 64  # counts of every variant that are compared with the words themselves

Tuned = dict[tuple[str, str], int]


class TunableBackend(Backend, Protocol):
    """A backend whose operations have variants: a GPU's."""

    adapter: _abi.Adapter
    tuned: Tuned

    def forced(self, op_name: str, variant: int) -> Any:
        """Run an operation by one variant while the context lasts."""
        ...


@dataclass(frozen=True)
class Row:
    """What was found for a class of shapes: microseconds of each variant, the fastest first."""

    op: str
    shape_class: str
    default: int
    microseconds: dict[int, float]
    wrong: tuple[int, ...] = ()
    """Variants that did not give the bits they must; they are not used."""

    @property
    def fastest(self) -> int:
        """Index of the fastest variant."""
        return next(iter(self.microseconds), self.default)


def file_of(device: Device) -> Path:
    """Where an adapter's tuned variants are kept."""
    return cache.file_of(KIND, cache.device_key(device))


def load(device: Device) -> Tuned:
    """Tuned variants of an adapter; none where nothing usable is remembered."""
    tuned: Tuned = {}
    try:
        for entry in cache.read(KIND, cache.device_key(device)) or ():
            op, shape_class, variant = entry["op"], entry["class"], entry["variant"]
            if not isinstance(shape_class, str):
                return {}
            # Whether a variant may run a call is looked at again at the call.
            tuned[op, shape_class] = _abi.OPS[op].variants.index(variant)
    except (ValueError, LookupError, TypeError):
        return {}
    return tuned


def save(device: Device, tuned: Mapping[tuple[str, str], int]) -> str:
    """Remember tuned variants; return why not, or nothing when they are remembered."""
    entries = [
        {"op": op, "class": shape_class, "variant": _abi.OPS[op].variants[variant]}
        for (op, shape_class), variant in tuned.items()
    ]
    return cache.write(KIND, cache.device_key(device), entries)


def clear(device: Device) -> bool:
    """Forget what was tuned for an adapter; False where there was nothing."""
    return cache.clear(KIND, cache.device_key(device))


def dense_shapes(software: bool) -> Iterator[dict[str, int]]:
    """Parameters of dense that stand for the classes of shapes; smaller ones for a software adapter."""
    for samples in (1, 4, 64 if software else 256):
        for neurons in (32, 256 if software else 512):
            for row_words in (1024, 4608 if software else 8192):
                values = (samples, neurons, row_words, 0, row_words, 0, neurons, 0, 0, 0)
                yield dict(zip(_abi.OPS["dense"].params, values, strict=True))


def _candidates(params: _abi.Params, adapter: _abi.Adapter) -> list[int]:
    """Admissible variants of dense whose tile of samples is not out of all proportion."""
    op, samples = _abi.OPS["dense"], params["sample_count"]
    default = op.choose(params, adapter)
    smallest = 1 if samples == 1 else 2 if samples < 8 else 4
    return [
        index
        for index in op.admissible(params, adapter)
        if index == default or smallest <= op.variants[index]["sample_tile"] <= 2 * samples
    ]


class _Trial:
    """Streams of one shape on the device, and how long a variant takes on them."""

    def __init__(self, backend: TunableBackend, params: dict[str, int]) -> None:
        self._backend = backend
        self.params = params
        rng = np.random.default_rng(0)
        samples, neurons, row_words = params["sample_count"], params["neuron_count"], params["row_words"]
        weights = rng.integers(0, 2**64, (neurons, row_words), dtype=np.uint64)
        inputs = rng.integers(0, 2**64, (samples, row_words), dtype=np.uint64)
        self._counts = backend.empty("u32", samples * neurons)
        self._step = Step("dense", params, (backend.upload(weights), backend.upload(inputs), self._counts))
        s, n = rng.integers(0, samples, CHECKED), rng.integers(0, neurons, CHECKED)
        self._checked = s * neurons + n
        self._expected = np.bitwise_count(inputs[s] & weights[n]).sum(axis=1, dtype=np.uint32)

    def counts_are_right(self, variant: int) -> bool:
        (counts,) = self._run(variant, 1, [self._counts])
        return bool(np.array_equal(counts[self._checked], self._expected))

    def seconds(self, variant: int, repeats: int) -> float:
        """Seconds of one kernel call, ``repeats`` of them in one submission."""
        begin = time.perf_counter()
        self._run(variant, repeats, [self._counts])
        return (time.perf_counter() - begin) / repeats

    def _run(self, variant: int, repeats: int, read: list[Any]) -> list[NDArray[Any]]:
        with self._backend.forced("dense", variant):
            return self._backend.execute([self._step] * repeats, read)


def _measure_shape(backend: TunableBackend, params: dict[str, int]) -> Row:
    op = _abi.OPS["dense"]
    trial = _Trial(backend, params)
    # The first call compiles; it is not timed.
    right = {variant: trial.counts_are_right(variant) for variant in _candidates(params, backend.adapter)}
    first = {variant: trial.seconds(variant, 1) for variant, is_right in right.items() if is_right}
    fastest = min(first.values(), default=1.0)
    left = [variant for variant, seconds in first.items() if seconds <= HOPELESS * fastest]
    repeats = 1 if backend.device.software else max(1, min(64, int(TARGET_SECONDS / fastest)))
    taken: dict[int, list[float]] = {variant: [] for variant in left}
    for _ in range(ROUNDS):
        for variant in left:
            taken[variant].append(trial.seconds(variant, repeats))
    medians = {variant: 1e6 * statistics.median(times) for variant, times in taken.items()}
    ordered = dict(sorted(medians.items(), key=lambda item: item[1]))
    wrong = tuple(variant for variant, is_right in right.items() if not is_right)
    return Row("dense", op.shape_class(params), op.choose(params, backend.adapter), ordered, wrong)


def measure(backend: TunableBackend, progress: Callable[[str], None] = lambda text: None) -> list[Row]:
    """Time the variants of each class of shapes, and let the backend use the fastest from now on.

    Parameters
    ----------
    backend : TunableBackend
        A GPU's backend.
    progress : callable, optional
        Told, before each class, what is measured.

    Returns
    -------
    list of Row
    """
    rows: list[Row] = []
    for params in dense_shapes(backend.device.software):
        progress(_abi.OPS["dense"].shape_class(params))
        rows.append(_measure_shape(backend, params))
    backend.tuned = {(row.op, row.shape_class): row.fastest for row in rows if row.microseconds}
    return rows
