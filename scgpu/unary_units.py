"""Units of UnarySim over all their operands: multiplication, division, square root, ReLU, series.

The operands, the generators, their dimensions and what an error is are those of the notebooks under
``sw/test/kernel`` of UnarySim (github.com/diwu1990/UnarySim, 2020): values of 8 bits, streams of 256 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scgpu.arguments import Polarity
from scgpu.backend import Device
from scgpu.bitstream import Bitstream
from scgpu.conditional import conditional_layer
from scgpu.encode import encode
from scgpu.fsm import StateMachine, relu
from scgpu.pairs import pair_counts
from scgpu.philox import philox4x32
from scgpu.sng import PURPOSE_COUNT, Lfsr, Numbers, NumberTable, sobol_directions, sobol_points

LENGTH = 256
DRAWN = 10_000  # pairs of operands that a notebook on multiplication draws
DIMENSIONS = 100  # those on other units go through the first hundred dimensions instead
LAST_DIMENSION = -1  # number 1111, the second operand of Gaines multiplication
DRAWS = 500  # of numbers at random
# What pylfsr draws from: primitive polynomials of degree 8, one of each pair of reciprocals.
PYLFSR_TAPS = (
    *((8, 4, 3, 2), (8, 5, 3, 1), (8, 6, 4, 3, 2, 1), (8, 6, 5, 1), (8, 6, 5, 2), (8, 6, 5, 3)),
    *((8, 7, 6, 1), (8, 7, 6, 5, 2, 1)),
)


class Measured(NamedTuple):
    """Root of the mean square error, and the standard error of an estimate of it from random operands."""

    rms: float
    sampling: float


def torch_numbers(dimension: int, count: int = LENGTH) -> Numbers:
    """What torch's Sobol engine of 2020 draws: direction numbers of 2003, and not the point 0."""
    return sobol_points(sobol_directions("joe_kuo_2003.txt")[dimension], count + 1)[1:]


def row_for_each_stream(numbers: NDArray[np.integer]) -> NumberTable:
    """A generator whose row i is followed by stream i of an input with tensor id and seed 0."""
    return NumberTable(np.repeat(numbers, PURPOSE_COUNT, axis=0), sharing="stream")


def _streams(levels: NDArray[np.int64], dimension: int, polarity: Polarity, device: str | int | Device) -> Bitstream:
    """Streams of so many 256ths, before rounding of the generator's own."""
    share = levels / LENGTH
    return encode(
        2 * share - 1 if polarity == "bipolar" else share,
        LENGTH,
        resolution=8,
        polarity=polarity,
        sng=NumberTable(torch_numbers(dimension)),
        device=device,
    )


def multiplication(unit: str, polarity: Polarity, device: str | int | Device = "auto") -> Measured:
    """Products of all pairs of operands, weighted as random ones that are rounded to 256ths.

    ``unit`` is "uMUL" (both operands of dimension 1, the second static) or "Gaines" (AND or XNOR of
    dimensions 1 and 1111). An error is the result less the product, rounded to 256ths.
    """
    levels = np.arange(LENGTH + 1)
    if unit == "uMUL":
        operand = _streams(levels[:, None], 0, polarity, device)
        counts = conditional_layer(operand, operand).astype(np.int64)
    else:
        a, b = (_streams(levels, dimension, polarity, device) for dimension in (0, LAST_DIMENSION))
        counts = pair_counts(a, b)
        if polarity == "bipolar":
            counts = LENGTH - a.count().astype(np.int64)[:, None] - b.count().astype(np.int64) + 2 * counts
    values = np.arange(-LENGTH if polarity == "bipolar" else 0, LENGTH + 1) / LENGTH
    results = counts / LENGTH
    if polarity == "bipolar":  # 513 values, but 257 streams
        source = np.rint((values + 1) / 2 * LENGTH).astype(np.int64)
        results = 2 * results[np.ix_(source, source)] - 1
    weights = np.full(values.size, 1 / (values.size - 1))
    weights[[0, -1]] /= 2
    squares = np.square(results - np.rint(np.outer(values, values) * LENGTH) / LENGTH)
    mean = float(weights @ squares @ weights)
    variance = float(weights @ np.square(squares - mean) @ weights)
    return Measured(math.sqrt(mean), math.sqrt(variance / DRAWN / mean) / 2)


def _over_dimensions(errors_of: Callable[[int], NDArray[np.float64]]) -> float:
    return math.sqrt(np.mean([np.square(errors_of(dimension)).mean() for dimension in range(DIMENSIONS)]))


