"""The chain encode, dense, activation, encode, ... of one layer or a stack of them.

Everything between the first thresholds and the last counts stays on the device, in one
`Backend.execute` (on a GPU one submission) for as much of the batch as its buffers hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.activation import Activation, activation_step
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device, Step
from scgpu.devices import backend_of
from scgpu.encode import domain_of, encode_step, thresholds_of
from scgpu.errors import TooLargeError
from scgpu.weights import WeightStreams


class Layer(Protocol):
    """What the chain needs to know of a `scgpu.DenseLayer`."""

    n_inputs: int
    n_neurons: int
    length: int
    polarity: Polarity
    max_batch: int
    tensor_id: int

    @property
    def device(self) -> Device:
        """Where the layer runs."""
        ...

    @property
    def streams(self) -> WeightStreams:
        """Weight streams on that device."""
        ...


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


def stack_counts(
    layers: Sequence[Layer],
    activations: Sequence[Activation],
    x: ArrayLike,
    seed: int,
    first_sample: int,
) -> NDArray[np.uint64]:
    """Counts of the last layer, uint64 (n_neurons,) or (batch, n_neurons), as `DenseLayer.counts`.

    Layer k encodes its inputs with tensor id ``layer.tensor_id``; ``activations[k]`` stands
    between layers k and k + 1.
    """
    first, last = layers[0], layers[-1]
    backend = backend_of(first.device)
    values = arguments.values("x", x, first.polarity)
    seed = arguments.seed_of(seed)
    if values.ndim not in (1, 2) or values.shape[-1] != first.n_inputs:
        raise ValueError(f"x must have shape ({first.n_inputs},) or (batch, {first.n_inputs}); got {values.shape}")
    *batch_shape, _ = values.shape
    batch = batch_shape[0] if batch_shape else 1
    first_sample = arguments.integer("first_sample", first_sample, 0, 2**32 - max(batch, 1))
    rows = values.reshape(batch, first.n_inputs)
    counts = np.empty((batch, last.n_neurons), np.uint64)
    # One submission for the whole batch, as far as its thresholds and counts fit a buffer each.
    most = max(1, backend.largest_buffer // (4 * max(first.n_inputs, last.n_neurons)))
    for begin in range(0, batch, most):
        part = rows[begin : begin + most]
        counts[begin : begin + most] = _submit(layers, activations, part, seed, first_sample + begin)
    return counts.reshape(*batch_shape, last.n_neurons)


def _submit(
    layers: Sequence[Layer],
    activations: Sequence[Activation],
    values: NDArray[np.float64],
    seed: int,
    first_sample: int,
) -> NDArray[np.uint32]:
    """Counts (batch, n_neurons) of values (batch, n_inputs), in one submission."""
    first, last = layers[0], layers[-1]
    backend = backend_of(first.device)
    batch = len(values)
    piece = min(_piece(layers, backend), batch)
    first_thresholds = backend.upload(thresholds_of(values, first.polarity))
    last_counts = backend.empty("u32", batch * last.n_neurons)
    words = [backend.empty("u64", piece * layer.n_inputs * -(-layer.length // 64)) for layer in layers]
    hidden = [
        (backend.empty("u32", piece * layer.n_neurons), backend.empty("u32", piece * layer.n_neurons))
        for layer in layers[:-1]
    ]
    steps: list[Step] = []
    for begin in range(0, batch, piece):
        sample_count = min(piece, batch - begin)
        thresholds, threshold_offset = first_thresholds, begin * first.n_inputs
        for index, layer in enumerate(layers):
            steps.append(
                encode_step(
                    thresholds,
                    words[index],
                    sample_count=sample_count,
                    stream_count=layer.n_inputs,
                    length=layer.length,
                    seed=seed,
                    first_sample=first_sample + begin,
                    domain=domain_of("input", layer.tensor_id),
                    threshold_offset=threshold_offset,
                )
            )
            if layer is last:
                steps += layer.streams.steps(words[index], last_counts, sample_count, begin * last.n_neurons)
            else:
                counts, thresholds = hidden[index]
                threshold_offset = 0
                integers = activations[index].integers(layer.n_inputs, layer.length, layer.polarity)
                steps += layer.streams.steps(words[index], counts, sample_count)
                steps.append(activation_step(counts, thresholds, sample_count * layer.n_neurons, integers))
    (counts,) = backend.execute(steps, [last_counts])
    return counts.reshape(batch, last.n_neurons)
