"""arithmetic: what gates, selectors and counters compute with bitstreams, where the streams lie."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scgpu import arguments
from scgpu.accumulate import LARGEST, MOST_INPUTS, Rule, accumulate, accumulate_stack
from scgpu.bitstream import Bitstream, Part, bitstream_of
from scgpu.encode import Purpose, encode
from scgpu.errors import TooLargeError


def multiply(a: Bitstream, b: Bitstream) -> Bitstream:
    """Product of independent streams: a AND b of unipolar ones, a XNOR b of bipolar ones.

    Parameters
    ----------
    a, b : Bitstream
        Of equal length, polarity and shape, with SCC 0 (see `scc`).

    Returns
    -------
    Bitstream
        On the device of a.

    Raises
    ------
    ValueError
        Streams of different length, polarity or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    B. R. Gaines: Stochastic computing systems. Advances in Information Systems Science 2, 1969.

    Examples
    --------
    >>> import scgpu
    >>> a = scgpu.Bitstream.from_bits([1, 1, 0, 0], device="cpu")
    >>> float(scgpu.multiply(a, scgpu.Bitstream.from_bits([1, 0, 1, 0], device="cpu")).value())
    0.25
    """
    _alike("a", [a, b])
    return ~(a ^ b) if a.polarity == "bipolar" else a & b


def minimum(a: Bitstream, b: Bitstream) -> Bitstream:
    """The smaller of two values, a AND b, of streams with SCC +1, unipolar or bipolar.

    Streams that share their random numbers have it (`encode` with the same seed and place), and so do
    two of `thermometer`. Parameters, result and errors as `multiply`.

    References
    ----------
    A. Alaghi, J. P. Hayes: Exploiting correlation in stochastic circuit design. ICCD 2013.
    """
    _alike("a", [a, b])
    return a & b


def maximum(a: Bitstream, b: Bitstream) -> Bitstream:
    """The larger of two values, a OR b, of streams with SCC +1, unipolar or bipolar; see `minimum`."""
    _alike("a", [a, b])
    return a | b


def absolute_difference(a: Bitstream, b: Bitstream) -> Bitstream:
    """The difference |a - b|, a XOR b, of unipolar streams with SCC +1; see `minimum`.

    Raises
    ------
    ValueError
        Streams of different length or shape, or bipolar ones.
    TypeError
        Something that is no `Bitstream`.
    """
    _unipolar("absolute_difference", _alike("a", [a, b]))
    return a ^ b


def saturating_add(inputs: Sequence[Bitstream]) -> Bitstream:
    """The sum of unipolar values, at most 1: OR of streams whose ones overlap as little as they can.

    min(1, a + b) for two streams with SCC -1, such as one of `encode` and the complement of another
    that shares its random numbers; a + b - a b for independent ones.

    Parameters
    ----------
    inputs : sequence of Bitstream
        At least one, unipolar, of equal length and shape.

    Returns
    -------
    Bitstream
        On the device of the first.

    Raises
    ------
    ValueError
        No streams, bipolar ones, or streams of different length or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    A. Alaghi, J. P. Hayes: Exploiting correlation in stochastic circuit design. ICCD 2013.
    """
    streams = _unipolar("saturating_add", _alike("inputs", inputs))
    return reduce(lambda a, b: a | b, streams)


def mux(select: Bitstream, a: Bitstream, b: Bitstream) -> Bitstream:
    """Multiplexer: the bit of a where that of ``select`` is 1, else that of b.

    With a ``select`` of share s that is independent of both, s a + (1 - s) b, unipolar or bipolar.

    Parameters
    ----------
    select : Bitstream
        Of any polarity; its bits count, not its value.
    a, b : Bitstream
        Of equal polarity. All three have one length and shape.

    Returns
    -------
    Bitstream
        On the device of a.

    Raises
    ------
    ValueError
        Streams of different length, polarity or shape.
    TypeError
        Something that is no `Bitstream`.

    Examples
    --------
    >>> import scgpu
    >>> s, a, b = (scgpu.Bitstream.from_bits(bits, device="cpu") for bits in ([1, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]))
    >>> scgpu.mux(s, a, b).bits().tolist()
    [1, 0, 1, 1]
    """
    _alike("a", [a, b])
    bitstream_of("select", select)
    chosen = Bitstream(select._backend, select._parts, select.shape, select.length, a.polarity)
    return b._on(a._backend) ^ ((a ^ b) & chosen)


def scaled_add(
    inputs: Sequence[Bitstream], weights: ArrayLike | None = None, *, seed: int = 0, tensor_id: int = 0
) -> Bitstream:
    """Weighted mean of any number of streams: a multiplexer that takes a random one of them at each time.

    The value is sum(w_k x_k) / sum(w_k), for unipolar and bipolar streams. Bit t is that of the first
    input k with U < T_k: U is the number of `encode` for purpose "select" at this stream and time, T_k
    the threshold of (w_0 + ... + w_k) / sum(w).

    Parameters
    ----------
    inputs : sequence of Bitstream
        At least one, of equal length, polarity and shape. They need not be independent of each other.
    weights : array_like, shape (number of inputs,), optional
        Not negative, with a positive sum. Default: equal weights.
    seed, tensor_id : int
        Of the random numbers, as in `encode`. Adders that feed one result should differ in either.

    Returns
    -------
    Bitstream
        On the device of the first.

    Raises
    ------
    ValueError
        No streams, streams of different length, polarity or shape, or weights that cannot be.
    TypeError
        Something that is no `Bitstream`, or weights that are no numbers.

    References
    ----------
    B. R. Gaines: Stochastic computing systems. Advances in Information Systems Science 2, 1969.

    Examples
    --------
    >>> import scgpu
    >>> x, y = scgpu.thermometer([65536, 0], 65536, device="cpu"), scgpu.thermometer([0, 65536], 65536, device="cpu")
    >>> scgpu.scaled_add([x, y], [3, 1]).value().round(2).tolist()
    [0.75, 0.25]
    """
    streams = _alike("inputs", inputs)
    shares = arguments.reals("weights", np.ones(len(streams)) if weights is None else weights)
    if shares.shape != (len(streams),):
        raise ValueError(f"weights must have shape ({len(streams)},), one for each input; got {shares.shape}")
    if (shares < 0).any() or not 0 < (total := shares.sum()) < math.inf:
        raise ValueError(f"weights must not be negative and have a positive, finite sum; got {shares.tolist()}")
    limits = np.minimum(np.cumsum(shares) / total, 1.0)
    result = streams[-1]
    for limit, stream in reversed(list(zip(limits[:-1], streams[:-1], strict=True))):
        result = mux(_encoded_like(stream, limit, seed, "select", tensor_id), stream, result)
    return result._on(streams[0]._backend)


class ParallelCount:
    """How many streams are 1 at each time, as bit planes on their device; made by `parallel_count`.

    Attributes
    ----------
    planes : tuple of Bitstream
        Bit t of plane j is bit j of the number of ones at time t; enough for the largest number.
    inputs : int
        Number of streams that were counted.
    """

    __slots__ = ("inputs", "planes")

    def __init__(self, planes: Sequence[Bitstream], inputs: int) -> None:
        self.planes = tuple(planes)
        self.inputs = inputs

    def total(self) -> NDArray[np.uint64]:
        """Ones of all streams at all times: uint64 of their shape, counted on the device."""
        total = np.zeros(self.planes[0].shape, np.uint64)
        for weight, plane in enumerate(self.planes):
            total = total + (plane.count() << np.uint64(weight))
        return total[()]

    def by_time(self) -> NDArray[np.uint32]:
        """Ones at each time: uint32 of shape (..., length)."""
        sums = self.planes[0].bits().astype(np.uint32)
        for weight, plane in enumerate(self.planes[1:], 1):
            sums += plane.bits().astype(np.uint32) << np.uint32(weight)
        return sums

    def __repr__(self) -> str:
        return f"ParallelCount(inputs={self.inputs}, planes={self.planes!r})"


def parallel_count(inputs: Sequence[Bitstream]) -> ParallelCount:
    """Parallel counter: the number of ones among the streams at each time, exactly.

    An accumulating parallel counter (APC) adds these numbers up: ``.total()``. The counter is a tree of
    full adders, five bitwise operations each, on the device of the first stream.

    Parameters
    ----------
    inputs : sequence of Bitstream
        At least one, of equal length, polarity and shape.

    Returns
    -------
    ParallelCount

    Raises
    ------
    ValueError
        No streams, or streams of different length, polarity or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    B. Parhami, C.-H. Yeh: Accumulative parallel counters. Asilomar Conference on Signals, Systems and
    Computers 1995.

    Examples
    --------
    >>> import scgpu
    >>> counted = scgpu.parallel_count([scgpu.thermometer(n, 4, device="cpu") for n in (1, 2, 4)])
    >>> counted.by_time().tolist(), int(counted.total())
    ([3, 2, 1, 1], 7)
    """
    streams = _alike("inputs", inputs)
    waiting, planes = [stream._on(streams[0]._backend) for stream in streams], []
    for _ in range(len(streams).bit_length()):
        carries = []
        while len(waiting) > 2:
            a, b, c = waiting.pop(), waiting.pop(), waiting.pop()
            half = a ^ b
            waiting.insert(0, half ^ c)
            carries.append((a & b) | (half & c))
        if len(waiting) == 2:
            a, b = waiting
            waiting = [a ^ b]
            carries.append(a & b)
        planes.append(waiting[0])
        waiting = carries
    return ParallelCount(planes, len(streams))


def approximate_parallel_count(inputs: Sequence[Bitstream]) -> ParallelCount:
    """Approximate parallel counter: about the number of ones among the streams at each time.

    The inputs go in pairs into gates, an OR, an AND, an OR and so on, and twice the ones of the gates are the
    count: a layer of full adders less than `parallel_count` has, and no lowest bit. Of a pair that differs OR
    counts one too many, AND one too few. So errors are at most a quarter of the inputs (rounded up to
    the next pair), and for n independent inputs of share 1/2 of mean 0 where n is a multiple of 4, and of
    standard deviation sqrt(n / 8).

    Parameters
    ----------
    inputs : sequence of Bitstream
        An even number, of equal length, polarity and shape.

    Returns
    -------
    ParallelCount
        Plane 0 is all 0.

    Raises
    ------
    ValueError
        No streams, an odd number of them, or streams of different length, polarity or shape.
    TypeError
        Something that is no `Bitstream`.

    References
    ----------
    K. Kim, J. Lee, K. Choi: Approximate de-randomizer for stochastic circuits. ISOCC 2015. A. Ren et al.: SC-DCNN:
    highly-scalable deep convolutional neural network using stochastic computing. ASPLOS 2017.

    Examples
    --------
    >>> import scgpu
    >>> inputs = [scgpu.thermometer(n, 6, device="cpu") for n in (2, 3, 4, 5)]
    >>> scgpu.parallel_count(inputs).by_time().tolist()
    [4, 4, 3, 2, 1, 0]
    >>> scgpu.approximate_parallel_count(inputs).by_time().tolist()
    [4, 4, 4, 2, 0, 0]
    """
    streams = _alike("inputs", inputs)
    if len(streams) % 2:
        raise ValueError(
            f"inputs must hold an even number of Bitstreams; got {len(streams)}. "
            "Add one of zeros, or use parallel_count."
        )
    gates = [
        a & b if place % 2 else a | b for place, (a, b) in enumerate(zip(streams[::2], streams[1::2], strict=True))
    ]
    planes = parallel_count(gates).planes
    return ParallelCount([planes[0] ^ planes[0], *planes], len(streams))


def unary_add(inputs: Sequence[Bitstream] | Bitstream, *, scale: int = 1, depth: int | None = None) -> Bitstream:
    """Sum of values over ``scale`` by an accumulator: uGEMM's non-scaled (1) or scaled (n inputs) addition.

    The accumulator A starts at 0. At each time the number of ones is added, for bipolar streams less
    (n - scale) / 2; if A >= scale, the bit is 1 and scale is taken off. What exceeds one bit at a time
    waits in A, so the result saturates: sum(x) / scale, cut to the range of the polarity. With
    ``scale=n`` the ones are floor(ones of all inputs / n) exactly.

    Operation accumulate counts and adds where the streams lie, many sums side by side.

    Parameters
    ----------
    inputs : sequence of Bitstream, or Bitstream of shape (n, ...)
        1 to 32,768, of equal length, polarity and shape, or one tensor that is added up along its first axis.
        They need not be independent.
    scale : int
        1 to the number of inputs.
    depth : int, optional
        Bits of the accumulator, to 32: the sum is cut to -2**(depth - 2) .. 2**(depth - 2), as in UnarySim,
        which must not be less than ``scale``. Default: unbounded.

    Returns
    -------
    Bitstream
        On the device of the first.

    Raises
    ------
    ValueError
        No streams, streams of different length, polarity or shape, or a number out of range.
    TypeError
        Something that is no `Bitstream`, or numbers that are no integers.
    TooLargeError
        Sums that could pass 2**30 (2**29 for bipolar streams where the number of inputs less ``scale`` is
        odd), or what does not fit the device.

    References
    ----------
    D. Wu et al.: uGEMM: unary computing architecture for GEMM applications. ISCA 2020.

    Examples
    --------
    >>> import scgpu
    >>> a, b = (scgpu.thermometer(n, 8, device="cpu") for n in (3, 2))
    >>> scgpu.unary_add([a, b]).bits().tolist(), scgpu.unary_add([a, b], scale=2).bits().tolist()
    ([1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0])
    """
    stacked = isinstance(inputs, Bitstream)
    streams = [inputs] if isinstance(inputs, Bitstream) else _alike("inputs", inputs)
    first = streams[0]
    if stacked and not first.shape:
        raise ValueError("inputs must have the streams to be added up along its first axis; got one stream")
    count = first.shape[0] if stacked else len(streams)
    rule = _unary_rule(count, first, scale, depth)
    if not stacked:
        alike = [stream._on(first._backend)._parts for stream in streams]
        parts = [
            Part(
                begin, end, accumulate(first._backend, [part.buffer for part in parts], end - begin, first.length, rule)
            )
            for parts in zip(*alike, strict=True)
            for begin, end, _ in parts[:1]
        ]
        return Bitstream(first._backend, parts, first.shape, first.length, first.polarity)
    if len(first._parts) > 1:
        raise TooLargeError(f"inputs lies in several buffers of {first.device}; give its rows as a list of Bitstreams")
    shape = first.shape[1:]
    added = accumulate_stack(first._backend, first._buffer, count, math.prod(shape), first.length, rule)
    return Bitstream(first._backend, [Part(0, math.prod(shape), added)], shape, first.length, first.polarity)


def _unary_rule(count: int, like: Bitstream, scale: int, depth: int | None) -> Rule:
    """The accumulator of `unary_add` for so many streams."""
    count = arguments.integer("number of inputs", count, 1, MOST_INPUTS)
    scale = arguments.integer("scale", scale, 1, count)
    least_depth = 2 + (scale - 1).bit_length()  # else A could never reach the scale
    surplus = count - scale if like.polarity == "bipolar" else 0
    shift = surplus % 2  # twice the numbers of the rule, where the offset is a half
    limit = count * like.length << shift
    if depth is not None:
        limit = min(limit, 2 ** (arguments.integer("depth", depth, least_depth, 32) - 2) << shift)
    if limit > LARGEST:
        raise TooLargeError(
            f"{count} streams of {like.length} bits could make the accumulator pass {LARGEST >> shift}. Use depth, of "
            "up to 31, or shorter streams."
        )
    return Rule(shift=shift, offset=(surplus << shift) // 2, scale=scale << shift, limit=limit)


def bernstein(inputs: Sequence[Bitstream], coefficients: ArrayLike, *, seed: int = 0, tensor_id: int = 0) -> Bitstream:
    """A polynomial in Bernstein form of degree n of a value: the ReSC architecture.

    The number k of ones among n streams of the same value x chooses, at each time, the stream of
    coefficient b_k, so that the result is

        B(x) = sum over k of b_k C(n, k) x**k (1 - x)**(n - k)

    The coefficients share the numbers of `encode` for purpose "select" at this stream and time, for only
    one of them is looked at.

    Parameters
    ----------
    inputs : sequence of Bitstream
        n of them, unipolar, of equal length and shape, of equal values and independent: `encode` with
        different seeds.
    coefficients : array_like, shape (n + 1,)
        In [0, 1]; `bernstein_coefficients` fits them to a function.
    seed, tensor_id : int
        Of the random numbers, as in `encode`. Adders that feed one result should differ in either.

    Returns
    -------
    Bitstream
        On the device of the first.

    Raises
    ------
    ValueError
        No streams, bipolar ones, streams of different length or shape, or coefficients that cannot be.
    TypeError
        Something that is no `Bitstream`, or coefficients that are no numbers.

    References
    ----------
    W. Qian, X. Li, M. D. Riedel, K. Bazargan, D. J. Lilja: An architecture for fault-tolerant computation
    with stochastic logic. IEEE Transactions on Computers 60(1), 2011.

    Examples
    --------
    >>> import scgpu
    >>> x = [scgpu.encode([0.0, 0.5, 1.0], 65536, seed, device="cpu") for seed in range(2)]
    >>> scgpu.bernstein(x, [0, 0, 1]).value().round(2).tolist()  # the square
    [0.0, 0.25, 1.0]
    """
    streams = _unipolar("bernstein", _alike("inputs", inputs))
    shares = _shares("coefficients", coefficients)
    if shares.shape != (len(streams) + 1,):
        raise ValueError(
            f"coefficients must have shape ({len(streams) + 1},), one more than there are inputs; got {shares.shape}"
        )
    choices = [_encoded_like(streams[0], share, seed, "select", tensor_id) for share in shares]
    for plane in parallel_count(streams).planes:
        pairs = zip(choices[1::2], choices[::2], strict=False)
        # without a partner, the number of ones that would choose it is out of reach
        choices = [mux(plane, odd, even) for odd, even in pairs] + choices[len(choices) // 2 * 2 :]
    return choices[0]


def bernstein_coefficients(function: Callable[[NDArray[np.float64]], ArrayLike], degree: int) -> NDArray[np.float64]:
    """Coefficients in [0, 1] whose Bernstein polynomial is nearest to a function on [0, 1].

    Nearest is the least sum of squares over 1,001 points. They are floating-point numbers of this machine;
    keep them where bits must be the same on another.

    Parameters
    ----------
    function : callable
        From an array of float64 in [0, 1] to numbers in [0, 1], of the same shape.
    degree : int
        n, 1 to 30.

    Returns
    -------
    ndarray of float64, shape (n + 1,)

    Raises
    ------
    ValueError
        Values outside of [0, 1], which no stream has, or a degree out of range.
    TypeError
        Values that are no numbers.

    References
    ----------
    W. Qian, M. D. Riedel: The synthesis of robust polynomial arithmetic with stochastic logic. DAC 2008.
    P. B. Stark, R. L. Parker: Bounded-variable least-squares. Computational Statistics 10, 1995.

    Examples
    --------
    >>> import scgpu
    >>> scgpu.bernstein_coefficients(lambda x: x * x, 2).round(6).tolist()
    [0.0, 0.0, 1.0]
    """
    degree = arguments.integer("degree", degree, 1, 30)
    if not callable(function):
        raise TypeError(f"function must be callable; got {type(function).__name__}")
    x = np.linspace(0.0, 1.0, 1001)
    target = _shares("values of the function", function(x))
    if target.shape != x.shape:
        raise ValueError(
            f"the function must return an array of the shape of its argument, {x.shape}; got {target.shape}"
        )
    basis = np.stack([math.comb(degree, k) * x**k * (1 - x) ** (degree - k) for k in range(degree + 1)], axis=1)
    return _bounded_least_squares(basis, target)


def _bounded_least_squares(matrix: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The point in the unit cube with the least sum of squares of ``matrix @ point - target``."""
    orthogonal, matrix = np.linalg.qr(matrix)
    target = orthogonal.T @ target
    point = np.full(matrix.shape[1], 0.5)
    free = np.ones(len(point), np.bool_)
    for _ in range(10 * len(point)):
        wanted = np.linalg.lstsq(matrix[:, free], target - matrix[:, ~free] @ point[~free], rcond=None)[0]
        step = np.zeros_like(point)
        step[free] = wanted - point[free]
        bound = np.where(step > 0, 1.0, 0.0)
        room = np.divide(bound - point, step, out=np.full_like(point, np.inf), where=step != 0)
        nearest = int(np.argmin(room))
        if room[nearest] < 1:
            # as far as the first bound, which then holds
            point += room[nearest] * step
            point[nearest] = bound[nearest]
            free[nearest] = False
            continue
        point += step
        # the best point within these bounds: is there a better one without one of them?
        uphill = matrix.T @ (matrix @ point - target)
        inward = np.where(free, 0.0, np.where(point == 0.0, -uphill, uphill))
        if inward.max() <= 1e-9:
            break
        free[np.argmax(inward)] = True
    return np.asarray(np.clip(point, 0.0, 1.0))


