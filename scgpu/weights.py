"""Weight streams of a dense layer on its device, in the contract's two kinds.

Independent ones are bitstreams, a layer's products AND and popcount. Shared ones follow one
comparator sequence per input, so a weight is its rank and a product a look-up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from scgpu._abi import PASS_WORDS
from scgpu.arguments import Polarity
from scgpu.backend import Backend, Device, Step, require_host_memory
from scgpu.bitstream import Bitstream, Part
from scgpu.devices import backend_for
from scgpu.encode import encode, thresholds_of
from scgpu.errors import TooLargeError
from scgpu.lookup import lookup_steps
from scgpu.permute import mask_words, networks, ordered_by_network, permute_step
from scgpu.prefix import entry_count, prefix_step, rows32
from scgpu.sequence import SequenceName, ranked
from scgpu.sng import Sng

WeightStreamsKind = Literal["independent", "shared"]
KINDS = ("independent", "shared")

# An invocation of the prefix kernel that makes the entries of a longer stream would run into the
# loop limit of software rasterisers.
LONGEST_SHARED = 1 << 20
ENTRY_BYTES = 4 << 20  # entries of as many samples are made before they are looked up
NEURONS_IN_STEP = 64  # parts of a layer's neurons begin at multiples of it


@dataclass(frozen=True)
class Form:
    """The layer that weight streams belong to; attributes as those of `scgpu.DenseLayer`."""

    n_inputs: int
    n_neurons: int
    length: int
    seed: int
    polarity: Polarity
    tensor_id: int
    device: Device
    sng: Sng | None = None

    @property
    def word_count(self) -> int:
        """Words of a stream."""
        return -(-self.length // 64)


def dense_step(
    weights: Any,
    inputs: Any,
    counts: Any,
    *,
    sample_count: int,
    neuron_count: int,
    row_words: int,
    word_begin: int = 0,
    word_end: int | None = None,
    count_offset: int = 0,
    count_stride: int | None = None,
    initial: int = 0,
    accumulate: bool = False,
    bipolar: bool = False,
) -> Step:
    """The kernel call that counts products of weights (neuron, word) and inputs (sample, word), over some words."""
    params = {
        "sample_count": sample_count,
        "neuron_count": neuron_count,
        "row_words": row_words,
        "word_begin": word_begin,
        "word_end": row_words if word_end is None else word_end,
        "count_offset": count_offset,
        "count_stride": neuron_count if count_stride is None else count_stride,
        "initial": initial,
        "accumulate": int(accumulate),
        "bipolar": int(bipolar),
    }
    return Step("dense", params, (weights, inputs, counts))


def dense_steps(
    weights: Any,
    inputs: Any,
    counts: Any,
    *,
    sample_count: int,
    neuron_count: int,
    row_words: int,
    count_offset: int = 0,
    count_stride: int | None = None,
    initial: int = 0,
    bipolar: bool = False,
) -> list[Step]:
    """`dense_step` over all words of the rows, long rows in several passes."""
    return [
        dense_step(
            weights,
            inputs,
            counts,
            sample_count=sample_count,
            neuron_count=neuron_count,
            row_words=row_words,
            word_begin=begin,
            word_end=min(begin + PASS_WORDS, row_words),
            count_offset=count_offset,
            count_stride=count_stride,
            initial=initial,
            accumulate=begin > 0,
            bipolar=bipolar,
        )
        for begin in range(0, row_words, PASS_WORDS)
    ]


def product_steps(
    form: Form, weights: Sequence[Part], inputs: Any, counts: Any, sample_count: int, count_offset: int = 0
) -> list[Step]:
    """Products of a layer's input streams and weight streams, whose parts are some neurons' rows each."""
    bipolar = form.polarity == "bipolar"
    return [
        step
        for part in weights
        for step in dense_steps(
            part.buffer,
            inputs,
            counts,
            sample_count=sample_count,
            neuron_count=(part.end - part.begin) // form.n_inputs,
            row_words=form.n_inputs * form.word_count,
            count_offset=count_offset + part.begin // form.n_inputs,
            count_stride=form.n_neurons,
            initial=form.n_inputs * form.length if bipolar else 0,
            bipolar=bipolar,
        )
    ]


class WeightStreams(Protocol):
    """A layer's weight streams on its device."""

    backend: Backend

    @property
    def sample_bytes(self) -> int:
        """Bytes of the largest buffer that one sample needs."""
        ...

    @property
    def packed(self) -> Bitstream:
        """The streams, shape (n_neurons, n_inputs)."""
        ...

    def scratch(self, sample_count: int) -> Sequence[Any]:
        """Buffers for what `steps` keeps in between; the steps of one submission may share them."""
        ...

    def steps(
        self, inputs: Any, counts: Any, scratch: Sequence[Any], sample_count: int, count_offset: int = 0
    ) -> list[Step]:
        """Kernel calls that count the products with input streams (sample, input, word)."""
        ...


