"""faults: bit flips, bursts, stuck bits and dropped cycles, the same ones on every device.

Which bits are hit is decided by Bernoulli streams of the contract's generator with the purpose
"noise", made where the streams lie; AND, OR, XOR and delays do the rest.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.bitstream import Bitstream
from scgpu.encode import encode

Stuck = Literal["bit", "stream"]


def _checked(streams: Bitstream) -> Bitstream:
    if not isinstance(streams, Bitstream):
        raise TypeError(
            f"streams must be a Bitstream; got {type(streams).__name__}. Use Bitstream.from_words for packed words, "
            "or scgpu.encode for numbers."
        )
    return streams


def _rates(rate: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The rate of each stream, of shape (sample, stream): leading axes are rows of one batch."""
    rates = arguments.probabilities("rate", rate)
    try:
        every = np.broadcast_to(rates, shape)
    except ValueError:
        raise ValueError(
            f"rate must be a number, or broadcast to the shape of the streams, {shape}; got shape {rates.shape}"
        ) from None
    columns = shape[-1] if shape else 1
    return np.reshape(every, (math.prod(shape[:-1]), columns))


def _mask(
    streams: Bitstream,
    rates: NDArray[np.float64],
    seed: int,
    tensor_id: int,
    first_sample: int,
    first_stream: int,
) -> Bitstream:
    """Bernoulli streams of the given rates, beside ``streams``; ones are where a fault is."""
    made = encode(
        rates,
        streams.length,
        seed,
        first_sample=first_sample,
        first_stream=first_stream,
        purpose="noise",
        tensor_id=tensor_id,
        device=streams.device,
    )
    return Bitstream(made._backend, made._parts, streams.shape, streams.length, streams.polarity)


def flip_bits(
    streams: Bitstream,
    rate: ArrayLike,
    seed: int = 0,
    *,
    burst: int = 1,
    tensor_id: int = 0,
    first_sample: int = 0,
    first_stream: int = 0,
) -> Bitstream:
    """Flip bits at random: single ones, or runs of them.

    With F the streams that `scgpu.encode` makes of ``rate`` with ``purpose="noise"`` and these
    arguments, a burst begins at bit t where F(t) = 1, and

        result(t) = streams(t) XOR (F(t) OR F(t - 1) OR ... OR F(t - burst + 1))

    so that bursts which meet are one longer burst. Each bit is flipped with the probability
    ``1 - (1 - rate)**burst`` from bit ``burst - 1`` on, and less often before: no burst begins before
    bit 0. A unipolar value p becomes p + f (1 - 2 p) on average, a bipolar one (1 - 2 f) v, for a share f
    of flipped bits.

    Parameters
    ----------
    streams : Bitstream
        Of any shape; the last axis counts streams, the ones before it samples, in C order.
    rate : float or array_like of float
        Probability in [0, 1] that a burst begins at a bit; broadcast to the shape of ``streams``. 0 changes
        nothing, 1 flips every bit.
    seed : int
        0 to 2**64 - 1.
    burst : int
        Bits of a burst, 1 to ``streams.length``; 1 flips bits independently.
    tensor_id : int
        0 to 2**24 - 1. Faults of one seed with different ids are independent; equal ones hit equal places.
    first_sample, first_stream : int
        Indices of the first sample and of the first stream of each, as in `scgpu.encode`.

    Returns
    -------
    Bitstream
        Of the shape, length and polarity of ``streams``, on their device.

    Raises
    ------
    ValueError
        A rate, seed, burst, id or index out of range, or a rate of a wrong shape.
    TypeError
        ``streams`` is no `Bitstream`, or something else is no number.
    TooLargeError
        The streams of faults do not fit the device's memory.

    References
    ----------
    Qian, Li, Riedel, Bazargan, Lilja: An architecture for fault-tolerant computation with stochastic
    logic. IEEE Transactions on Computers 60 (2011).

    Examples
    --------
    >>> import scgpu
    >>> x = scgpu.encode([0.0, 0.5, 1.0], length=65536, device="cpu")
    >>> scgpu.flip_bits(x, 0.1, seed=1).value().round(1).tolist()
    [0.1, 0.5, 0.9]
    """
    rates = _rates(rate, _checked(streams).shape)
    burst = arguments.integer("burst", burst, 1, streams.length)
    faults = _mask(streams, rates, seed, tensor_id, first_sample, first_stream)
    reach = 1  # bits that a fault covers by now
    while reach < burst:
        step = min(reach, burst - reach)
        faults = faults | faults.delayed(step)
        reach += step
    return streams ^ faults