def regenerate(streams: Bitstream, seed: int, *, tensor_id: int = 0) -> Bitstream:
    """Streams of the same values from new random numbers: counted, and encoded again.

    What was correlated becomes independent, at the price of a new random error. The threshold is that of
    ones / length.

    Parameters
    ----------
    streams : Bitstream
        Of any shape.
    seed, tensor_id : int
        Of the new random numbers, as in `encode` for purpose "input". They should differ from those that
        the streams, and what they meet, are made of.

    Returns
    -------
    Bitstream
        Of the same length, shape and polarity, on the same device.

    Raises
    ------
    ValueError
        A seed or tensor id out of range.
    TypeError
        ``streams`` is no `Bitstream`.
    """
    shares = bitstream_of("streams", streams).count() / streams.length
    return _encoded_like(streams, shares, seed, "input", tensor_id)


def _encoded_like(streams: Bitstream, share: ArrayLike, seed: int, purpose: Purpose, tensor_id: int) -> Bitstream:
    """New streams of such shares of ones, in the shape and buffers of others."""
    rows = (math.prod(streams.shape[:-1]), streams.shape[-1]) if streams.shape else (1, 1)
    made = encode(
        np.broadcast_to(share, streams.shape).reshape(rows),
        streams.length,
        seed,
        purpose=purpose,
        tensor_id=tensor_id,
        device=streams.device,
    )
    return Bitstream(made._backend, made._parts, streams.shape, streams.length, streams.polarity)