class IndependentStreams:
    """Streams ``neuron * n_inputs + input`` of the contract's generator, in as many buffers as they need.

    Attributes
    ----------
    parts : list of (int, Bitstream)
        First neuron and streams of each buffer.
    """

    def __init__(self, form: Form, weights: NDArray[np.float64]) -> None:
        self._form = form
        self.backend = backend_for(form.device)
        self._part_neurons = self.neurons_per_part(form)
        self.parts = [self._encoded(weights, begin) for begin in range(0, form.n_neurons, self._part_neurons)]

    @staticmethod
    def neurons_per_part(form: Form) -> int:
        """Neurons whose streams share a buffer; `TooLargeError` where the streams cannot be had."""
        backend = backend_for(form.device)
        row_bytes = form.n_inputs * form.word_count * 8
        backend.require(row_bytes)
        backend.require_total(row_bytes * form.n_neurons)
        return min(form.n_neurons, backend.largest_buffer // row_bytes)

    def _encoded(self, weights: NDArray[np.float64], first_neuron: int) -> tuple[int, Bitstream]:
        form = self._form
        rows = weights[first_neuron : first_neuron + self._part_neurons]
        streams = encode(
            rows.reshape(-1),
            form.length,
            form.seed,
            polarity=form.polarity,
            first_stream=first_neuron * form.n_inputs,
            purpose="weight",
            tensor_id=form.tensor_id,
            sng=form.sng or "bernoulli",
            device=form.device,
        )
        return first_neuron, streams._reshaped(*rows.shape)

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample's input streams."""
        return self._form.n_inputs * self._form.word_count * 8

    @property
    def packed(self) -> Bitstream:
        """The streams, where they lie."""
        form = self._form
        parts = [
            Part(first * form.n_inputs, first * form.n_inputs + math.prod(streams.shape), streams._buffer)
            for first, streams in self.parts
        ]
        return Bitstream(self.backend, parts, (form.n_neurons, form.n_inputs), form.length, form.polarity)

    def scratch(self, sample_count: int) -> Sequence[Any]:
        """Nothing is kept in between."""
        return ()

    def steps(
        self, inputs: Any, counts: Any, scratch: Sequence[Any], sample_count: int, count_offset: int = 0
    ) -> list[Step]:
        """Products by AND and popcount."""
        return product_steps(self._form, self.packed._parts, inputs, counts, sample_count, count_offset)


class SharedStreams:
    """Weights as ranks in one comparator sequence per input."""

    def __init__(self, form: Form, weights: NDArray[np.float64], sequence: SequenceName) -> None:
        self.require(form, sequence)
        self._form = form
        self._ranked = ranked(
            thresholds_of(weights, form.polarity), form.length, sequence, form.seed, form.tensor_id, form.device
        )
        self.backend = backend_for(form.device)
        self._in_order = [(0, form.n_inputs, 0, self.backend.empty("u32", 0))]
        self._by_network = sequence != "ramp" and ordered_by_network(form.device, form.length)
        self._orders = self._order_parts()
        self._rank_bits = 8 * self._ranked.ranks.dtype.itemsize
        self._ranks = self._rank_parts()

    @staticmethod
    def require(form: Form, sequence: SequenceName) -> None:
        """Raise `TooLargeError` where the streams cannot be had."""
        if form.length > LONGEST_SHARED:
            raise TooLargeError(
                f"shared weight streams have at most {LONGEST_SHARED:,} bits; got length={form.length}. "
                'Use a shorter length, or weight_streams="independent".'
            )
        backend = backend_for(form.device)
        small = 2 if form.length <= 0xFFFF else 4
        backend.require(SharedStreams._step_bytes(form, small))
        order_bytes = 0 if sequence == "ramp" else form.n_inputs * form.length * small
        if order_bytes and ordered_by_network(form.device, form.length):
            order_bytes += form.n_inputs * 8 * mask_words(form.length)
        # They are made on the host, whatever the device.
        require_host_memory(form.n_inputs * form.n_neurons * small + order_bytes)

    @staticmethod
    def _step_bytes(form: Form, rank_bytes: int) -> int:
        """Bytes of the ranks of the fewest neurons that a part may have."""
        return form.n_inputs * 4 * -(-min(NEURONS_IN_STEP, form.n_neurons) * rank_bytes // 4)

    def _order_parts(self) -> list[tuple[int, int, int, Any]]:
        """First input, end, elements of a row, buffer: order or masks of networks in as many buffers as they need."""
        order, n_inputs = self._ranked.order, self._form.n_inputs
        if order is None:
            return self._in_order
        row_bytes = 8 * mask_words(self._form.length) if self._by_network else 4 * -(-order[0].nbytes // 4)
        at_once = max(1, self.backend.largest_buffer // row_bytes)
        parts = []
        for begin in range(0, n_inputs, at_once):
            rows = order[begin : begin + at_once]
            flat, stride = (networks(rows), 0) if self._by_network else rows32(rows)
            parts.append((begin, begin + len(rows), stride, self.backend.upload(flat)))
        return parts

    def _rank_parts(self) -> list[tuple[int, int, int, Any]]:
        """First neuron, end, elements of a row, buffer."""
        ranks, n_neurons = self._ranked.ranks, self._form.n_neurons
        step_bytes = self._step_bytes(self._form, ranks.dtype.itemsize)
        at_once = self.backend.largest_buffer // step_bytes * min(NEURONS_IN_STEP, n_neurons)
        parts = []
        for begin in range(0, n_neurons, at_once):
            flat, stride = rows32(ranks[:, begin : begin + at_once])
            parts.append((begin, min(begin + at_once, n_neurons), stride, self.backend.upload(flat)))
        return parts

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample's entries, twice those of its streams and a little more."""
        return self._form.n_inputs * entry_count(self._form.length) * 8

    @property
    def packed(self) -> Bitstream:
        """The streams as bits, made anew on the layer's device."""
        form = self._form
        require_host_memory(form.n_neurons * form.n_inputs * form.word_count * 8)
        words = np.zeros((form.n_neurons, form.n_inputs, form.word_count), "<u8")
        octets = words.view(np.uint8)
        place = np.broadcast_to(np.arange(form.length), (form.n_inputs, form.length))
        if self._ranked.order is not None:
            place = np.argsort(self._ranked.order, axis=1)
        for neuron in range(form.n_neurons):
            bits = place < self._ranked.ranks[:, neuron, None]
            octets[neuron, :, : -(-form.length // 8)] = np.packbits(bits, axis=1, bitorder="little")
        return Bitstream.from_words(words, form.length, polarity=form.polarity, device=form.device)

    def _samples_at_once(self, sample_count: int) -> int:
        return min(max(1, ENTRY_BYTES // self.sample_bytes), sample_count)

    def scratch(self, sample_count: int) -> Sequence[Any]:
        """Entries of as many samples as are looked up together, and their streams where a network orders them."""
        form, at_once = self._form, self._samples_at_once(sample_count)
        entries = self.backend.empty("u64", at_once * self.sample_bytes // 8)
        if not self._by_network:
            return (entries,)
        return entries, self.backend.empty("u64", at_once * form.n_inputs * form.word_count)

    def steps(
        self, inputs: Any, counts: Any, scratch: Sequence[Any], sample_count: int, count_offset: int = 0
    ) -> list[Step]:
        """Products by look-up."""
        at_once = self._samples_at_once(sample_count)
        steps: list[Step] = []
        for begin in range(0, sample_count, at_once):
            count = min(at_once, sample_count - begin)
            steps += self._prefix_steps(inputs, scratch, begin, count)
            steps += self._lookup_steps(scratch[0], counts, count, count_offset + begin * self._form.n_neurons)
        return steps

    def _prefix_steps(self, inputs: Any, scratch: Sequence[Any], sample_begin: int, sample_count: int) -> list[Step]:
        form, orders = self._form, self._orders
        order_bits = 0 if self._ranked.order is None else 8 * self._ranked.order.dtype.itemsize
        steps: list[Step] = []
        if self._by_network:
            for begin, end, _, masks in orders:
                steps.append(
                    permute_step(
                        inputs,
                        masks,
                        scratch[1],
                        sample_begin=sample_begin,
                        sample_count=sample_count,
                        input_count=form.n_inputs,
                        input_begin=begin,
                        input_end=end,
                        length=form.length,
                    )
                )
            inputs, sample_begin, order_bits, orders = scratch[1], 0, 0, self._in_order
        for begin, end, stride, order in orders:
            steps.append(
                prefix_step(
                    inputs,
                    order,
                    scratch[0],
                    sample_begin=sample_begin,
                    sample_count=sample_count,
                    input_count=form.n_inputs,
                    input_begin=begin,
                    input_end=end,
                    length=form.length,
                    order_bits=order_bits,
                    order_stride=stride,
                )
            )
        return steps

    def _lookup_steps(self, entries: Any, counts: Any, sample_count: int, count_offset: int) -> list[Step]:
        form = self._form
        return [
            step
            for begin, end, stride, ranks in self._ranks
            for step in lookup_steps(
                ranks,
                entries,
                counts,
                sample_count=sample_count,
                neuron_count=end - begin,
                input_count=form.n_inputs,
                length=form.length,
                rank_bits=self._rank_bits,
                rank_stride=stride,
                count_offset=count_offset + begin,
                count_stride=form.n_neurons,
                polarity=form.polarity,
            )
        ]
