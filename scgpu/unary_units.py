"""Units of UnarySim over all their operands: multiplication, division, square root, ReLU.

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
from scgpu.sng import Numbers, NumberTable, sobol_directions, sobol_points
from scgpu.thermometer import thermometer

LENGTH = 256
DRAWN = 10_000  # pairs of operands that a notebook on multiplication draws
DIMENSIONS = 100  # those on other units go through the first hundred dimensions instead
LAST_DIMENSION = -1  # number 1111, the second operand of Gaines multiplication


class Measured(NamedTuple):
    """Root of the mean square error, and the standard error of an estimate of it from random operands."""

    rms: float
    sampling: float


def _torch_numbers(dimension: int, count: int = LENGTH) -> Numbers:
    """What torch's Sobol engine of 2020 draws: direction numbers of 2003, and not the point 0."""
    return sobol_points(sobol_directions("joe_kuo_2003.txt")[dimension], count + 1)[1:]


def _streams(levels: NDArray[np.int64], dimension: int, polarity: Polarity, device: str | int | Device) -> Bitstream:
    """Streams of so many 256ths, before rounding of the generator's own."""
    share = levels / LENGTH
    return encode(
        2 * share - 1 if polarity == "bipolar" else share,
        LENGTH,
        resolution=8,
        polarity=polarity,
        sng=NumberTable(_torch_numbers(dimension)),
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


@cache
def _relu_register(depth: int) -> StateMachine:
    """ReLU that is 1 while fewer than half of the last results are, the very last of them not yet counted."""
    state, x = np.indices((2 << depth, 2))
    counted = np.bitwise_count(state >> 1)
    result = x | (counted < depth / 2)
    start = sum(1 << bit for bit in range(0, depth, 2))
    return StateMachine(state << 1 & (2 << depth) - 1 | result, result, initial=start)


def rectification(unit: str, device: str | int | Device = "auto") -> float:
    """ReLU of the 257 bipolar values, by a "counter" of 5 bits or a "register" of 4: root of the mean square error."""
    levels = np.arange(LENGTH + 1)
    expected = np.maximum(2 * levels / LENGTH - 1, 0)
    first = thermometer(np.ones(levels.size, np.int64), LENGTH, polarity="bipolar", device=device)

    def errors(dimension: int) -> NDArray[np.float64]:
        x = _streams(levels, dimension, "bipolar", device)
        # the first result of the register is 1
        result = relu(x, 5) if unit == "counter" else _relu_register(4).run(x | first)[0]
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


def root(unit: str, polarity: Polarity, device: str | int | Device = "auto") -> float:
    """Square root of all values from 0 to 1 by "JK" or "plain" bit insertion: root of the mean square error."""
    levels = np.arange(LENGTH // 2 if polarity == "bipolar" else 0, LENGTH + 1)
    expected = np.sqrt(2 * levels / LENGTH - 1 if polarity == "bipolar" else levels / LENGTH)
    machine = _root(unit, polarity)
    return _over_dimensions(lambda d: machine.run(_streams(levels, d, polarity, device))[0].value() - expected)


@cache
def _delay() -> StateMachine:
    return StateMachine([[0, 1], [0, 1]], [0, 1])


def _delayed(x: Bitstream, times: int) -> list[Bitstream]:
    """A stream, and the same by 1, 2, .. bits later."""
    streams = [x]
    for _ in range(times):
        streams += _delay().run(streams[-1])
    return streams


def series(function: str, device: str | int | Device = "auto") -> float:
    """Gates of the series of "tanh" or "exp" (of -x), of the 257 unipolar values: root of the mean square error.

    K. Parhi, Y. Liu: Computing arithmetic functions using stochastic logic by series expansion. IEEE Transactions on
    Emerging Topics in Computing, 2017. Figures 10 and 12.
    """
    levels = np.arange(LENGTH + 1)
    coefficients = (62 / 153, 17 / 42, 2 / 5, 1 / 3) if function == "tanh" else (1 / 5, 1 / 4, 1 / 3, 1 / 2)
    expected = np.tanh(levels / LENGTH) if function == "tanh" else np.exp(-levels / LENGTH)

    def errors(dimension: int) -> NDArray[np.float64]:
        x = _delayed(_streams(levels, dimension, "unipolar", device), 8)
        factors = _delayed(x[0] & x[4], 3) if function == "tanh" else x[:4]
        gates = None
        for k, (factor, coefficient) in enumerate(zip(factors, coefficients, strict=True)):
            constant = np.full(levels.size, round(coefficient * LENGTH))
            term = factor & _streams(constant, dimension + k, "unipolar", device)
            gates = ~(term if gates is None else gates & term)
        assert gates is not None
        return (gates & x[8] if function == "tanh" else ~(gates & x[4])).value() - expected

    return _over_dimensions(errors)


def _ticks(dimension: int, bits: int) -> NDArray[np.int64]:
    """Numbers of few bits for the times 0 .. 2**bits - 1, after which they begin again."""
    return (_torch_numbers(dimension, 1 << bits) >> np.uint32(32 - bits)).astype(np.int64)


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
