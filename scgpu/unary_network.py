"""A network of UnarySim's kind, cycle by cycle, on scikit-learn's handwritten digits.

The method is that of UnarySim's application ``mlp`` (github.com/diwu1990/UnarySim, 2020): three layers with biases,
weights of 8 bits, bipolar streams of 256 bits of Sobol' numbers, sums that are not scaled but cut to -1 .. 1, ReLU
with a counter of 4 bits. A layer writes a bit for each cycle, which the next one reads; the answer is the longest
output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.conditional import conditional_layer
from scgpu.demo import Digits, load_digits
from scgpu.encode import encode
from scgpu.fsm import relu
from scgpu.pairs import pair_counts
from scgpu.sng import NumberTable
from scgpu.thermometer import thermometer
from scgpu.unary_units import LENGTH, row_for_each_stream, torch_numbers

MODEL = Path(__file__).with_name("data") / "unary_digits.npz"
RELU_DEPTH = 4
COUNTER = 256  # states of the counter that adds up in a layer of Gaines'
STREAMS_AT_ONCE = 1 << 20  # masks of 256 bits that are made together: 32 MiB

Bits = NDArray[np.uint8]


@dataclass(frozen=True)
class UnaryModel:
    """The trained network: x = clip(W x + b, -1, 1) three times, ReLU between.

    Attributes
    ----------
    layers : tuple of ndarray of int16
        Weights in 128ths of each layer, -128 to 128, the biases as the last column.
    split_seed : int
        `scgpu.demo.load_digits` of it gives the half that the network was trained on.
    """

    layers: tuple[NDArray[np.int16], ...]
    split_seed: int

    def digits(self) -> Digits:
        """The images, whose pixels are in [0, 1] as those of UnarySim are."""
        loaded = load_digits(self.split_seed)
        train, test = ((x + 1) / 2 for x in (loaded.train_inputs, loaded.test_inputs))
        return Digits(train, test, loaded.train_labels, loaded.test_labels)

    def scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The ten outputs of each image in float64."""
        for layer in self.layers:
            weights = layer / 128
            x = np.clip(np.maximum(x, 0) @ weights[:, :-1].T + weights[:, -1], -1, 1)
        return x


def load_unary_model(path: Path = MODEL) -> UnaryModel:
    """The network that ``examples/train_unary_digits.py`` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return UnaryModel(tuple(stored[f"layer_{k}"] for k in range(3)), int(stored["split_seed"]))


def _with_constant(bits: Bits) -> Bits:
    """An input of 1 more, which a bias is the weight of."""
    return np.concatenate([bits, np.ones_like(bits[:, :1])], axis=1)


def conditional_cycles(bits: Bits, layer: NDArray[np.int16], device: str | int | Device) -> Bits:
    """Bits of a layer of uGEMM: bipolar uMUL products, and `scgpu.unary_add` of them.

    ``bits`` has shape (batch, inputs, length), the result (batch, neurons, length). Of the inputs up to a cycle only
    the numbers of ones and zeros count, so the products of many cycles are one `conditional_layer` for each.
    """
    weights = encode((layer + 128) / 256, LENGTH, resolution=8, sng=NumberTable(torch_numbers(0)), device=device)
    bits = _with_constant(bits)
    batch, inputs, length = bits.shape
    result = np.empty((batch, len(layer), length), np.uint8)
    written = np.zeros(result.shape[:2], np.int64)
    at_once = max(1, STREAMS_AT_ONCE // (batch * inputs))
    before = np.zeros((batch, inputs), np.int64)

    def first(steps: NDArray[np.int64]) -> NDArray[np.int64]:
        masks = thermometer(steps.reshape(-1, inputs), LENGTH, device=device)
        return conditional_layer(masks, weights).astype(np.int64).reshape(-1, batch, len(layer))

    for begin in range(0, length, at_once):
        ones = before + np.cumsum(np.moveaxis(bits[..., begin : begin + at_once], -1, 0), axis=0, dtype=np.int64)
        before = ones[-1]
        cycles = begin + 1 + np.arange(len(ones))[:, None, None]
        zeros = cycles - ones
        products = first(ones) - first(zeros) + zeros.sum(axis=2, keepdims=True)
        for t, sums in enumerate(2 * products - (inputs - 1) * cycles, begin):
            result[..., t] = sums >= 2 * written + 2
            written += result[..., t]
    return result


def gaines_cycles(bits: Bits, layer: NDArray[np.int16], scaled: int, device: str | int | Device) -> Bits:
    """Bits of a layer of Gaines': XNOR products, and a sum of them, of the same shapes as `conditional_cycles`.

    Each input's weights have a dimension of their own. ``scaled`` 0 is a saturating counter, up by the products that
    are 1 and down by those that are 0, which writes 1 in its upper half; else the number of products is compared
    with numbers of this dimension (counted from 1).
    """
    count = layer.shape[1]
    numbers = np.stack([torch_numbers(dimension) for dimension in range(count)])
    own = row_for_each_stream(numbers)
    weights = encode((layer + 128) / 256, LENGTH, resolution=8, sng=own, device=device).bits()
    width = round(np.log2(count))
    limits = torch_numbers(scaled - 1, 1 << width) >> np.uint32(32 - width) if scaled else None
    bits = _with_constant(bits)
    result = np.empty((len(bits), len(layer), bits.shape[-1]), np.uint8)
    counter = np.full(result.shape[:2], COUNTER // 2)
    for t in range(bits.shape[-1]):
        a, b = (Bitstream.from_bits(one[..., t], device=device) for one in (bits, weights))
        equal = count - a.count().astype(np.int64)[:, None] - b.count().astype(np.int64) + 2 * pair_counts(a, b)
        if limits is not None:
            result[..., t] = equal >= limits[t % limits.size]
            continue
        np.clip(counter + 2 * equal - count, 0, COUNTER - 1, out=counter)
        result[..., t] = counter > COUNTER // 2
    return result


def unary_outputs(
    model: UnaryModel, x: NDArray[np.float64], unit: str, device: str | int | Device
) -> NDArray[np.int64]:
    """Ones of the ten output streams of each image, by "uGEMM", "counter" or "scaled" layers."""
    streams = encode(x, LENGTH, resolution=8, polarity="bipolar", sng=NumberTable(torch_numbers(0)), device=device)
    bits = streams.bits()
    for place, layer in enumerate(model.layers):
        if place:
            bits = relu(Bitstream.from_bits(bits, polarity="bipolar", device=device), RELU_DEPTH).bits()
        if unit == "uGEMM":
            bits = conditional_cycles(bits, layer, device)
        else:
            bits = gaines_cycles(bits, layer, 7 + place if unit == "scaled" else 0, device)
    ones: NDArray[np.int64] = bits.sum(axis=-1, dtype=np.int64)
    return ones
