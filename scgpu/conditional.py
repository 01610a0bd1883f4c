"""conditional: products whose weight generator goes on only where the input lets it (uGEMM's uMUL)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scgpu import arguments
from scgpu._abi import PASS_STEPS
from scgpu.backend import Step
from scgpu.bitstream import Bitstream, Part, bitstream_of
from scgpu.pairs import pair_counts
from scgpu.thermometer import thermometer

LONGEST_PERIOD = 1 << 31
"""Bits that a weight stream may have: kernels count places in 32 bits."""


def conditional_product(inputs: Bitstream, weights: Bitstream) -> Bitstream:
    """Bits of uMUL, the multiplication of uGEMM in which each bit of an input moves the weight on.

    A weight stream is one period of a generator compared with the weight. Where the input is 1, the
    result is the weight's next bit, counted by the ones of the input so far; where it is 0, the result is
    0, or for bipolar streams the complement of the weight's next bit, counted by the zeros so far. Every
    input so meets all of the generator in turn, and no correlation spoils the product.

    Operation conditional goes through a word of the input at a time, not cycle by cycle. `conditional_counts`
    needs no bits.

    Parameters
    ----------
    inputs : Bitstream
        Of any shape and length.
    weights : Bitstream
        Of equal shape and polarity. Its length, one period of the generator, may be another, to 2**31: after
        its last bit comes its first.

    Returns
    -------
    Bitstream
        Of the length of the inputs, on their device.

    Raises
    ------
    ValueError
        Streams of different shape or polarity, or a period out of range.
    TypeError
        Something that is no `Bitstream`.
    TooLargeError
        A result that does not fit the device.

    References
    ----------
    D. Wu et al.: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> import scgpu
    >>> x = scgpu.Bitstream.from_bits([1, 0, 0, 1, 1, 0], device="cpu")
    >>> w = scgpu.Bitstream.from_bits([1, 0, 1], device="cpu")
    >>> scgpu.conditional_product(x, w).bits().tolist()
    [1, 0, 0, 0, 1, 0]
    """
    _require_equal(inputs, weights, "shape", "polarity")
    period = arguments.integer("length of the weights", weights.length, 1, LONGEST_PERIOD)
    backend = inputs._backend
    generators = weights._on(inputs._backend)._parts
    parts = []
    for begin, end, words in inputs._parts:
        result = backend.empty("u64", (end - begin) * -(-inputs.length // 64))
        steps: list[Step] = []
        for generator in generators:
            first, last = max(begin, generator.begin), min(end, generator.end)
            if first < last:
                places = backend.upload(np.zeros(2 * (last - first), "<u4"))
                steps += _steps(
                    (words, generator.buffer, places, result),
                    stream_count=last - first,
                    length=inputs.length,
                    period=period,
                    bipolar=int(inputs.polarity == "bipolar"),
                    first_input=first - begin,
                    first_weight=first - generator.begin,
                    most_words=PASS_STEPS // 64 if backend.device.kind == "gpu" else 2**32,
                )
        backend.execute(steps)
        parts.append(Part(begin, end, result))
    return Bitstream(backend, parts, inputs.shape, inputs.length, inputs.polarity)


def _steps(
    buffers: tuple[Any, ...],
    *,
    stream_count: int,
    length: int,
    period: int,
    bipolar: int,
    first_input: int,
    first_weight: int,
    most_words: int,
) -> list[Step]:
    """The kernel calls that multiply streams, from places that are there."""
    word_count = -(-length // 64)
    return [
        Step(
            "conditional",
            {
                "stream_count": stream_count,
                "word_count": word_count,
                "tail_bits": length - 64 * (word_count - 1),
                "word_begin": begin,
                "word_end": min(begin + most_words, word_count),
                "period": period,
                "bipolar": bipolar,
                "first_input": first_input,
                "first_weight": first_weight,
            },
            buffers,
        )
        for begin in range(0, word_count, most_words)
    ]


def conditional_counts(inputs: Bitstream, weights: Bitstream) -> NDArray[np.uint64]:
    """Ones of `conditional_product`, in closed form.

    Let n be the ones of an input, L its length, and W(k) the ones among the first k bits of the weight
    stream, repeated. Then there are W(n) ones; for bipolar streams W(n) + (L - n) - W(L - n). The order of
    an input's bits does not matter. Counted on the device of the weights.

    Parameters and errors as `conditional_product`, without a limit to the period.

    Returns
    -------
    ndarray of uint64, of the shape of the streams
    """
    _require_equal(inputs, weights, "shape", "polarity")
    ones = inputs.count().astype(np.int64)
    period = weights.count().astype(np.int64)

    def first(steps: Any) -> Any:
        whole, rest = np.divmod(steps, weights.length)
        mask = thermometer(rest, weights.length, polarity=weights.polarity, device=weights.device)
        return whole * period + (weights & mask).count().astype(np.int64)

    counts = first(ones)
    if inputs.polarity == "bipolar":
        zeros = inputs.length - ones
        counts = counts + zeros - first(zeros)
    return np.asarray(counts).astype(np.uint64)[()]


def conditional_layer(inputs: Bitstream, weights: Bitstream) -> NDArray[np.uint64]:
    """Ones of the conditional products of a layer, summed over its inputs: uGEMM's matrix product.

    counts[s, n] = sum over i of `conditional_counts` (inputs[s, i], weights[n, i]), by operation dense on
    the device of the weights. As in `DenseLayer` the values are counts / length, for bipolar layers
    2 counts / length - n_inputs.

    Parameters
    ----------
    inputs : Bitstream, shape (batch, n_inputs)
        Of any length.
    weights : Bitstream, shape (n_neurons, n_inputs)
        Of equal polarity. Its length is one period of the generators.

    Returns
    -------
    ndarray of uint64, shape (batch, n_neurons)

    Raises
    ------
    ValueError
        Other shapes, or streams of different polarity.
    TypeError
        Something that is no `Bitstream`.
    TooLargeError
        ``n_inputs`` times the length of the weights above 2**32 - 1, or what does not fit the device.
    """
    _require_equal(inputs, weights, "polarity")
    if len(inputs.shape) != 2 or len(weights.shape) != 2 or inputs.shape[1] != weights.shape[1]:
        raise ValueError(
            "inputs must have shape (batch, n_inputs) and weights (n_neurons, n_inputs); "
            f"got {inputs.shape} and {weights.shape}"
        )
    n_inputs = arguments.integer("n_inputs", inputs.shape[1], 1, 2**32 - 1)
    ones = inputs.count().astype(np.int64)
    periods = weights.count().astype(np.int64).T

    def first(steps: NDArray[np.int64]) -> NDArray[np.int64]:
        whole, rest = np.divmod(steps, weights.length)
        masks = thermometer(rest, weights.length, device=weights.device)
        counts: NDArray[np.int64] = pair_counts(masks, weights, n_inputs)
        if whole.any():  # NumPy's products of integers are slow
            counts += whole @ periods
        return counts

    counts = first(ones)
    if inputs.polarity == "bipolar":
        zeros = inputs.length - ones
        counts += zeros.sum(axis=1, keepdims=True) - first(zeros)
    return counts.astype(np.uint64)


def _require_equal(inputs: Bitstream, weights: Bitstream, *names: str) -> None:
    """Refuse streams that differ in one of these."""
    bitstream_of("inputs", inputs), bitstream_of("weights", weights)
    for name in names:
        left, right = getattr(inputs, name), getattr(weights, name)
        if left != right:
            raise ValueError(f"inputs and weights must have equal {name}; got {left!r} and {right!r}")
