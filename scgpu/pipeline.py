"""The chain encode, dense, activation, encode, ... of one layer or a stack of them.

Everything between the first thresholds and the last counts stays on the device, in one
`Backend.submit` (on a GPU one submission) for as much of the batch as its buffers hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import _trace, arguments
from scgpu.activation import Activation, activation_step
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device, Program, Step, Submission, require_host_memory
from scgpu.encode import PURPOSES, stream_step, thresholds_of
from scgpu.errors import TooLargeError
from scgpu.forks import ForkLock
from scgpu.sng import Sng, Source
from scgpu.weights import WeightStreams

# Batches whose buffers are at most so large keep them, and what was looked up, for the next
# call: there the host's work counts. So many kinds of calls of a layer, for as many threads as meet.
PLAN_BYTES = 1 << 20
PLANS = 8


class Layer(Protocol):
    """What the chain needs to know of a `scgpu.DenseLayer`."""

    n_inputs: int
    n_neurons: int
    length: int
    polarity: Polarity
    max_batch: int
    tensor_id: int
    sng: Sng | None
    plans: Plans

    @property
    def device(self) -> Device:
        """Where the layer runs."""
        ...

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights; when assigned they are encoded where the device runs now."""
        ...

    @weights.setter
    def weights(self, weights: ArrayLike) -> None: ...

    @property
    def streams(self) -> WeightStreams:
        """Weight streams on that device."""
        ...

    def values_of(self, counts: NDArray[np.uint64]) -> NDArray[np.float64]:
        """Counts as numbers."""
        ...


class Pending:
    """Outputs of a layer or network on their way, made by `DenseLayer.submit` and `Network.submit`.

    Any thread may ask for them, any number of times and in any order. Dropping a `Pending` gives up
    its outputs, and nothing else.
    """

    def __init__(self, layer: Layer, shape: tuple[int, ...], parts: list[Submission]) -> None:
        self._layer = layer
        self._shape = shape
        self._parts = parts
        self._counts: NDArray[np.uint64] | None = None
        self._values: NDArray[np.float64] | None = None
        self._lock = ForkLock()  # re-entrant, for signal handlers

    def done(self) -> bool:
        """True when `result` and `counts` would not wait."""
        return all(part.done() for part in self._parts)

    def counts(self) -> NDArray[np.uint64]:
        """Wait, and return what `DenseLayer.counts` would have: the same array every time.

        Raises
        ------
        GpuError
            When the adapter failed while it worked, or the process is a fork of the one that submitted.
        """
        with self._lock:
            if self._counts is None:
                arrays = [part.result()[0] for part in self._parts]
                flat = arrays[0] if len(arrays) == 1 else np.concatenate([np.empty(0, np.uint32), *arrays])
                self._counts = flat.astype(np.uint64).reshape(self._shape)
                self._parts = []
            return self._counts

    def result(self) -> NDArray[np.float64]:
        """Wait, and return what `DenseLayer.forward` would have: the same array every time.

        Ctrl-C interrupts the wait, and `result` may be called again. Errors as `counts`.
        """
        with self._lock:
            if self._values is None:
                self._values = self._layer.values_of(self.counts())
            return self._values