def _counted(state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ones in a register below whose bits lies the newest result, which is not yet counted."""
    ones: NDArray[np.int64] = np.bitwise_count(state >> 1).astype(np.int64)
    return ones


def _without_old_ones(state: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """The register without the ones that decide nothing.

    Only whether half of its bits are ones matters. Where half of them are newer than a bit, half of them
    still are until it is lost, whatever it was.
    """
    kept = state & 1
    for bit in range(1, depth + 1):
        kept |= state & np.where(_counted(kept) < depth // 2, 1 << bit, 0)
    return kept


@cache
def _relu_register(depth: int) -> StateMachine:
    """ReLU that is 1 while fewer than half of the last results are, the very last of them not yet counted."""
    start = np.array([sum(1 << bit for bit in range(0, depth, 2))])
    reached, new = start, start
    while new.size:  # 48,620 states for 16 bits, of 2**17 that there are
        free = new[_counted(new) >= depth // 2]  # to write a 0
        shifted = np.concatenate([free << 1, new << 1 | 1]) & (2 << depth) - 1
        new = np.setdiff1d(_without_old_ones(shifted, depth), reached)
        reached = np.union1d(reached, new)
    result = np.arange(2) | (_counted(reached) < depth // 2)[:, None]
    after = _without_old_ones(reached[:, None] << 1 & (2 << depth) - 1 | result, depth)
    return StateMachine(np.searchsorted(reached, after), result, initial=int(np.searchsorted(reached, start)[0]))


def rectification(unit: str, bits: int, device: str | int | Device = "auto") -> float:
    """ReLU of the 257 bipolar values, by a "counter" or a "register" of so many bits: root of the mean square error."""
    levels = np.arange(LENGTH + 1)
    expected = np.maximum(2 * levels / LENGTH - 1, 0)

    def errors(dimension: int) -> NDArray[np.float64]:
        x = _streams(levels, dimension, "bipolar", device)
        result = relu(x, bits) if unit == "counter" else _relu_register(bits).run(x)[0]
        return result.value() - expected

    return _over_dimensions(errors)


def _to_unipolar(owed: NDArray[np.int64], bit: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bits of value x, x >= 0, from bipolar ones: what is owed to the results after one, and its result."""
    balance = 2 * bit - 1 - owed
    result = (balance > 0).astype(np.int64)
    return np.minimum(result - balance, LENGTH), result


@cache
def _root(unit: str, polarity: Polarity) -> StateMachine:
    """Square root by inserted bits of y / (1 + y), from a flip-flop or a division that keeps one bit."""
    state, x = np.indices((8 * (LENGTH + 1 if polarity == "bipolar" else 1), 2))
    owed, kept, odd, inserted = state >> 3, state >> 2 & 1, state >> 1 & 1, state & 1
    root = x | inserted
    owed, y = _to_unipolar(owed, root) if polarity == "bipolar" else (owed, root)
    if unit == "JK":
        return StateMachine(owed << 3 | y & (1 - inserted), root)
    quotient = np.where(odd | y, (1 - odd) & y, kept)
    return StateMachine(owed << 3 | quotient << 2 | 1 - odd << 1 | quotient, root)


@cache
def _emitting_root(polarity: Polarity) -> StateMachine:
    """Square root by emitted bits: results of 1 whose fourth-last was 0 are added to what comes in, as ones."""
    held, register, emitted = 5, 16, 2  # what waits to be a result is at most 4
    owed, waiting, last, more, x = np.indices((LENGTH + 1 if polarity == "bipolar" else 1, held, register, emitted, 2))
    total = waiting + more + x
    result = (total > 0).astype(np.int64)
    owed, y = _to_unipolar(owed, result) if polarity == "bipolar" else (owed, result)
    waiting, more = np.minimum(total - result, held - 1), 1 - (last >> 3) & y
    state = ((owed * held + waiting) * register + (last << 1 & 15 | result)) * emitted + more
    return StateMachine(state.reshape(-1, 2), result.reshape(-1, 2), initial=0b1010 * emitted)


def root(unit: str, polarity: Polarity, device: str | int | Device = "auto") -> float:
    """Square root of all values from 0 to 1 by "JK", "plain" or "emitted" bits: root of the mean square error."""
    levels = np.arange(LENGTH // 2 if polarity == "bipolar" else 0, LENGTH + 1)
    expected = np.sqrt(2 * levels / LENGTH - 1 if polarity == "bipolar" else levels / LENGTH)
    machine = _emitting_root(polarity) if unit == "emitted" else _root(unit, polarity)
    return _over_dimensions(lambda d: machine.run(_streams(levels, d, polarity, device))[0].value() - expected)


def _series(function: str, x: Bitstream, constant: Callable[[int, int], Bitstream]) -> NDArray[np.float64]:
    """Errors of the gates of the series of "tanh" or "exp" (of -x).

    ``constant(k, level)`` makes the streams of the k-th constant, of so many 256ths.

    K. Parhi, Y. Liu: Computing arithmetic functions using stochastic logic by series expansion. IEEE Transactions on
    Emerging Topics in Computing, 2017. Figures 10 and 12.
    """
    tanh = function == "tanh"
    coefficients = (62 / 153, 17 / 42, 2 / 5, 1 / 3) if tanh else (1 / 5, 1 / 4, 1 / 3, 1 / 2)
    first = x & x.delayed(4) if tanh else x
    gates = None
    for k, coefficient in enumerate(coefficients):
        term = first.delayed(k) & constant(k, round(coefficient * LENGTH))
        gates = ~(term if gates is None else gates & term)
    assert gates is not None
    levels = np.arange(LENGTH + 1)
    expected = np.tanh(levels / LENGTH) if tanh else np.exp(-levels / LENGTH)
    values = (gates & x.delayed(8) if tanh else ~(gates & x.delayed(4))).value()
    return values - expected.reshape(-1, *[1] * (values.ndim - 1))


def series(function: str, device: str | int | Device = "auto") -> float:
    """Gates of a series, "tanh" or "exp", of the 257 unipolar values, from Sobol: root of the mean square error."""
    levels = np.arange(LENGTH + 1)

    def errors(dimension: int) -> NDArray[np.float64]:
        def streams(k: int, level: int | NDArray[np.int64]) -> Bitstream:
            return _streams(np.broadcast_to(level, levels.shape), dimension + k, "unipolar", device)

        return _series(function, streams(0, levels), streams)

    return _over_dimensions(errors)


def _random_words(draw: int, *shape: int) -> NDArray[np.int64]:
    counters = np.zeros((math.prod(shape) // 4, 4), np.int64)
    counters[:, 0], counters[:, 1] = np.arange(len(counters)), draw
    return philox4x32(counters, [0, 0], device="numpy").astype(np.int64).reshape(shape)


def _registers() -> NDArray[np.int64]:
    """A period of each register of 8 bits that is drawn from, shape (8, 255)."""
    # to the left, and read from the other end, is what pylfsr does
    periods = [Lfsr(8, taps=taps, start=1).numbers(0, LENGTH - 1, seed=0) >> np.uint32(24) for taps in PYLFSR_TAPS]
    bits = np.unpackbits(np.array(periods, np.uint8)[..., None], axis=-1, bitorder="little")
    return np.packbits(bits, axis=-1)[..., 0].astype(np.int64)


def _drawn(generator: str, draw: int) -> NDArray[np.int64]:
    """Sequences of 256 numbers of 8 bits, drawn at random: permutations ("system"), or registers of 8 bits ("LFSR")."""
    if generator == "system":
        return np.argsort(_random_words(draw, DRAWS, LENGTH), axis=1, kind="stable")
    polynomial, start = (_random_words(draw, DRAWS, 4)[:, :2] % (len(PYLFSR_TAPS), LENGTH - 1)).T
    drawn: NDArray[np.int64] = _registers()[polynomial[:, None], (start[:, None] + np.arange(LENGTH)) % (LENGTH - 1)]
    return drawn


def _drawn_series(function: str, generator: str, dead: bool, device: str | int | Device) -> NDArray[np.float64]:
    """Mean square error of each draw; ``dead``: the operand from a register in state 0, which never leaves it."""
    levels = np.arange(LENGTH + 1)

    def streams(draw: int, level: int | NDArray[np.int64], numbers: NDArray[np.int64]) -> Bitstream:
        shares = np.broadcast_to(np.asarray(level)[..., None] / LENGTH, (levels.size, DRAWS))
        return encode(shares, LENGTH, resolution=8, sng=row_for_each_stream(numbers << 24), device=device)

    operand = np.zeros((DRAWS, LENGTH), np.int64) if dead else _drawn(generator, 0)
    x = streams(0, levels, operand)
    errors = _series(function, x, lambda k, level: streams(k, level, _drawn(generator, 1 + k)))
    mean: NDArray[np.float64] = np.square(errors).mean(axis=0)
    return mean


def drawn_series(function: str, generator: str, dead: int = 0, device: str | int | Device = "auto") -> Measured:
    """Gates of a series, "tanh" or "exp", of the 257 unipolar values, from numbers that are drawn at random.

    The published ones are of a hundred draws, ours the mean of `DRAWS`. ``generator`` is "system" (permutations of the
    numbers) or "LFSR" (registers that pylfsr draws: one of eight polynomials, a random state), ``dead`` how many of
    the hundred registers of operands began in state 0, and so made only ones.
    """
    live = _drawn_series(function, generator, False, device)
    mean, variance = live.mean(), live.var(ddof=1)
    if dead:
        stuck = _drawn_series(function, generator, True, device)
        mean += (stuck.mean() - mean) * dead / DIMENSIONS
        variance += (stuck.var(ddof=1) - variance) * dead / DIMENSIONS
    rms = math.sqrt(mean)
    return Measured(rms, math.sqrt(variance * (1 / DIMENSIONS + 1 / DRAWS)) / rms / 2)


def _ticks(dimension: int, bits: int) -> NDArray[np.int64]:
    """Numbers of few bits for the times 0 .. 2**bits - 1, after which they begin again."""
    return (torch_numbers(dimension, 1 << bits) >> np.uint32(32 - bits)).astype(np.int64)


@cache
def _in_stream_division() -> StateMachine:
    """CORDIV that keeps two bits, behind a skewed synchroniser of 2 bits."""
    state, symbol = np.indices((32, 4))
    x, y = symbol & 1, symbol >> 1
    ahead, newest, oldest, time = state >> 3, state >> 2 & 1, state >> 1 & 1, state & 1
    alone = x ^ y
    paired = np.where(alone, np.where(x, ahead == 3, ahead != 0), x)
    held = np.where(alone, np.clip(ahead + 2 * x - 1, 0, 3), ahead)
    recalled = np.where(_ticks(3, 1)[time], newest, oldest)
    quotient = np.where(y, paired, recalled)
    kept = np.where(y, quotient << 2 | newest << 1, newest << 2 | oldest << 1)
    return StateMachine(held << 3 | kept | 1 - time, quotient, initial=4)


@cache
def _absolute() -> StateMachine:
    """The sign, and the absolute value of a bipolar stream, by a counter of 3 bits that has seen the bit."""
    state, x = np.indices((8, 2))
    counted = np.clip(state + 2 * x - 1, 0, 7)
    negative = (counted < 4).astype(np.int64)
    return StateMachine(counted, negative, negative ^ x, initial=4)


@cache
def _unipolar() -> StateMachine:
    return StateMachine(*_to_unipolar(*np.indices((LENGTH + 1, 2))))


@cache
def _bipolar() -> StateMachine:
    """Unipolar to bipolar: half of the ones of the stream and of a constant 1."""
    state, x = np.indices((2, 2))
    return StateMachine(state ^ 1 ^ x, state | x)


def _signed_division(x: Bitstream, y: Bitstream) -> Bitstream:
    """CORDIV of bipolar streams: of absolute values as unipolar streams, and the signs put to the quotient."""
    (x_sign, x_size), (y_sign, y_size) = _absolute().run(x), _absolute().run(y)
    sizes = (_unipolar().run(size, polarity="unipolar")[0] for size in (x_size, y_size))
    (quotient,) = _bipolar().run(_in_stream_division().run(*sizes)[0], polarity="bipolar")
    return x_sign ^ y_sign ^ quotient


@cache
def _gaines_division(polarity: Polarity) -> StateMachine:
    """A counter of 5 bits that follows the dividend, less the product of quotient and divisor."""
    state, symbol = np.indices((2048, 4))
    x, y = symbol & 1, symbol >> 1
    count, time, last = state >> 6, state >> 1 & 31, state & 1
    quotient = (count > _ticks(1, 5)[time]).astype(np.int64)
    up, down = x, quotient & y
    if polarity == "bipolar":
        same, predicted = x == y, (last == y) != quotient
        up, down = same & predicted, ~same & ~predicted
    counted = np.clip(count + up - down.astype(np.int64), 0, 31)
    return StateMachine(counted << 6 | (time + 1 & 31) << 1 | y, quotient, initial=16 << 6)


def division(unit: str, polarity: Polarity, device: str | int | Device = "auto") -> float:
    """Quotients of all x and y, y not 0, cut to -1 .. 1, by "CORDIV" or "Gaines": root of the mean square error."""
    zero = LENGTH // 2 if polarity == "bipolar" else 0
    levels = np.arange(LENGTH + 1)
    x, y = (grid.reshape(-1) for grid in np.meshgrid(levels, np.delete(levels, zero)))
    expected = np.clip((x - zero) / (y - zero), -1, 1)

    def errors(dimension: int) -> NDArray[np.float64]:
        operands = [_streams(level, dimension + k, polarity, device) for k, level in enumerate((x, y))]
        if unit == "Gaines":
            quotient = _gaines_division(polarity).run(*operands)[0]
        else:
            quotient = _signed_division(*operands) if zero else _in_stream_division().run(*operands)[0]
        return quotient.value() - expected

    return _over_dimensions(errors)