def stuck_at(
    streams: Bitstream,
    value: int,
    rate: ArrayLike,
    seed: int = 0,
    *,
    each: Stuck = "bit",
    tensor_id: int = 0,
    first_sample: int = 0,
    first_stream: int = 0,
) -> Bitstream:
    """Force bits, or whole streams, to 0 or to 1.

    With F the streams that `scgpu.encode` makes of ``rate`` with ``purpose="noise"`` and these
    arguments, a result is ``streams AND NOT F`` for value 0, and ``streams OR F`` for value 1. With
    ``each="stream"`` a stream is stuck from its first bit to its last where F(0) = 1, and else as it was.

    Parameters
    ----------
    streams : Bitstream
        Of any shape; the last axis counts streams, the ones before it samples, in C order.
    value : int
        0 or 1.
    rate : float or array_like of float
        Probability in [0, 1] that a bit, or a stream, is stuck; broadcast to the shape of ``streams``. Rates of
        0 and 1 choose streams: ``each`` is then the same either way.
    seed : int
        0 to 2**64 - 1.
    each : {"bit", "stream"}
        What is stuck or not.
    tensor_id, first_sample, first_stream : int
        As in `flip_bits`.

    Returns
    -------
    Bitstream
        Of the shape, length and polarity of ``streams``, on their device.

    Raises
    ------
    ValueError, TypeError, TooLargeError
        As `flip_bits`.

    Examples
    --------
    >>> import scgpu
    >>> x = scgpu.Bitstream.from_bits([[1, 0, 1, 0], [1, 0, 1, 0]], device="cpu")
    >>> scgpu.stuck_at(x, 1, [0.0, 1.0]).bits().tolist()
    [[1, 0, 1, 0], [1, 1, 1, 1]]
    """
    rates = _rates(rate, _checked(streams).shape)
    value = arguments.integer("value", value, 0, 1)
    arguments.choice("each", each, ("bit", "stream"))
    if each == "stream":
        first_bits = encode(
            rates,
            1,
            seed,
            first_sample=first_sample,
            first_stream=first_stream,
            purpose="noise",
            tensor_id=tensor_id,
            device=streams.device,
        )
        rates = first_bits.value()
    faults = _mask(streams, rates, seed, tensor_id, first_sample, first_stream)
    return streams | faults if value else streams & ~faults


def drop_cycles(
    streams: Bitstream,
    rate: ArrayLike,
    seed: int = 0,
    *,
    tensor_id: int = 0,
    first_sample: int = 0,
    first_stream: int = 0,
) -> Bitstream:
    """Drop clock cycles of the register that passes each stream on.

    A flip-flop that misses its clock edge keeps what it holds, so the bit of that cycle is lost and the bit
    before it is seen again; the stream keeps its length and its timing. With F the streams that
    `scgpu.encode` makes of ``rate`` with ``purpose="noise"`` and these arguments,

        result(t) = result(t - 1) where F(t) = 1, else streams(t)        result(-1) = 0, the reset

    The value of a stream of independent bits stays what it was, on average and but for the bits before the
    first that is passed on; its bits become correlated in time.

    Parameters
    ----------
    streams : Bitstream
        Of any shape; the last axis counts streams, the ones before it samples, in C order.
    rate : float or array_like of float
        Probability in [0, 1] that a cycle is dropped; broadcast to the shape of ``streams``. 0 changes nothing;
        with 1 the register stays at its reset, 0.
    seed, tensor_id, first_sample, first_stream : int
        As in `flip_bits`.

    Returns
    -------
    Bitstream
        Of the shape, length and polarity of ``streams``, on their device.

    Raises
    ------
    ValueError, TypeError, TooLargeError
        As `flip_bits`.

    Notes
    -----
    The recursion is a parallel prefix (Kogge & Stone 1973): ``ceil(log2(length))`` rounds of delays.

    Examples
    --------
    >>> import scgpu
    >>> x = scgpu.encode([0.25], length=65536, device="cpu")
    >>> scgpu.drop_cycles(x, 0.5, seed=1).value().round(2).tolist()
    [0.25]
    """
    rates = _rates(rate, _checked(streams).shape)
    dropped = _mask(streams, rates, seed, tensor_id, first_sample, first_stream)
    passed = streams & ~dropped
    reach = 1  # cycles since which `dropped` says that all were; `passed` looks back as far
    while reach < streams.length:
        passed = passed | dropped & passed.delayed(reach)
        dropped = dropped & dropped.delayed(reach)
        reach *= 2
    return passed