def _piece(layers: Sequence[Layer], backend: Backend) -> int:
    """Samples that go through the layers together: what each layer allows and a buffer holds."""
    piece = min(layer.max_batch for layer in layers)
    for layer in layers:
        sample_bytes = layer.streams.sample_bytes
        if sample_bytes > backend.largest_buffer:
            raise TooLargeError(
                f"one sample's input streams need {sample_bytes:,} bytes (n_inputs={layer.n_inputs}, "
                f"length={layer.length}) and a buffer of {backend.device} holds {backend.largest_buffer:,}; "
                "use a smaller length or device='cpu'"
            )
        piece = min(piece, backend.largest_buffer // max(sample_bytes, 4 * layer.n_neurons))
    return max(piece, 1)


def submit_stack(
    layers: Sequence[Layer],
    activations: Sequence[Activation],
    x: ArrayLike,
    seed: int,
    first_sample: int,
) -> Pending:
    """Start the layers on x; outputs of the last one, (n_neurons,) or (batch, n_neurons), as `DenseLayer.submit`.

    Layer k encodes its inputs with tensor id ``layer.tensor_id``; ``activations[k]`` stands
    between layers k and k + 1.
    """
    first, last = layers[0], layers[-1]
    while any(layer.streams.backend is not first.streams.backend for layer in layers):
        # Their device was restarted while they were made, or before one got other weights.
        for layer in layers:
            layer.weights = layer.weights
    backend = first.streams.backend
    recorder = _trace.recorder(backend.device) if _trace.active else None
    values = arguments.values("x", x, first.polarity)
    seed = arguments.seed_of(seed)
    if values.ndim not in (1, 2) or values.shape[-1] != first.n_inputs:
        raise ValueError(f"x must have shape ({first.n_inputs},) or (batch, {first.n_inputs}); got {values.shape}")
    shape = (*values.shape[:-1], last.n_neurons)
    rows = values if values.ndim == 2 else values[None]
    batch = len(rows)
    first_sample = arguments.integer("first_sample", first_sample, 0, 2**32 - max(batch, 1))
    require_host_memory(12 * batch * last.n_neurons)  # the counts as they are read, and in 64 bits
    if recorder:
        recorder.stage("check")
    # One submission for the whole batch, as far as its thresholds and counts fit a buffer each.
    most = max(1, backend.largest_buffer // (4 * max(first.n_inputs, last.n_neurons)))
    parts = []
    for begin in range(0, batch, most):
        part = rows[begin : begin + most]
        parts.append(_submit(layers, activations, part, seed, first_sample + begin))
    return Pending(last, shape, parts)


@dataclass(frozen=True)
class Plan:
    """The kernel calls of a small batch and their buffers, kept for the next batch of its size.

    Attributes
    ----------
    program : Program
        The calls.
    source : buffer
        Gets what a call is given.
    conditions : list
        What the plan depends on besides the kind of call.
    """

    program: Program
    source: Any
    conditions: list[Any]


class Plans:
    """The plans of a layer, by what they are for and the size of the batch. Each is one thread's while it is used."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Plan]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, kind: tuple[str, int], conditions: list[Any]) -> Plan | None:
        """A plan that nobody uses."""
        try:
            plan = self._idle[kind].pop()
        except LookupError:  # none was made, or all are in use
            return None
        return plan if plan.conditions == conditions else None

    def give(self, kind: tuple[str, int], plan: Plan) -> None:
        """Keep a plan, taken or new, for the next call."""
        if len(self._idle) >= PLANS and kind not in self._idle:
            self._idle.clear()
        self._idle.setdefault(kind, []).append(plan)


def _conditions(layers: Sequence[Layer], activations: Sequence[Activation], backend: Backend) -> list[Any]:
    """What a plan depends on besides the batch size."""
    return [backend.largest_buffer, *activations, *(layer.streams for layer in layers)]


def _submit(
    layers: Sequence[Layer],
    activations: Sequence[Activation],
    values: NDArray[np.float64],
    seed: int,
    first_sample: int,
) -> Submission:
    """Start the layers on values (batch, n_inputs) that are one submission."""
    first = layers[0]
    backend = first.streams.backend
    recorder = _trace.recorder(backend.device) if _trace.active else None
    array = thresholds_of(values, first.polarity).reshape(-1)
    if recorder:
        recorder.stage("check")
    batch = len(values)
    plan = _plan(layers, activations, backend, batch)
    if plan is None:
        steps, counts, _ = _chain(layers, activations, backend.upload(array), batch, seed, first_sample)
        return backend.submit(steps, [counts])
    changes = {"key_lo": seed & 0xFFFF_FFFF, "key_hi": seed >> 32, "first_sample": first_sample}
    try:
        return plan.program.submit(plan.source, array, {"encode": changes})
    finally:
        first.plans.give(("forward", batch), plan)


def _plan(layers: Sequence[Layer], activations: Sequence[Activation], backend: Backend, batch: int) -> Plan | None:
    """A plan for a batch size that no other thread uses; None for large batches, and where plans save nothing."""
    if any(layer.sng for layer in layers):  # a seed chooses a sequence, that is another buffer
        return None
    first = layers[0]
    conditions = _conditions(layers, activations, backend)
    plan = first.plans.take(("forward", batch), conditions)
    if plan is not None:
        return plan
    sample_bytes = sum(layer.n_inputs * (12 + layer.length // 8) + 8 * layer.n_neurons for layer in layers)
    if batch * sample_bytes > PLAN_BYTES or batch > _piece(layers, backend):
        return None
    thresholds = backend.empty("u32", batch * first.n_inputs)
    steps, counts, between = _chain(layers, activations, thresholds, batch, 0, 0)
    return Plan(backend.program(steps, [counts], [thresholds, counts, *between]), thresholds, conditions)


def _chain(
    layers: Sequence[Layer],
    activations: Sequence[Activation],
    first_thresholds: Any,
    batch: int,
    seed: int,
    first_sample: int,
) -> tuple[list[Step], Any, list[Any]]:
    """Kernel calls for thresholds (batch, n_inputs), the buffer that gets the counts (batch, n_neurons), the others."""
    first, last = layers[0], layers[-1]
    backend = first.streams.backend
    piece = min(_piece(layers, backend), batch)
    last_counts = backend.empty("u32", batch * last.n_neurons)
    words = [backend.empty("u64", piece * layer.n_inputs * -(-layer.length // 64)) for layer in layers]
    hidden = [
        (backend.empty("u32", piece * layer.n_neurons), backend.empty("u32", piece * layer.n_neurons))
        for layer in layers[:-1]
    ]
    scratch = [layer.streams.scratch(piece) for layer in layers]
    steps: list[Step] = []
    for begin in range(0, batch, piece):
        sample_count = min(piece, batch - begin)
        thresholds, threshold_offset = first_thresholds, begin * first.n_inputs
        for index, layer in enumerate(layers):
            steps.append(
                stream_step(
                    backend,
                    Source(layer.sng, seed, PURPOSES["input"], layer.tensor_id, first_sample, 0),
                    thresholds,
                    words[index],
                    sample=begin,
                    sample_count=sample_count,
                    stream_count=layer.n_inputs,
                    length=layer.length,
                    threshold_offset=threshold_offset,
                )
            )
            products = layer.streams.steps
            if layer is last:
                steps += products(words[index], last_counts, scratch[index], sample_count, begin * last.n_neurons)
            else:
                counts, thresholds = hidden[index]
                threshold_offset = 0
                integers = activations[index].integers(layer.n_inputs, layer.length, layer.polarity)
                steps += products(words[index], counts, scratch[index], sample_count)
                steps.append(activation_step(counts, thresholds, sample_count * layer.n_neurons, integers))
    between = [*words, *(one for pair in hidden for one in pair), *(one for buffers in scratch for one in buffers)]
    return steps, last_counts, between