def _alike(name: str, inputs: Sequence[Bitstream]) -> list[Bitstream]:
    """Streams of one length, polarity and shape, at least one tensor of them."""
    if isinstance(inputs, Bitstream) or not isinstance(inputs, Sequence):
        raise TypeError(f"{name} must be a list of Bitstreams; got {type(inputs).__name__}")
    if not inputs:
        raise ValueError(f"{name} must hold at least one Bitstream; got none")
    streams = [bitstream_of(name, stream) for stream in inputs]
    for field in ("length", "polarity", "shape"):
        found = [getattr(stream, field) for stream in streams]
        if other := [value for value in found if value != found[0]]:
            raise ValueError(f"{name}: streams must have equal {field}; got {found[0]!r} and {other[0]!r}")
    return streams


def _unipolar(function: str, streams: list[Bitstream]) -> list[Bitstream]:
    """Refuse bipolar streams."""
    if streams[0].polarity != "unipolar":
        raise ValueError(f"{function} is for unipolar streams; got bipolar ones")
    return streams


def _shares(name: str, value: ArrayLike) -> NDArray[np.float64]:
    """Numbers in [0, 1], of any shape: what a stream can say."""
    shares = arguments.reals(name, value)
    outside = (shares < 0) | (shares > 1)
    if outside.any():
        raise ValueError(f"{name} must lie in [0, 1]; got {shares[outside][0]}. Scale them first.")
    return shares
