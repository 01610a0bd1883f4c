"""placement: which device a layer runs on when the caller leaves it to us.

A small layer is faster on the CPU, because a GPU takes its time to start; a large one on a
GPU. Where the line runs depends on the machine, so each device's rates are measured once, in
well under a second, and kept with the tuned variants. Devices return the same bits: nothing
but the time depends on the choice.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from scgpu import cache
from scgpu.backend import Backend, Device
from scgpu.devices import ADAPTER_VARIABLE, backend_of, device
from scgpu.encode import encode_step
from scgpu.errors import GpuError, NativeLibraryError, TooLargeError
from scgpu.forks import ForkLock
from scgpu.lookup import lookup_steps
from scgpu.permute import mask_words, ordered_by_network, permute_step
from scgpu.prefix import entry_count, prefix_step
from scgpu.threads import num_threads
from scgpu.weights import dense_step

REPEATS = 5
LEAST_RATE, MOST_RATE = 1e-9, 1e15  # no device is slower or faster: such a rate was not measured


@dataclass(frozen=True)
class Shape:
    """A layer's work: its size, and the samples that go through it together."""

    n_inputs: int
    n_neurons: int
    length: int
    batch: int
    shared: bool = False


@dataclass(frozen=True)
class Rates:
    """How fast a device is, measured.

    Attributes
    ----------
    call : float
        Microseconds of a call that does next to nothing.
    encode : float
        64-bit words encoded per microsecond.
    weights : float
        64-bit words of weights that one sample meets per microsecond.
    products : float
        64-bit words multiplied per microsecond in a batch.
    prefix : float
        Bits per microsecond that are put into the order of a sequence.
    lookup : float
        Look-ups per microsecond.
    """

    call: float
    encode: float
    weights: float
    products: float
    prefix: float
    lookup: float

    def microseconds(self, shape: Shape) -> float:
        """Predicted time of one call of ``forward``."""
        inputs = shape.batch * shape.n_inputs
        word_count = -(-shape.length // 64)
        taken = self.call + inputs * word_count / self.encode
        if shape.shared:
            return taken + inputs * shape.length / self.prefix + inputs * shape.n_neurons / self.lookup
        words = shape.n_inputs * shape.n_neurons * word_count
        return taken + (words / self.weights if shape.batch == 1 else shape.batch * words / self.products)


class _Trial:
    """Kernel calls on synthetic streams; what they hold does not change how long they take."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._rng = np.random.default_rng(0)

    def _words(self, size: int) -> Any:
        return self._backend.upload(self._rng.integers(0, 2**64, size, dtype=np.uint64))

    def encode(self, streams: int, length: int) -> Callable[[], object]:
        """Encode so many streams."""
        words = self._backend.empty("u64", streams * -(-length // 64))
        step = encode_step(
            self._backend.upload(self._rng.integers(0, 2**32, streams, dtype=np.uint32)),
            words,
            sample_count=1,
            stream_count=streams,
            length=length,
            seed=0,
            first_sample=0,
            domain=0,
        )
        read = self._backend.empty("u32", 1)
        return lambda: self._backend.execute([step], [read])

    def dense(self, samples: int, neurons: int, row_words: int) -> Callable[[], object]:
        """Multiply so many samples with so many neurons."""
        counts = self._backend.empty("u32", samples * neurons)
        weights, inputs = self._words(neurons * row_words), self._words(samples * row_words)
        step = dense_step(weights, inputs, counts, sample_count=samples, neuron_count=neurons, row_words=row_words)
        return lambda: self._backend.execute([step], [counts])

    def shared(self, neurons: int, inputs: int, length: int) -> tuple[Callable[[], object], Callable[[], object]]:
        """Order the streams of one sample; look its products up."""
        entries = self._backend.empty("u64", inputs * entry_count(length))
        ranks = self._rng.integers(0, length, (inputs, neurons)).astype("<u2").view("<u4")
        counts = self._backend.empty("u32", neurons)
        words = self._words(inputs * length // 64)
        streams = {"sample_begin": 0, "sample_count": 1, "input_count": inputs, "input_begin": 0, "input_end": inputs}
        by_network = ordered_by_network(self._backend.device, length)
        if by_network:
            masks = self._words(inputs * mask_words(length))
            permuted = self._backend.empty("u64", inputs * length // 64)
            ordering = [permute_step(words, masks, permuted, **streams, length=length)]
            words, order = permuted, self._backend.empty("u32", 0)
        else:
            ordering = []
            positions = np.tile(self._rng.permutation(length).astype("<u2"), (inputs, 1))
            order = self._backend.upload(positions.view("<u4"))
        bits = 0 if by_network else 16
        ordering.append(
            prefix_step(
                words, order, entries, **streams, length=length, order_bits=bits, order_stride=bits * length // 32
            )
        )
        lookups = lookup_steps(
            self._backend.upload(ranks),
            entries,
            counts,
            sample_count=1,
            neuron_count=neurons,
            input_count=inputs,
            length=length,
            rank_bits=16,
            rank_stride=neurons // 2,
            count_offset=0,
            count_stride=neurons,
            polarity="unipolar",
        )
        return (lambda: self._backend.execute(ordering, [counts])), (lambda: self._backend.execute(lookups, [counts]))


def measure(backend: Backend) -> Rates:
    """Measure a device's rates."""
    trial = _Trial(backend)
    samples, neurons, row_words = (64, 256, 1024) if backend.device.kind == "cpu" else (256, 1024, 1024)
    if backend.device.kind == "gpu" and backend.device.software:
        samples, neurons = 8, 64
    streams = neurons * samples
    prefix, lookup = trial.shared(neurons, 256, 1024)
    works: dict[str, tuple[Callable[[], object], int]] = {
        "encode": (trial.encode(streams, 1024), streams * 16),
        "weights": (trial.dense(1, 4 * neurons, row_words), 4 * neurons * row_words),
        "products": (trial.dense(samples, neurons, row_words), samples * neurons * row_words),
        "prefix": (prefix, 256 * 1024),
        "lookup": (lookup, 256 * neurons),
    }
    call = _median(trial.dense(1, 32, 64))
    rates = {name: work / max(_median(run) - call, 0.01 * call) for name, (run, work) in works.items()}
    return Rates(call, **rates)


def _median(run: Callable[[], object]) -> float:
    """Median microseconds of some calls after the first, which compiles and allocates."""
    run()
    taken = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    return 1e6 * statistics.median(taken)


_lock = ForkLock()
_known: dict[Device, Rates] = {}


def _key(chosen: Device) -> dict[str, str]:
    # A tier or another number of threads is another machine.
    return {**cache.device_key(chosen), "threads": str(num_threads()) if chosen.kind == "cpu" else ""}


def load(chosen: Device) -> Rates | None:
    """A device's rates, as they were measured last; None where they were not."""
    content = cache.read("rates", _key(chosen))
    if not isinstance(content, dict) or set(content) != {one.name for one in fields(Rates)}:
        return None
    if not all(type(rate) in (int, float) and LEAST_RATE <= rate <= MOST_RATE for rate in content.values()):
        return None
    return Rates(**content)


def rates_of(chosen: Device, fresh: bool = False) -> Rates:
    """A device's rates: measured at the first need, or where ``fresh`` asks for it, then remembered."""
    with _lock:
        found = None if fresh else _known.get(chosen) or load(chosen)
        if found is None:
            found = measure(backend_of(chosen))
            cache.write("rates", _key(chosen), asdict(found))
        _known[chosen] = found
        return found


def forget(chosen: Device) -> bool:
    """Forget a device's rates; False where none were remembered."""
    with _lock:
        return bool(_known.pop(chosen, None)) | cache.clear("rates", _key(chosen))


@dataclass(frozen=True)
class Placement:
    """A device for a layer, and why it was chosen.

    Attributes
    ----------
    device : Device
        Where the layer runs.
    reason : str
        Why: what asked for it, or the times expected.
    expected : Mapping
        Where the choice was ours: microseconds of a call, by device.
    automatic : bool
        Whether ``"auto"`` was asked for.
    """

    device: Device
    reason: str
    expected: Mapping[Device, float] = field(default_factory=dict, repr=False, compare=False)
    automatic: bool = False


def place(selector: str | int | Device, shape: Shape) -> Placement:
    """Choose a layer's device: the one that the caller names, or for ``"auto"`` the faster one for its shape.

    Errors as `scgpu.device`.
    """
    chosen = device(selector)
    if not isinstance(selector, str) or selector.strip().lower() != "auto":
        return Placement(chosen, "asked for")
    if wanted := os.environ.get(ADAPTER_VARIABLE, "").strip():
        return Placement(chosen, f"{ADAPTER_VARIABLE}={wanted}", automatic=True)
    if chosen.kind != "gpu":
        return Placement(chosen, "there is no hardware GPU", automatic=True)
    try:
        processor = device("cpu")
    except NativeLibraryError as error:
        return Placement(chosen, f"there is no cpu ({error})", automatic=True)
    try:
        expected = {one: rates_of(one).microseconds(shape) for one in (processor, chosen)}
    except (GpuError, TooLargeError) as error:
        return Placement(processor, f"{chosen} could not be measured ({error})", automatic=True)
    fastest = min(expected, key=lambda one: expected[one])
    times = ", ".join(f"{one} {microseconds:,.0f} us" for one, microseconds in expected.items())
    work = "one sample" if shape.batch == 1 else f"a batch of {shape.batch}"
    return Placement(fastest, f"expected for {work}: {times}", expected, automatic=True)


def common_device(placements: Sequence[Placement]) -> Device:
    """One device for layers that belong together: that of the layers whose device was given, else the fastest."""
    given = [one.device for one in placements if not one.expected]
    if given:
        return given[0]
    return min(placements[0].expected, key=lambda device: sum(one.expected[device] for one in placements))
