"""accuracy: how far streams are from what they should say, and how soon."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.bitstream import Bitstream, bitstream_of
from scgpu.pairs import pair_counts
from scgpu.thermometer import thermometer

BITS_AT_ONCE = 1 << 22  # whose running counts are on the host together


def value_error(streams: Bitstream, expected: ArrayLike) -> NDArray[np.float64]:
    """Value of each stream minus what it should be.

    Parameters
    ----------
    streams : Bitstream
        Of any shape.
    expected : array_like
        Finite numbers, of the shape of ``streams`` or one that broadcasts to it.

    Returns
    -------
    ndarray of float64, of the shape of ``streams``

    Raises
    ------
    ValueError
        ``expected`` of another shape, or not finite.
    TypeError
        ``streams`` is no `Bitstream`, or ``expected`` holds no numbers.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.value_error(scgpu.thermometer([1, 2], 4, device="cpu"), 0.5).tolist()
    [-0.25, 0.0]
    """
    error: NDArray[np.float64] = bitstream_of("streams", streams).value() - _expected(streams, expected)
    return error


def rmse(streams: Bitstream, expected: ArrayLike) -> float:
    """Root of the mean square of `value_error` over all streams; NaN where there are none.

    Parameters and errors as `value_error`.
    """
    errors = np.asarray(value_error(streams, expected))
    return math.sqrt(float(np.square(errors).mean())) if errors.size else math.nan


def progressive_value(streams: Bitstream, lengths: ArrayLike) -> NDArray[np.float64]:
    """Values of the first bits of each stream: progressive precision.

    What a stream would have said, had it been stopped there. All prefixes of all streams are counted by
    one call of operation dense on their device.

    Parameters
    ----------
    streams : Bitstream
        Of any shape, of at most 2**32 - 1 bits.
    lengths : array_like of int, shape (k,)
        How many bits, 1 to the length of the streams, in any order.

    Returns
    -------
    ndarray of float64, shape (..., k)
        Ones among the first bits over their number, bipolar 2 p - 1.

    Raises
    ------
    ValueError
        A length out of range, or ``lengths`` of more than one dimension.
    TypeError
        ``streams`` is no `Bitstream`, or lengths are no integers.
    TooLargeError
        Longer streams, or counts that do not fit a buffer of the device.

    References
    ----------
    A. Alaghi, J. P. Hayes: Fast and accurate computation using stochastic circuits. DATE 2014.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.progressive_value(scgpu.thermometer(2, 4, device="cpu"), [1, 2, 3, 4]).round(2).tolist()
    [1.0, 1.0, 0.67, 0.5]
    """
    bitstream_of("streams", streams)
    stops = arguments.integers("lengths", lengths, 1, streams.length)
    if stops.ndim != 1:
        raise ValueError(f"lengths must have shape (k,); got {stops.shape}")
    masks = thermometer(stops, streams.length, device=streams.device)
    shares = pair_counts(streams, masks).reshape(*streams.shape, stops.size) / stops
    return 2 * shares - 1 if streams.polarity == "bipolar" else shares


def stable_length(streams: Bitstream, expected: ArrayLike, bound: float) -> NDArray[np.uint64]:
    """Bits after which each stream stays near its value: where it may be stopped early.

    The least n such that the values of the first n, n + 1, ... bits up to the last all differ from
    ``expected`` by at most ``bound``. The smaller n is against the length, the more stable is the stream.

    Parameters
    ----------
    streams : Bitstream
        Of any shape. Their bits are fetched from the device.
    expected : array_like
        Finite numbers, of the shape of ``streams`` or one that broadcasts to it.
    bound : float
        Largest difference, at least 0.

    Returns
    -------
    ndarray of uint64, of the shape of ``streams``
        1 to length; length + 1 where the whole stream is off by more.

    Raises
    ------
    ValueError
        ``expected`` of another shape or not finite, or a ``bound`` below 0 or not finite.
    TypeError
        ``streams`` is no `Bitstream`, or the others are no numbers.

    References
    ----------
    D. Wu et al.: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.stable_length(scgpu.thermometer([1, 2, 4], 4, device="cpu"), 0.5, 0.25)
    array([2, 3, 5], dtype=uint64)
    """
    bitstream_of("streams", streams)
    target = np.ascontiguousarray(_expected(streams, expected)).reshape(-1, 1)
    limit = arguments.reals("bound", bound)
    if limit.ndim or limit < 0:
        raise ValueError(f"bound must be a single number and at least 0; got {limit.tolist()}")
    bits = streams.bits().reshape(-1, streams.length)
    positions = np.arange(1, streams.length + 1)
    stable = np.empty(len(bits), np.uint64)
    at_once = max(1, BITS_AT_ONCE // streams.length)
    for begin in range(0, len(bits), at_once):
        some = slice(begin, begin + at_once)
        values = np.cumsum(bits[some], axis=1, dtype=np.int64) / positions
        if streams.polarity == "bipolar":
            values = 2 * values - 1
        off = np.abs(values - target[some]) > limit
        stable[some] = np.where(off, positions, 0).max(axis=1) + 1
    return stable.reshape(streams.shape)[()]


def _expected(streams: Bitstream, expected: ArrayLike) -> NDArray[np.float64]:
    """Finite numbers in the shape of the streams."""
    array = arguments.reals("expected", expected)
    try:
        return np.broadcast_to(array, streams.shape)
    except ValueError:
        raise ValueError(f"expected must broadcast to the streams' shape {streams.shape}; got {array.shape}") from None
